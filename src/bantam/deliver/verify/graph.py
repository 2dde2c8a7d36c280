"""A net that somebody handed over as a graph: read as data, weighed by all numbers that it holds, and run.

Nothing in the file is code and nothing is unpickled: the weights are safetensors, the graph is JSON, whose every call
must be an operator of PyTorch's core ATen set (pytorch.org/docs/stable/torch.compiler_ir.html) that is a pure function:
without randomness, without a shape that depends on values, without memory that it did not fill.
"""

import json
import math
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from bantam.errors import BadPackage

FREE_NUMBERS = 64
"""Numbers that may stand beside the parameters: a normalisation, constants of activations."""

FREE_TEXT = 8192
"""Bytes that the graph without its tensors may take, packed; the largest of Bantam's families takes 3,000."""

MOST_VALUES = 5000
MOST_GRAPHS = 4
MOST_NUMBERS = 2**28
"""Numbers in the largest tensor while a graph runs: 1 GiB of float32."""

BYTES_A_NUMBER = 4

REFUSED = re.compile(r"(empty|new_empty|rand|as_strided|sym_|_local_scalar|item|resize|set_|nonzero|bernoulli|normal)")
"""How operators begin that are in the core set but read unset memory or other numbers, or make shapes of values."""

BATCH_NORM = "_native_batch_norm_legit_no_training.default"
WEIGHTS_OF = {
    "convolution.default": (1, 2),
    "addmm.default": (0, 2),
    "mm.default": (1,),
    "embedding.default": (0,),
    BATCH_NORM: (1, 2),
    "native_layer_norm.default": (2, 3),
    "native_group_norm.default": (1, 2),
}
"""The arguments of operators that are a module's weight and bias, which torchsummary counts at each call."""

SAME_NUMBERS = (
    "permute.default",
    "view.default",
    "clone.default",
    "alias.default",
    "unsqueeze.default",
    "expand.default",
)
"""Operators whose result holds the numbers of their first argument."""


@dataclass(frozen=True)
class Value:
    """One value of a graph: an input, a tensor of the file, a call, or an item of a call's results."""

    kind: str
    of: str | int = ""
    number: int = 0
    arguments: tuple[Any, ...] = ()
    keywords: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Reference:
    """The nth value of a graph, as an argument."""

    value: int


@dataclass(frozen=True)
class Graph:
    """A net for inputs [N, *shape]: its values in order, and which of them is the logits."""

    shape: tuple[int, ...]
    values: tuple[Value, ...]
    output: int


@dataclass(frozen=True)
class HandedOver:
    """What the code handed over. `claimed` are its own counts, `hints` what it says of its preprocessing."""

    graphs: tuple[Graph, ...]
    tensors: dict[str, Tensor]
    parameters: frozenset[str]
    claimed: tuple[int, int]
    hints: dict[str, Any]
    inputs: tuple[Tensor, ...]
    text: int


def read(data: bytes) -> HandedOver:
    """What is in a handed over file. Raises BadPackage where it is not whole, or holds what is no such graph."""
    try:
        length = int.from_bytes(data[:8], "little")
        about = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["about"])
        tensors = load(data)
        inputs = tuple(tensors.pop(f"input {number}") for number in range(int(about["inputs"])))
        graphs = tuple(graph(one, tensors) for one in about["graphs"][:MOST_GRAPHS])
        counts = (about["unique"], about["torchsummary"])
        if not graphs or not all(type(count) is int and count > 0 for count in counts):
            raise BadPackage(f"the code says that its net has {counts[0]!r:.20} parameters, which no net has")
        packed = len(zlib.compress(json.dumps(about["graphs"]).encode(), 9))
        parameters = frozenset(name for name in about["parameters"] if name in tensors)
        return HandedOver(graphs, tensors, parameters, counts, dict(about["hints"]), inputs, packed)
    except BadPackage:
        raise
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise BadPackage(f"what the code handed over is no graph with its weights: {reason}") from error


