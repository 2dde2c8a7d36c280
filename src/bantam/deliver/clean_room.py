"""The process in which a package's own code runs: limited, and without Bantam.

    python -I clean_room.py weigh CODE WEIGHTS OUT
    python -I clean_room.py run CODE DATA OUT

A script of its own that imports nothing of Bantam. `weigh` builds the code's net, loads the weights strictly and writes
both counts of its parameters; `run` calls the code as its user would. The limits are those of the operating system:
they stop a runaway, they are no sandbox.
"""

import json
import resource
import runpy
import sys

CPU_SECONDS = 900
ADDRESS_SPACE = 16 * 2**30
FILE_SIZE = 64 * 2**20
OPEN_FILES = 256


def limit() -> None:
    """Take limits on processor time, memory and files, and forget where Bantam is."""
    for what, most in (
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_AS, ADDRESS_SPACE),
        (resource.RLIMIT_FSIZE, FILE_SIZE),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(what)
        value = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (value, value))
    # An installed Bantam is importable although its source is not on the path; None makes the import fail.
    sys.modules["bantam"] = None  # pyright: ignore[reportArgumentType]


SAMPLE_CODE_SIZE = 224
"""Side in pixels of the images that a net is weighed with whose code names no SIZE: the course's sample code has it."""


def weigh(code: str, weights: str, out: str) -> None:
    """Count the parameters of the net that `get_student_model()` in `code` builds: each once, and as torchsummary."""
    import math

    import torch

    names = runpy.run_path(code, run_name="hw13")
    net = names["get_student_model"]().eval()
    net.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    called: list[int] = []

    def record(module: torch.nn.Module, _inputs: object, _output: object) -> None:
        tensors = (getattr(module, name, None) for name in ("weight", "bias"))
        called.append(sum(math.prod(tensor.shape) for tensor in tensors if isinstance(tensor, torch.Tensor)))

    def hook(module: torch.nn.Module) -> None:
        if module is not net and not isinstance(module, torch.nn.Sequential | torch.nn.ModuleList):
            module.register_forward_hook(record)

    net.apply(hook)
    size = names.get("SIZE", SAMPLE_CODE_SIZE)
    with torch.no_grad():
        logits = net(torch.zeros(2, 3, size, size))
    unique = sum(parameter.numel() for parameter in net.parameters())
    with open(out, "w", encoding="utf-8") as file:
        json.dump({"unique": unique, "torchsummary": sum(called), "classes": logits.shape[1]}, file)


def main() -> None:
    """Take the limits and do the job that the arguments name."""
    job, code, *others = sys.argv[1:]
    limit()
    if job == "weigh":
        weights, out = others
        weigh(code, weights, out)
    else:
        data, out = others
        sys.argv = [code, "--data", data, "--out", out]
        runpy.run_path(code, run_name="__main__")


if __name__ == "__main__":
    main()
