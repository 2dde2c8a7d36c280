"""The process in which a package's own code runs: limited, and without Bantam.

    python -I clean_room.py run CODE DATA OUT
    python -I clean_room.py hand_over CODE DATA OUT WEIGHTS FILE

A script of its own that imports nothing of Bantam. `run` calls the code as its user would. `hand_over` does the same
with the inputs of its net recorded, and then writes the net as a graph with its weights, and the recorded inputs.
Whatever it writes was in the hands of the code: it is looked at as such (`graph.py`), and nothing in it is believed.
"""

import contextlib
import json
import math
import runpy
import sys
from typing import Any

CPU_SECONDS = 900
ADDRESS_SPACE = 16 * 2**30
FILE_SIZE = 256 * 2**20
OPEN_FILES = 256

BATCH = 16
"""Images in a batch of the graph; its shapes are fixed."""

HINTS = ("STORED", "SIZE", "VIEWS")
"""What a package's code may say of its preprocessing, by names at its top level."""


def limit() -> None:
    """Take limits on processor time, memory and files."""
    # Not there on every system.
    with contextlib.suppress(ImportError):
        import resource

        for what, most in (
            (resource.RLIMIT_CPU, CPU_SECONDS),
            (resource.RLIMIT_AS, ADDRESS_SPACE),
            (resource.RLIMIT_FSIZE, FILE_SIZE),
            (resource.RLIMIT_NOFILE, OPEN_FILES),
            (resource.RLIMIT_CORE, 0),
        ):
            _, hard = resource.getrlimit(what)
            value = most if hard == resource.RLIM_INFINITY else min(most, hard)
            with contextlib.suppress(ValueError, OSError):  # of one that this system does not have
                resource.setrlimit(what, (value, value))