def graph(plain: dict[str, Any], tensors: dict[str, Tensor]) -> Graph:
    """A graph out of its plain data, every operator and reference checked. Raises what `read` turns into BadPackage."""
    if len(plain["values"]) > MOST_VALUES:
        raise BadPackage(f"the net's graph has more than {MOST_VALUES:,} values")
    values: list[Value] = []

    def argument(one: Any) -> Any:
        if isinstance(one, list):
            return tuple(argument(inner) for inner in one)
        if isinstance(one, dict):
            ((kind, what),) = one.items()
            return reference(what) if kind == "value" else named(kind, what)
        if not isinstance(one, bool | int | float | None) and not (isinstance(one, str) and len(one) <= 16):
            raise ValueError(f"an argument {one!r:.40}")
        return one

    def reference(number: Any) -> Reference:
        if type(number) is not int or not 0 <= number < len(values):
            raise ValueError(f"a value {number!r:.20} that is not there yet")
        return Reference(number)

    for kind, *rest in plain["values"]:
        if kind == "tensor":
            values.append(Value(kind, tensors[rest[0]] is not None and rest[0]))
        elif kind == "item":
            values.append(Value(kind, reference(rest[0]).value, int(rest[1])))
        elif kind == "call":
            operator(rest[0])
            keywords = tuple((name, argument(one)) for name, one in rest[2].items() if name not in ("device", "layout"))
            values.append(Value(kind, rest[0], 0, argument(rest[1]), keywords))
        elif kind == "input":
            values.append(Value(kind))
        else:
            raise ValueError(f"a value of the kind {kind!r:.20}")
    shape = tuple(int(side) for side in plain["shape"])
    return Graph(shape, tuple(values), reference(plain["output"]).value)


def named(kind: str, name: str) -> Any:
    """A dtype or a memory format by its name."""
    found = getattr(torch, name, None)
    if not isinstance(found, {"dtype": torch.dtype, "memory_format": torch.memory_format}[kind]):
        raise ValueError(f"a {kind} {name!r:.20}")
    return found


