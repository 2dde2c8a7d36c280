"""A net as readable code that needs torch alone.

The code is written from the built modules, so it holds for whatever is shipped: folded, pruned, or as trained. Each
class of ours is written once, with its own `forward` and an `__init__` that takes its parts; the net is the nested call
that puts the parts together. The names in the state_dict are those of the net that was given.
"""

import ast
import builtins
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bantam.errors import BadPackage
from bantam.nets.output import StagedNet

WIDTH = 110
"""Where a line of code is broken."""

KNOWN: dict[str, Any] = {"torch": torch, "Tensor": Tensor, "nn": nn, "functional": functional}
"""What the code may use without an import of its own."""

Plain = bool | int | float | str | None

CONV = '''
def conv(
    inputs: int,
    outputs: int,
    kernel: int = 3,
    stride: int = 1,
    groups: int = 1,
    activation: type[nn.Module] | None = nn.ReLU,
) -> nn.Sequential:
    """A convolution that keeps the side of the map, or divides it by the stride, and an activation.

    Its BatchNorm is folded into weight and bias. groups = inputs makes it depthwise, kernel = 1 pointwise.
    """
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups)]
    if activation is not None:
        layers.append(activation())
    return nn.Sequential(*layers)
'''

STUDENT = '''
class Student(nn.Module):
    """Stages of convolutions, the mean over the map, and a linear classifier."""

    def __init__(self, stages: nn.Sequential, head: nn.Linear) -> None:
        super().__init__()
        self.stages = stages
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images [N, 3, H, W] to logits [N, K]."""
        maps = self.stages(images)  # [N, 3, H, W] -> [N, C, h, w]
        return self.head(maps.mean((2, 3)))  # [N, C, h, w] -> [N, C] -> [N, K]
'''


@dataclass(frozen=True)
class Call:
    """A call in the code that is written: its arguments are calls or code, with a name or None."""

    callee: str
    arguments: tuple[tuple[str | None, "Call | str"], ...]

    def render(self, indent: int) -> str:
        """The call as code, broken into lines where it is longer than WIDTH."""
        flat = self.flat()
        if indent + len(flat) <= WIDTH or not self.arguments:
            return flat
        inner = indent + 4
        lines = [f"{' ' * inner}{_argument(name, value, inner)},\n" for name, value in self.arguments]
        return f"{self.callee}(\n{''.join(lines)}{' ' * indent})"

    def flat(self) -> str:
        """The call on one line."""
        parts = (
            f"{name}={code}" if name else code
            for name, code in ((name, v.flat() if isinstance(v, Call) else v) for name, v in self.arguments)
        )
        return f"{self.callee}({', '.join(parts)})"


def _argument(name: str | None, value: "Call | str", indent: int) -> str:
    prefix = f"{name}=" if name else ""
    return prefix + (value.render(indent) if isinstance(value, Call) else value)


@dataclass
class Written:
    """The definitions written so far, by name and in order, and the imports that they need."""

    definitions: dict[str, str] = field(default_factory=dict)
    made_from: dict[str, Any] = field(default_factory=dict)
    imports: set[str] = field(default_factory=set)


def net_code(net: nn.Module, about: str) -> str:
    """Return the code of `get_student_model()`, which builds `net`, with every definition that it needs.

    The code expects `torch`, `Tensor`, `nn` and `functional` (torch.nn.functional) to be imported. `about` is its
    docstring. Raises BadPackage where a module cannot be written as code.
    """
    written = Written()
    call = _module(net, written).render(indent=4)
    parts = [code.strip() for code in written.definitions.values()]
    parts.append(f'def get_student_model() -> nn.Module:\n    """{about}"""\n    return {call}')
    imports = "\n".join(sorted(written.imports))
    return (imports + "\n\n\n" if imports else "") + "\n\n\n".join(parts) + "\n"


def _module(module: nn.Module, written: Written) -> Call:
    kind = type(module)
    if isinstance(module, nn.Sequential) and kind is nn.Sequential:
        return _as_conv(module, written) or Call("nn.Sequential", tuple((None, _module(m, written)) for m in module))
    if kind is nn.ModuleList:
        inner = ", ".join(_module(part, written).flat() for part in module.children())
        return Call("nn.ModuleList", ((None, f"[{inner}]"),))
    if kind.__module__.startswith("torch.nn."):
        return _layer(module)
    if kind is StagedNet:
        written.definitions["Student"] = STUDENT
        parts = ((name, _module(part, written)) for name, part in module.named_children())
        return Call("Student", tuple(parts))
    return _own(module, written)


