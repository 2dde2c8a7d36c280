"""Zeros that make a graph faster: channels filled up to what the runtime's kernels take at once, the answers the same.

ONNX Runtime convolves blocks of 8 channels (AVX2) or 16 (AVX-512). A depthwise convolution of another number of
channels, or a layer whose inputs are no multiple of 4, falls back to a path that is ten times as slow. So a layer gets
more outputs, of zero weights and biases, and whoever reads them has zero weights there. What is computed in between
treats each channel alone and makes something finite of zero, so every answer stays what it was.

It is the inverse of pruning and asks the same question: which channels of which layers belong together? Here the graph
answers it. Every channel of every tensor has a number; the two sides of a sum have the same ones; and a run of channels
that stand side by side wherever one of them occurs is filled up at its end. Channels that meet an operation which is
not known here, a shuffle for one, are left as they are.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from bantam.deliver.export.separating import bounds, separate, whole

BLOCK = 16
"""Runs of channels are filled up to multiples of this, the largest block of any processor: one file for all of them."""

SHORTEST = BLOCK // 4
"""Shorter runs stay as they are: they would be many times as long."""

Numbers = list[int]
"""The channels of a tensor [N, C, ...], in order: the same number is the same channel."""

Constants = list[tuple[str, float | None]]
"""The constants of which a parameter is made, each with what fills it up: None for what its first channel has."""


def padded(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` with its channels filled up: the same inputs, outputs and answers.

    Weights are float32, or integers behind a DequantizeLinear as `bantam.compress.qdq` writes them.
    """
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    separate(copied.graph)
    channels = Channels(copied.graph)
    zeros = channels.zeros()

    def order(numbers: Numbers) -> list[int]:
        """The padded order: the position of each channel in `numbers`, and -1 for a zero channel."""
        after = [zeros.get(channels.first(number), 0) for number in numbers]
        return [place for position, count in enumerate(after) for place in (position, *[-1] * count)]

    for (name, axis), (numbers, fill) in channels.uses.items():
        constant = channels.constants[name]
        constant.CopyFrom(widened(constant, axis, order(numbers), fill))
    for node, numbers in channels.depthwise:
        replace_attribute(node, "group", len(order(numbers)))
    for node, place, parts in channels.counts:
        name = f"{node.output[0]}.{place}"
        lengths = np.array([len(order(part)) for part in parts], dtype=np.int64)
        copied.graph.initializer.append(numpy_helper.from_array(lengths, name))
        node.input[:] = [*node.input[:place], name, *node.input[place + 1 :]]
        replace_attribute(node, "num_outputs", None)
    onnx.checker.check_model(copied, full_check=True)
    return copied


def widened(constant: onnx.TensorProto, axis: int, order: Sequence[int], fill: float | None) -> onnx.TensorProto:
    """`constant` with the positions `order` of `axis`, and where that is -1 with `fill`, or what is in the first."""
    places = np.asarray(order)
    after = numpy_helper.to_array(constant).take(np.maximum(places, 0), axis)
    if fill is not None:
        np.moveaxis(after, axis, 0)[places < 0] = fill
    return numpy_helper.from_array(after, constant.name)


def replace_attribute(node: onnx.NodeProto, name: str, value: int | None) -> None:
    """Give `node` this whole number, or none, as its attribute `name`."""
    others = [item for item in node.attribute if item.name != name]
    del node.attribute[:]
    node.attribute.extend(others if value is None else [*others, helper.make_attribute(name, value)])