def operator(name: str) -> Callable[..., Any]:
    """The pure core operator of that name, as `convolution.default`. Raises BadPackage for any other."""
    base, _, overload = name.partition(".")
    packet = getattr(torch.ops.aten, base, None) if re.fullmatch(r"[a-z_0-9]+", base) else None
    found = getattr(packet, overload, None) if re.fullmatch(r"\w+", overload) else None
    if isinstance(found, torch._ops.OpOverload):
        refused = {torch.Tag.nondeterministic_seeded, torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
        pure = not found._schema.is_mutable and not refused & set(found.tags) and not REFUSED.match(base)
        if pure and torch.Tag.core in found.tags:
            return found
    raise BadPackage(f"the net uses the operator {name[:60]!r}, which is no pure function of PyTorch's core set")


@dataclass(frozen=True)
class Weighed:
    """All numbers that graphs hold.

    `parameters` are counted once, `called` at each operator that takes them as weight or bias; `beside` are those of
    other tensors and the different fractions in the graph, without the statistics of BatchNorms that have as many
    parameters; `text` is what the graphs' text holds above its allowance.
    """

    parameters: int
    called: int
    beside: int
    text: int

    @property
    def counted(self) -> int:
        """What the budget holds for."""
        return max(self.parameters, self.called) + max(0, self.beside - FREE_NUMBERS) + self.text


def weigh(handed: HandedOver) -> Weighed:
    """Count every number of the graphs. Raises BadPackage for statistics that are not float32."""
    used = {str(value.of) for one in handed.graphs for value in one.values if value.kind == "tensor"}
    statistics = used - handed.parameters
    for one in handed.graphs:
        statistics &= batchnorm_statistics(one, handed.tensors)
    parameters = sum(numbers(handed.tensors[name]) for name in used & handed.parameters)
    beside = sum(numbers(handed.tensors[name]) for name in used - handed.parameters - statistics)
    fractions = {argument for one in handed.graphs for argument in scalars(one) if isinstance(argument, float)}
    return Weighed(
        parameters=max(parameters, handed.claimed[0]),
        called=max(handed.claimed[1], *(called(one, handed.tensors) for one in handed.graphs)),
        beside=beside + len(fractions),
        text=max(0, handed.text - FREE_TEXT) // BYTES_A_NUMBER,
    )


def numbers(tensor: Tensor) -> int:
    """How many numbers of at most four bytes a tensor holds."""
    return max(tensor.numel(), math.ceil(tensor.numel() * tensor.element_size() / BYTES_A_NUMBER))


def batchnorm_statistics(one: Graph, tensors: dict[str, Tensor]) -> set[str]:
    """The tensors that this graph uses as nothing but the mean or variance of BatchNorms with a weight and a bias.

    Folded, such a BatchNorm is two numbers a channel, whatever its mean and variance are: its weight and its bias have
    paid for them. A graph that does not use a tensor at all leaves it a statistic.
    """
    everywhere = {str(value.of) for value in one.values if value.kind == "tensor"}
    allowed, otherwise = set[str](), {str(one.values[one.output].of)}
    for value in one.values:
        fields = [tensor_behind(one, argument) for argument in value.arguments]
        own = set[str]()
        if value.kind == "call" and value.of == BATCH_NORM and len(fields) >= 5 and fields[1] and fields[2]:
            shape = tensors[fields[1]].shape
            same = all(name and tensors[name].shape == shape for name in fields[1:5])
            own = {name for name in fields[3:5] if same and name and name not in fields[1:3]}
            strange = [name for name in own if tensors[name].dtype != torch.float32]
            if strange:
                raise BadPackage(f"a BatchNorm's statistics are {tensors[strange[0]].dtype}, not float32")
        allowed |= own
        direct = {tensor_behind(one, Reference(number)) for number in references(value)}
        otherwise |= {name for name in direct if name} - own
    return (allowed - otherwise) | (set(tensors) - everywhere)


def references(value: Value) -> set[int]:
    """The values that a value is made of."""
    found = {value.of} if value.kind == "item" and isinstance(value.of, int) else set[int]()
    waiting: list[Any] = [*value.arguments, *(one for _, one in value.keywords)]
    while waiting:
        argument = waiting.pop()
        if isinstance(argument, Reference):
            found.add(argument.value)
        elif isinstance(argument, tuple):
            waiting += argument
    return found


def scalars(one: Graph) -> list[Any]:
    """All plain arguments in a graph."""
    waiting: list[Any] = [value.arguments + tuple(inner for _, inner in value.keywords) for value in one.values]
    found: list[Any] = []
    while waiting:
        argument = waiting.pop()
        if isinstance(argument, tuple):
            waiting += argument
        elif not isinstance(argument, Reference):
            found.append(argument)
    return found


def tensor_behind(one: Graph, argument: Any) -> str:
    """The tensor of the file whose numbers an argument holds, perhaps in another order, or ""."""
    while isinstance(argument, Reference):
        value = one.values[argument.value]
        if value.kind == "tensor":
            return str(value.of)
        argument = value.arguments[0] if value.of in SAME_NUMBERS and value.arguments else None
    return ""


def called(one: Graph, tensors: dict[str, Tensor]) -> int:
    """The weights and biases of every operator that has some, as torchsummary counts those of modules."""
    total = 0
    for value in one.values:
        places = WEIGHTS_OF.get(str(value.of), ()) if value.kind == "call" else ()
        names = [tensor_behind(one, value.arguments[place]) for place in places if place < len(value.arguments)]
        total += sum(numbers(tensors[name]) for name in names if name)
    return total


def answer(one: Graph, tensors: dict[str, Tensor], images: Tensor) -> Tensor:
    """The logits [N, K] of `images` [N, *shape], on the images' device.

    Raises BadPackage where an operator cannot take its arguments or makes more than MOST_NUMBERS numbers.
    """
    last = {number: place for place, value in enumerate(one.values) for number in references(value)}
    last[one.output] = len(one.values)
    made: list[Any] = []

    def filled(argument: Any) -> Any:
        if isinstance(argument, Reference):
            return made[argument.value]
        return [filled(inner) for inner in argument] if isinstance(argument, tuple) else argument

    for place, value in enumerate(one.values):
        made.append(images if value.kind == "input" else None)
        if value.kind == "tensor":
            made[place] = tensors[str(value.of)]
        elif value.kind != "input":
            try:
                made[place] = (
                    made[int(value.of)][value.number]
                    if value.kind == "item"
                    else operator(str(value.of))(
                        *map(filled, value.arguments), **{k: filled(v) for k, v in value.keywords}
                    )
                )
            except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError) as error:
                reason = " ".join(str(error).split())[:120]
                raise BadPackage(f"the net's graph does not run: {value.of}: {reason}") from error
        results = made[place] if isinstance(made[place], tuple | list) else [made[place]]
        if any(isinstance(result, Tensor) and result.numel() > MOST_NUMBERS for result in results):
            raise BadPackage(f"the net's graph makes more than {MOST_NUMBERS:,} numbers at once: {value.of}")
        for number in references(value):
            if last[number] == place:
                made[number] = None
    return made[one.output]


def check_runs(handed: HandedOver, classes: int, batch: int) -> None:
    """Let every graph run on shapes alone, without numbers. Raises BadPackage where it would not, or answers otherwise
    than with [batch, classes]."""
    tensors = {name: tensor.to("meta") for name, tensor in handed.tensors.items()}
    for one in handed.graphs:
        if len(one.shape) != 3 or not all(0 < side <= 4096 for side in one.shape):
            raise BadPackage(f"the net's input has the shape {list(one.shape)}")
        logits = answer(one, tensors, torch.zeros(batch, *one.shape, device="meta"))
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != batch:
            raise BadPackage("the net's answer is not one row of logits for each image")
        if logits.shape[1] != classes:
            raise BadPackage(f"it answers with {logits.shape[1]} classes, the photographs have {classes}")