def run(code: str, data: str, out: str) -> dict[str, Any]:
    """Run the code as its user would, to its end. Gives its names."""
    sys.argv = [code, "--data", data, "--out", out]
    try:
        return runpy.run_path(code, run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise
        return {}


def hand_over(code: str, data: str, out: str, weights: str, file: str) -> None:
    """Run the code with its net's inputs recorded, then write its net as graphs, one for each shape of input."""
    import torch
    from safetensors.torch import save_file

    inputs: list[torch.Tensor] = []
    with recorded(inputs):
        names = run(code, data, out)
    names = names or runpy.run_path(code, run_name="hw13")
    net = names["get_student_model"]().eval()
    net.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    tensors: dict[str, torch.Tensor] = {}
    shapes = list(dict.fromkeys(tuple(one.shape[1:]) for one in inputs))
    if not shapes:
        raise SystemExit("the code never called a net on images [N, C, H, W]")
    graphs = [graph_of(net, shape, tensors) for shape in shapes[:4]]
    parameters = {key(parameter) for parameter in net.parameters()}
    unique, called = counts(net, shapes[0])
    about = {
        "graphs": graphs,
        "parameters": [name for name, tensor in tensors.items() if key(tensor) in parameters],
        "unique": unique,
        "torchsummary": called,
        "hints": {name: names[name] for name in HINTS if name in names},
        "inputs": len(inputs),
    }
    written = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    written |= {f"input {number}": one.to(torch.float32).contiguous() for number, one in enumerate(inputs)}
    save_file(written, file, {"about": json.dumps(about, default=lambda _: None)})


def key(tensor: Any) -> tuple[Any, ...]:
    """What two tensors have in common that are the same numbers."""
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype


@contextlib.contextmanager
def recorded(inputs: list[Any]) -> Any:
    """Record what the outermost module with parameters is called on, where that is a batch of images."""
    import torch

    original = torch.nn.Module.__call__
    inside = [0]

    def call(module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        first = args[0] if args else next(iter(kwargs.values()), None)
        outermost = inside[0] == 0 and any(True for _ in module.parameters())
        # By its channels: code that calls a net's `forward` itself is seen calling the first of its layers.
        if outermost and isinstance(first, torch.Tensor) and first.ndim == 4 and first.shape[1] in (1, 3):
            inputs.append(first.detach().clone())
        inside[0] += outermost
        try:
            return original(module, *args, **kwargs)
        finally:
            inside[0] -= outermost

    torch.nn.Module.__call__ = call
    try:
        yield
    finally:
        torch.nn.Module.__call__ = original


def counts(net: Any, shape: tuple[int, ...]) -> tuple[int, int]:
    """The net's parameters, each once, and as torchsummary counts them: weight and bias at every call of a module."""
    import torch

    called: list[int] = []

    def record(module: torch.nn.Module, _inputs: object, _output: object) -> None:
        tensors = (getattr(module, name, None) for name in ("weight", "bias"))
        called.append(sum(math.prod(tensor.shape) for tensor in tensors if isinstance(tensor, torch.Tensor)))

    def hook(module: torch.nn.Module) -> None:
        if module is not net and not isinstance(module, torch.nn.Sequential | torch.nn.ModuleList):
            module.register_forward_hook(record)

    net.apply(hook)
    with torch.no_grad():
        net(torch.zeros(2, *shape))
    return sum(parameter.numel() for parameter in net.parameters()), sum(called)


def graph_of(net: Any, shape: tuple[int, ...], tensors: dict[str, Any]) -> dict[str, Any]:
    """The net for inputs [BATCH, *shape] in core ATen operators, as plain data; its tensors go into `tensors`.

    Each value is ["input"], ["tensor", name], ["call", operator, arguments, keywords] or ["item", value, number];
    within arguments {"value": n} is the nth value.
    """
    import torch

    try:
        with torch.no_grad():
            program = torch.export.export(net, (torch.zeros(BATCH, *shape),)).run_decompositions()
    except Exception as error:  # torch raises many kinds, also for a branch that depends on the images
        reason = " ".join(str(error).split())[:100]
        raise SystemExit(f"the net cannot be written as one graph (torch.export): {reason}") from error
    held = {**program.state_dict, **program.constants}
    named = {key(tensor): name for name, tensor in tensors.items()}
    spec = program.graph_signature
    sources = {**spec.inputs_to_parameters, **spec.inputs_to_buffers, **spec.inputs_to_lifted_tensor_constants}
    values: list[list[Any]] = []
    places: dict[str, int] = {}

    def plain(value: Any) -> Any:
        if isinstance(value, torch.fx.Node):
            return {"value": places[value.name]}
        if isinstance(value, list | tuple):
            return [plain(inner) for inner in value]
        if isinstance(value, torch.dtype | torch.memory_format):
            return {type(value).__name__: str(value).removeprefix("torch.")}
        return None if isinstance(value, torch.device | torch.layout) else value

    output = None
    for node in program.graph.nodes:
        if node.op == "output":
            (output,) = (plain(value) for value in node.args[0])
            break
        if not node.users:  # a tensor that is not used, or an assertion of the exporter's
            continue
        if node.op == "placeholder" and node.name in sources:
            tensor = held[sources[node.name]]
            name = named.setdefault(key(tensor), f"tensor {len(tensors)}")
            tensors[name] = tensor
            value: list[Any] = ["tensor", name]
        elif node.op == "placeholder":
            value = ["input"]
        elif getattr(node.target, "__name__", "") == "getitem":
            value = ["item", plain(node.args[0])["value"], node.args[1]]
        elif node.target is torch.ops.aten.sym_size.int:
            raise SystemExit("the net's graph has shapes that depend on its values")
        else:
            operator = str(node.target).removeprefix("aten.")
            value = ["call", operator, plain(node.args), {name: plain(one) for name, one in node.kwargs.items()}]
        places[node.name] = len(values)
        values.append(value)
    return {"shape": list(shape), "values": values, "output": (output or {}).get("value")}


if __name__ == "__main__":
    limit()
    # An installed Bantam is importable although its source is not on the path; None makes the import fail.
    sys.modules["bantam"] = None  # pyright: ignore[reportArgumentType]
    {"run": run, "hand_over": hand_over}[sys.argv[1]](*sys.argv[2:])