class Channels:
    """The channels of a graph's tensors, found in one walk from its inputs to its outputs.

    `of` has the numbers of each tensor that is followed; `uses` those along each axis of the constants, with what is
    there in zero channels; `fixed` names the tensors and constants that stay as they are. `depthwise` are nodes with as
    many groups as channels, and `counts` nodes with a constant input, by its place, that holds lengths of lists.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.constants = {item.name: item for item in graph.initializer}
        self.made_by = {name: node for node in graph.node for name in node.output}
        self.of: dict[str, Numbers] = {}
        self.uses: dict[tuple[str, int], tuple[Numbers, float | None]] = {}
        self.fixed = {item.name for item in (*graph.input, *graph.output)}
        self.depthwise: list[tuple[onnx.NodeProto, Numbers]] = []
        self.counts: list[tuple[onnx.NodeProto, int, list[Numbers]]] = []
        self.same_as: Numbers = []
        for item in graph.input:
            self.of[item.name] = self.fresh(item.type.tensor_type.shape.dim[1].dim_value)
        for node in graph.node:
            if not RULES.get(node.op_type, unknown)(self, node):
                for name in node.input:
                    self.fixed |= {name, *(constant for constant, _ in self.parameter(name))}

    def fresh(self, count: int) -> Numbers:
        """Channels that were not there before."""
        start = len(self.same_as)
        self.same_as += range(start, start + count)
        return self.same_as[start:]

    def first(self, number: int) -> int:
        """The one of its numbers by which a channel goes."""
        while self.same_as[number] != number:
            self.same_as[number] = number = self.same_as[self.same_as[number]]
        return number

    def unite(self, some: Numbers, others: Numbers) -> None:
        """Make two lists the same channels, one by one."""
        for one, other in zip(some, others, strict=True):
            self.same_as[self.first(one)] = self.first(other)

    def seen(self, tensor: str, count: int) -> Numbers:
        """The numbers of a tensor of `count` channels, which stay as they are where it was not followed."""
        if tensor not in self.of:
            self.of[tensor] = self.fresh(count)
            self.fixed.add(tensor)
        return self.of[tensor]

    def use(self, parameter: Constants, axis: int, numbers: Numbers) -> None:
        """Say what the `axis` of a parameter's constants lists; some of them may not have it."""
        for name, fill in parameter:
            if axis < len(self.constants[name].dims):
                self.unite(numbers, self.uses.setdefault((name, axis), (numbers, fill))[0])

    def parameter(self, tensor: str) -> Constants:
        """The constants of which the weight or bias `tensor` is made; none where it is not one."""
        if tensor in self.constants:
            return [(tensor, 0.0)]
        node = self.made_by.get(tensor)
        if node is None or node.op_type != "DequantizeLinear" or node.input[0] not in self.constants:
            return []
        integers, scale, *zero = node.input
        middle = float(self.array(zero[0]).flat[0]) if zero else 0.0
        return [(integers, middle), (scale, None), *((name, middle) for name in zero)]

    def array(self, name: str) -> Any:
        return numpy_helper.to_array(self.constants[name])

    def is_scalar(self, name: str) -> bool:
        """Whether an input is one constant number, or left out."""
        return name == "" or (name in self.constants and self.array(name).size == 1)

    def zeros(self) -> dict[int, int]:
        """How many zero channels come after which: after the last ones of the runs that are filled up.

        None in a graph without a depthwise convolution that gains by them: dense ones alone are no faster for it.
        """
        before: defaultdict[int | None, set[int | None]] = defaultdict(set)
        after: defaultdict[int | None, set[int | None]] = defaultdict(set)
        fixed: set[int] = set()
        lists = [*self.of.items(), *((name, numbers) for (name, _), (numbers, _) in self.uses.items())]
        for name, numbers in lists:
            row = [self.first(number) for number in numbers]
            fixed.update(row if name in self.fixed else ())
            for one, other in pairwise((None, *row, None)):
                after[one].add(other)
                before[other].add(one)

        def next_of(number: int) -> int | None:
            """The channel that is behind `number` wherever one of the two is."""
            other, *others = after[number]
            return None if others or other is None or len(before[other]) > 1 else other

        counts: dict[int, int] = {}
        channels = [number for number in before if number is not None]
        inner = {next_of(number) for number in channels}
        for start in channels:
            if start not in inner:
                run, last = [start], start
                while (other := next_of(last)) is not None:
                    run.append(last := other)
                if len(run) >= SHORTEST and fixed.isdisjoint(run):
                    counts[last] = -len(run) % BLOCK
        filled = {self.first(number) for _, numbers in self.depthwise for number in numbers}
        return counts if any(counts.get(number) for number in filled) else {}


# Each rule follows the channels through a kind of node, and says whether it could.


def unknown(channels: Channels, node: onnx.NodeProto) -> bool:
    """Nothing is known of the operation: what meets it stays as it is."""
    return False


def alone(channels: Channels, node: onnx.NodeProto) -> bool:
    """Each channel alone, with settings that are the same for all; what becomes of zero is finite."""
    data, *settings = node.input
    if data not in channels.of or not all(channels.is_scalar(name) for name in settings):
        return False
    channels.of[node.output[0]] = channels.of[data]
    return True


def dequantized(channels: Channels, node: onnx.NodeProto) -> bool:
    """A weight is looked at where it is used."""
    return node.input[0] in channels.constants or alone(channels, node)


def mean(channels: Channels, node: onnx.NodeProto) -> bool:
    """Over the pixels: [N, C, H, W] to [N, C, 1, 1] or [N, C]."""
    data, *axes = node.input
    if data not in channels.of or not axes or not {2, 3, -1, -2}.issuperset(channels.array(axes[0]).tolist()):
        return False
    channels.of[node.output[0]] = channels.of[data]
    return True