def _as_conv(module: nn.Sequential, written: Written) -> Call | None:
    """The call of `conv` that builds `module`, where it is such a convolution."""
    conv, *others = module
    if type(conv) is not nn.Conv2d or conv.bias is None or len(others) > 1:
        return None
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    expected = nn.Conv2d(conv.in_channels, conv.out_channels, kernel, stride, kernel // 2, groups=conv.groups)
    activation = type(others[0]) if others else None
    fits = activation is None or (activation.__module__ == "torch.nn.modules.activation" and _is_plain(others[0]))
    if repr(conv) != repr(expected) or not fits:
        return None
    written.definitions["conv"] = CONV
    arguments: list[tuple[str | None, Call | str]] = [(None, str(conv.in_channels)), (None, str(conv.out_channels))]
    for name, value, default in (("kernel", kernel, 3), ("stride", stride, 1), ("groups", conv.groups, 1)):
        if value != default:
            arguments.append((name, str(value)))
    if activation is not nn.ReLU:
        arguments.append(("activation", f"nn.{activation.__name__}" if activation else "None"))
    return Call("conv", tuple(arguments))


def _is_plain(layer: nn.Module) -> bool:
    return not _layer(layer).arguments


def _layer(module: nn.Module) -> Call:
    """The call that builds one of torch's own layers: the arguments that differ from the defaults."""
    kind = type(module)
    arguments: list[tuple[str | None, Call | str]] = []
    for name, parameter in inspect.signature(kind.__init__).parameters.items():
        if parameter.kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD or name in (
            "self",
            "device",
            "dtype",
            "inplace",
        ):
            continue
        if not hasattr(module, name):
            raise BadPackage(f"a layer {kind.__name__} cannot be written as code: it does not show its {name}")
        value = getattr(module, name)
        if name == "bias":
            value = value is not None
        value = _single(value)
        if not isinstance(value, Plain | tuple):
            raise BadPackage(f"a layer {kind.__name__} cannot be written as code: its {name} is {value!r}")
        if parameter.default is inspect.Parameter.empty:
            arguments.append((None, repr(value)))
        elif value != _single(parameter.default) and not (
            name == "stride" and parameter.default is None and value == _single(vars(module)["kernel_size"])
        ):
            arguments.append((name, repr(value)))
    if list(module.children()) or getattr(nn, kind.__name__, None) is not kind:
        raise BadPackage(f"a layer {kind.__name__} cannot be written as code")
    return Call(f"nn.{kind.__name__}", tuple(arguments))


def _single(value: Any) -> Any:
    """One number for a tuple of equal ones."""
    return value[0] if isinstance(value, tuple) and len(set(value)) == 1 else value


def _own(module: nn.Module, written: Written) -> Call:
    """The call that builds a module of a class of ours, whose definition is written first."""
    kind = type(module)
    if module._parameters or module._buffers:
        raise BadPackage(f"a {kind.__name__} cannot be written as code: it has weights of its own, beside its layers")
    parts = {name: _module(part, written) for name, part in module.named_children()}
    plain = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, Plain | tuple) and name != "training" and not name.startswith("_")
    }
    names = {name: type(value).__name__ for name, value in plain.items()} | dict.fromkeys(parts, "nn.Module")
    _define(kind.__name__, kind, written, lambda: _class_code(kind, names, written))
    arguments: list[tuple[str | None, Call | str]] = [(name, repr(value)) for name, value in plain.items()]
    return Call(kind.__name__, (*arguments, *parts.items()))


def _define(name: str, made_from: Any, written: Written, code: Callable[[], str]) -> None:
    if written.made_from.get(name, made_from) is not made_from:
        raise BadPackage(f"the net has two different definitions of {name}, which one file cannot hold")
    if name not in written.definitions:
        written.made_from[name] = made_from
        text = code()  # first, because it writes the definitions that it needs itself
        written.definitions[name] = text


def _class_code(kind: type[nn.Module], names: dict[str, str], written: Written) -> str:
    """The definition of a class whose `__init__` takes `names`, each of a type; with what `forward` needs."""
    doc = inspect.cleandoc(kind.__doc__ or f"A part of the net: {kind.__name__}.")
    if "\n" in doc:
        doc += "\n"
    lines = [f"class {kind.__name__}(nn.Module):", textwrap.indent(f'"""{doc}"""', "    "), ""]
    taken = [f"{name}: {annotation}" for name, annotation in names.items()]
    first = f"    def __init__({', '.join(['self', *taken])}) -> None:"
    if len(first) > WIDTH:
        together = ", ".join(["self", *taken])
        inner = together if len(together) + 8 <= WIDTH else ",\n        ".join(["self", *taken]) + ","
        first = f"    def __init__(\n        {inner}\n    ) -> None:"
    lines += [first, "        super().__init__()"]
    lines += [f"        self.{name} = {name}" for name in names]
    waiting, done = ["forward"], set[str]()
    while waiting:
        method = waiting.pop(0)
        if method in done:
            continue
        done.add(method)
        function = inspect.unwrap(getattr(kind, method))
        source = textwrap.dedent(inspect.getsource(function))
        lines += ["", textwrap.indent(source.rstrip(), "    ")]
        tree = ast.parse(source)
        used = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
        }
        waiting += sorted(name for name in used - set(names) if inspect.isfunction(getattr(kind, name, None)))
        unknown = sorted(name for name in used - set(names) - {*waiting, *done} if name != "training")
        if unknown:
            raise BadPackage(f"a {kind.__name__} cannot be written as code: its {method} uses self.{unknown[0]}")
        _write_names(tree, function.__globals__, written)
    return "\n".join(line.rstrip() for line in lines)


def _write_names(tree: ast.AST, names: dict[str, Any], written: Written) -> None:
    """Write the definitions of all that the code `tree` uses of its module, whose names are `names`."""
    for name in dict.fromkeys(node.id for node in ast.walk(tree) if isinstance(node, ast.Name)):
        if name not in names or hasattr(builtins, name) or KNOWN.get(name) is names[name]:
            continue
        value = names[name]
        room = getattr(value, "__module__", "") or ""
        if isinstance(value, Plain | tuple):
            _define(name, value, written, lambda name=name, value=value: f"{name} = {value!r}")
        elif room.split(".")[0] == "bantam" and callable(value):
            source = textwrap.dedent(inspect.getsource(value))
            _write_names(ast.parse(source), vars(inspect.getmodule(value)), written)
            _define(name, value, written, lambda source=source: source)
        elif room in ("typing", "collections.abc", "math", "torch.nn"):
            written.imports.add(f"from {room} import {name}")
        elif isinstance(value, ModuleType) and value.__name__ in ("math", "itertools"):
            written.imports.add(f"import {value.__name__}")
        else:
            raise BadPackage(f"the net's code uses {name}, which a package of torch alone does not have")