def two_sided(channels: Channels, node: onnx.NodeProto) -> bool:
    """Two maps of the same channels, or a map and a constant, one number or [C, 1, 1]."""
    data, other = sorted(node.input, key=lambda name: name in channels.constants)
    if data not in channels.of:
        return False
    numbers = channels.of[data]
    if other in channels.constants:
        shape = channels.array(other).shape
        if len(shape) == 3 and shape[0] == len(numbers):
            channels.use([(other, 0.0)], 0, numbers)
        elif not channels.is_scalar(other):
            return False
    elif len(channels.of.get(other, ())) == len(numbers):
        channels.unite(numbers, channels.of[other])
    else:
        return False
    channels.of[node.output[0]] = numbers
    return True


def layer(channels: Channels, node: onnx.NodeProto) -> bool:
    """A convolution, dense or depthwise, or a linear layer: its outputs are new channels unless it is depthwise."""
    parameters = [channels.parameter(name) for name in node.input[1:] if name]
    linear = node.op_type == "Gemm"
    if not all(parameters) or (linear and (whole(node, "transA", 0), whole(node, "transB", 0)) != (0, 1)):
        return False
    outputs, width, *_ = channels.constants[parameters[0][0][0]].dims  # [O, I / groups, ...]
    groups = 1 if linear else whole(node, "group", 1)
    inputs = channels.seen(node.input[0], width * groups)
    if groups == 1:
        numbers = channels.fresh(outputs)
        channels.use(parameters[0], 1, inputs)
    elif groups == len(inputs) == outputs:
        numbers = inputs
        channels.depthwise.append((node, numbers))
    else:
        return False
    for parameter in parameters:
        channels.use(parameter, 0, numbers)
    channels.of[node.output[0]] = numbers
    return True


def normalised(channels: Channels, node: onnx.NodeProto) -> bool:
    """A BatchNorm at inference, of scale, bias, mean and variance: that of a zero channel is 1."""
    data, *parameters = node.input
    if data not in channels.of or not all(name in channels.constants for name in parameters):
        return False
    for name, fill in zip(parameters, (0.0, 0.0, 0.0, 1.0), strict=True):
        channels.use([(name, fill)], 0, channels.of[data])
    channels.of[node.output[0]] = channels.of[data]
    return True


def concatenated(channels: Channels, node: onnx.NodeProto) -> bool:
    """The channels of the parts, one list after the other."""
    if whole(node, "axis", 0) != 1 or not all(name in channels.of for name in node.input):
        return False
    channels.of[node.output[0]] = [number for name in node.input for number in channels.of[name]]
    return True


def split(channels: Channels, node: onnx.NodeProto) -> bool:
    """The parts are lists of their own, whose lengths the node is told anew."""
    data = node.input[0]
    parts = bounds(node, len(channels.of[data]), channels.constants) if data in channels.of else None
    if parts is None:
        return False
    numbers = [channels.of[data][start:end] for start, end in parts]
    channels.of.update(zip(node.output, numbers, strict=True))
    channels.counts.append((node, 1, numbers))
    return True


def sliced(channels: Channels, node: onnx.NodeProto) -> bool:
    """Channels in a row, from a start to an end."""
    data, *settings = node.input
    if data not in channels.of or len(settings) < 3 or not all(map(channels.is_scalar, settings)):
        return False
    start, end, axis, *step = (channels.array(name).item() for name in settings)
    if axis != 1 or step not in ([], [1]):
        return False
    numbers = channels.of[data]
    start, end, _ = slice(start, end).indices(len(numbers))
    channels.of[node.output[0]] = numbers[start:end]
    channels.counts += [(node, 1, [numbers[:start]]), (node, 2, [numbers[:end]])]
    return True


Rule = Callable[[Channels, onnx.NodeProto], bool]

ALONE = (
    "AveragePool Clip Elu GlobalAveragePool HardSigmoid HardSwish Identity LeakyRelu MaxPool QuantizeLinear Relu "
    "Sigmoid Tanh"
)

RULES: dict[str, Rule] = {
    **dict.fromkeys(ALONE.split(), alone),
    "Add": two_sided,
    "BatchNormalization": normalised,
    "Concat": concatenated,
    "Conv": layer,
    "DequantizeLinear": dequantized,
    "Gemm": layer,
    "Mul": two_sided,
    "ReduceMean": mean,
    "Slice": sliced,
    "Split": split,
    "Sub": two_sided,
}


def parameters_in(model: onnx.ModelProto) -> int:
    """How many numbers the weights and biases of the layers in `model` have."""
    channels = Channels(model.graph)
    read = [name for node in model.graph.node if RULES.get(node.op_type) in (layer, normalised) for name in node.input]
    names = {channels.parameter(name)[0][0] for name in read if channels.parameter(name)}
    return sum(channels.array(name).size for name in names)
