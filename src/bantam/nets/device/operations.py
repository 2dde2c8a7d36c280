"""The operations of one pass of a net, and which channel of which result each of them reads.

A pass is traced, so a family needs no code of its own. What only moves data (slices, concatenations, shuffles, views)
is no operation: it is done to the numbers of the elements as well, so each reader knows where its channels were made.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from bantam.errors import BadData
from bantam.nets.early_exit import EarlyExitNet
from bantam.nets.output import StagedNet

aten = torch.ops.aten

Channels = tuple[tuple[int, int], ...]
"""Where each channel of an input was made: the number of the operation, and the channel of its result."""

Window = tuple[int, int, int]
"""Of a place of a pooling's result, along one axis: the first that it sees, the one after the last, and its count."""

ELEMENTWISE = ("relu", "relu6", "hardswish", "hardsigmoid", "add", "multiply", "affine")


@dataclass(frozen=True, eq=False)
class Operation:
    """One operation of a pass with one image; its result has `channels` maps of `height` x `width`.

    `kind` is image, convolution (linear layers too, as 1 x 1), average, largest, or one of ELEMENTWISE. `inputs` says
    for each input where its channels come from. A convolution has its `weight` [O, I / groups, k, k], its `bias`, the
    weight's `name`, per axis its `stride` and `padding`, and its `dilation`; poolings have the `rows` and `columns`
    that each place sees; affine has a factor and a summand for each channel in `weight` [2, C].
    """

    number: int
    kind: str
    channels: int
    height: int
    width: int
    inputs: tuple[Channels, ...] = ()
    name: str = ""
    weight: Tensor | None = None
    bias: Tensor | None = None
    groups: int = 1
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: int = 1
    rows: tuple[Window, ...] = ()
    columns: tuple[Window, ...] = ()

    @property
    def kernel(self) -> tuple[int, int]:
        """Height and width of a convolution's kernel."""
        assert self.weight is not None
        return self.weight.shape[2], self.weight.shape[3]

    @property
    def is_depthwise(self) -> bool:
        """Whether each output of a convolution sees one input, in their order."""
        return self.weight is not None and self.kind == "convolution" and self.groups == self.channels > 1

    @property
    def is_pointwise(self) -> bool:
        """Whether a convolution sees one pixel at a time, in their order."""
        return self.kind == "convolution" and self.kernel == self.stride == (1, 1) and self.padding == (0, 0)

    def seen_rows(self, row: int, height: int) -> tuple[int, int]:
        """The first row of an input of `height` rows that `row` of the result needs, and the one after the last."""
        if self.kind in ("average", "largest"):
            return self.rows[row][0], self.rows[row][1]
        if self.kind == "convolution":
            first = row * self.stride[0] - self.padding[0]
            return max(first, 0), min(first + reach(self.kernel[0], self.dilation), height)
        return row, row + 1


@dataclass
class Traced:
    """The operations of one pass in order, and where each answer's logits are: the early exits', then the end's."""

    operations: list[Operation] = field(default_factory=list[Operation])
    answers: list[Channels] = field(default_factory=list[Channels])


@torch.no_grad()
def traced(net: StagedNet, size: int) -> Traced:
    """Trace `net`, folded and in eval mode, on an image of `size` x `size` pixels; its early exits in their places.

    Raises BadData for an operation that a device has no kernel for.
    """
    with torch.inference_mode(False):
        image = torch.zeros(1, 3, size, size)
        trace = _Trace(image, net)
        with trace:
            for logits in answers_in_order(net, image):
                trace.found.answers.append(trace.channels_of(logits))
    return trace.found


def answers_in_order(net: StagedNet, images: Tensor) -> list[Tensor]:
    """The logits [N, K] of each early exit of `net` and of its end, each computed when its stage is there."""
    if not isinstance(net, EarlyExitNet):
        return [net(images)]
    answers: list[Tensor] = []
    for number, stage in enumerate(net.stages, 1):
        images = stage(images)
        if number in net.after:
            answers.append(net.exits[net.after.index(number)](images))
    return [*answers, net.head(images.mean((2, 3)))]


RESHAPING = {aten.view, aten._unsafe_view, aten.reshape, aten._reshape_alias}

MOVING = RESHAPING | {
    aten.permute, aten.transpose, aten.t, aten.squeeze, aten.unsqueeze,
    aten.slice, aten.select, aten.narrow, aten.split, aten.split_with_sizes, aten.chunk, aten.unbind, aten.cat,
    aten.stack, aten.clone, aten.contiguous, aten.alias, aten.detach, aten.expand, aten.index_select, aten._to_copy,
}  # fmt: skip
"""What moves data and computes nothing."""

PLAIN = {
    aten.relu: "relu",
    aten.relu_: "relu",
    aten.hardswish: "hardswish",
    aten.hardswish_: "hardswish",
    aten.hardsigmoid: "hardsigmoid",
    aten.hardsigmoid_: "hardsigmoid",
}
"""What works on each element by itself, without settings."""

PAIRS = {aten.add: "add", aten.add_: "add", aten.mul: "multiply", aten.mul_: "multiply"}

NORMS = {aten.native_batch_norm, aten._native_batch_norm_legit_no_training, aten.cudnn_batch_norm}


class _Trace(TorchDispatchMode):
    """Notes every operation on what comes from the image.

    A tensor goes by its identity. Beside it are the numbers of its elements, int64 of the same shape: element e of
    operation n's result has the number `starts[n] + e`.
    """

    def __init__(self, image: Tensor, net: nn.Module) -> None:
        super().__init__()
        self.found = Traced()
        self.names = {value.data_ptr(): name for name, value in net.named_parameters() if value.numel()}
        self.starts: list[int] = []
        self.end = 0
        self.numbers: dict[int, Tensor] = {}
        self.kept: list[Tensor] = []  # so that no identity comes twice
        self.note(image, self.add("image", *image.shape[1:]))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or torch would import its compiler, which takes seconds

    def add(self, kind: str, channels: int, height: int = 1, width: int = 1, **settings: Any) -> Tensor:
        """Append an operation; gives the numbers of its elements [C, H, W]."""
        operation = Operation(len(self.starts), kind, channels, height, width, **settings)
        self.found.operations.append(operation)
        self.starts.append(self.end)
        self.end += channels * height * width
        return torch.arange(self.starts[-1], self.end).reshape(channels, height, width)

    def note(self, result: Tensor, numbers: Tensor) -> None:
        self.numbers[id(result)] = numbers.reshape(result.shape)
        self.kept.append(result)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if not any(id(leaf) in self.numbers for leaf in leaves):
            return result
        packet = func.overloadpacket
        if packet in MOVING:
            moved = self.moved(func, args, kwargs, result)
            for one, numbers in zip(tree_leaves(result), tree_leaves(moved), strict=True):
                self.note(one, numbers)
            return result
        numbers = self.computed(packet, args, kwargs, result)
        if func._schema.is_mutable:
            self.forget_views(args[0])
        first = result[0] if isinstance(result, tuple | list) else result
        self.note(first, numbers)
        return result

    def moved(self, func: Any, args: Any, kwargs: Any, result: Any) -> Any:
        """What `func` does, done to the numbers, whose layout in memory may be another."""
        if func.overloadpacket in RESHAPING:
            return self.numbers[id(args[0])].reshape(result.shape)
        kwargs = {name: value for name, value in kwargs.items() if name not in ("memory_format", "dtype", "device")}
        return func(*tree_map(self.numbers_or_same, args), **kwargs)

    def numbers_or_same(self, value: Any) -> Any:
        return self.numbers[id(value)] if isinstance(value, Tensor) and id(value) in self.numbers else value

    def forget_views(self, changed: Tensor) -> None:
        """Whoever shares memory with what was changed in place is not known any more, and reading it is refused."""
        place = changed.untyped_storage().data_ptr()
        for tensor in self.kept:
            if tensor.untyped_storage().data_ptr() == place:
                self.numbers.pop(id(tensor), None)

    def computed(self, packet: Any, args: Any, kwargs: Any, result: Any) -> Tensor:
        """Append what `packet` computes; gives the numbers of its result's elements."""
        if packet is aten.convolution:
            return self.convolution(*args)
        if packet in (aten.addmm, aten.mm):
            bias, inputs, weight = args if packet is aten.addmm else (None, *args)
            matrix = weight.t()[:, :, None, None]  # [O, I, 1, 1]
            return self.layer(inputs, matrix, bias, self.names.get(weight.data_ptr(), "linear"), 1, 1)
        if packet in PLAIN:
            return self.elementwise(PLAIN[packet], args[0])
        if packet in (aten.hardtanh, aten.hardtanh_) and tuple(args[1:3]) == (0.0, 6.0):
            return self.elementwise("relu6", args[0])
        if packet in PAIRS and isinstance(args[1], Tensor) and kwargs.get("alpha", 1) == 1:
            return self.elementwise(PAIRS[packet], *args[:2])
        if packet in NORMS:
            return self.norm(*args)
        if packet in (aten.mean, aten._adaptive_avg_pool2d, aten.avg_pool2d, aten.max_pool2d_with_indices):
            return self.pooling(packet, args, result[0] if isinstance(result, tuple) else result)
        raise self.unknown(str(packet))

    def unknown(self, what: str) -> BadData:
        return BadData(f"the student computes {what}, for which there is no kernel in C; export it to onnx-int8")

    def channels_of(self, value: Any) -> Channels:
        """Where each channel of the map or vector [1, C, ...] was made. Raises BadData where pixels are moved."""
        numbers = self.numbers.get(id(value)) if isinstance(value, Tensor) else None
        if numbers is None or numbers.ndim not in (2, 4):
            raise self.unknown("with a constant, or with what was changed in place")
        flat = numbers[0].flatten(1) if numbers.ndim == 4 else numbers[0][:, None]  # [C, H * W]
        pixels = flat.shape[1]
        owners = torch.searchsorted(torch.tensor(self.starts), flat[:, 0].contiguous(), right=True) - 1  # [C]
        first = flat[:, 0] - torch.tensor(self.starts)[owners]  # the place of each channel's first pixel in its result
        made = [self.found.operations[owner] for owner in owners.tolist()]
        in_order = torch.equal(flat, flat[:, :1] + torch.arange(pixels)) and not (first % pixels).any()
        if not in_order or any(one.height * one.width != pixels for one in made):
            raise self.unknown("with pixels in another order")
        return tuple((one.number, place // pixels) for one, place in zip(made, first.tolist(), strict=True))

    def sides(self, value: Tensor) -> tuple[int, int]:
        return (value.shape[2], value.shape[3]) if value.ndim == 4 else (1, 1)

    def convolution(
        self, inputs: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any,
        transposed: bool, _output_padding: Any, groups: int,
    ) -> Tensor:  # fmt: skip
        depthwise = groups == weight.shape[0] == inputs.shape[1]
        if transposed or inputs.ndim != 4 or len(set(dilation)) > 1 or (dilation[0] > 1 and not depthwise):
            raise self.unknown("a transposed convolution, or a dilated one that is not depthwise")
        if groups > 1 and groups == weight.shape[0] and not depthwise:
            raise self.unknown("a convolution of groups with one output each")
        (height, width), kernel = self.sides(inputs), weight.shape[2:]
        high, wide = (
            (side + 2 * pad - reach(k, dilation[0])) // step + 1
            for side, pad, k, step in zip((height, width), padding, kernel, stride, strict=True)
        )
        name = self.names.get(weight.data_ptr(), "convolution")
        return self.layer(
            inputs, weight, bias, name, high, wide,
            groups=groups, stride=tuple(stride), padding=tuple(padding), dilation=dilation[0],
        )  # fmt: skip

    def layer(
        self, inputs: Tensor, weight: Tensor, bias: Tensor | None, name: str, high: int, wide: int, **settings: Any
    ) -> Tensor:
        where = (self.channels_of(inputs),)
        name = name.removesuffix(".weight")
        return self.add(
            "convolution", len(weight), high, wide, inputs=where, name=name, weight=weight, bias=bias, **settings
        )

    def elementwise(self, kind: str, *inputs: Tensor, weight: Tensor | None = None) -> Tensor:
        """One operation for each run of channels whose inputs were made by the same operations."""
        read = [self.channels_of(one) for one in inputs]
        height, width = max(self.sides(one) for one in inputs)
        alike = all(self.sides(one) in ((height, width), (1, 1)) for one in inputs)
        if not alike or len({len(one) for one in read}) > 1:
            raise self.unknown(f"{kind} of maps of other shapes")
        made: list[Tensor] = []
        for start, stop in runs([tuple(one[channel][0] for one in read) for channel in range(len(read[0]))]):
            part = None if weight is None else weight[:, start:stop]
            where = tuple(one[start:stop] for one in read)
            made.append(self.add(kind, stop - start, height, width, inputs=where, weight=part))
        return torch.cat(made)

    def norm(self, inputs: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, variance: Tensor, *rest: Any) -> Tensor:
        if rest[0] is True:
            raise self.unknown("a BatchNorm in training")
        factor = scale.double() / (variance.double() + float(rest[-1])).sqrt()
        weight = torch.stack((factor, shift.double() - mean.double() * factor)).float()  # [2, C]
        return self.elementwise("affine", inputs, weight=weight)

    def pooling(self, packet: Any, args: Any, result: Tensor) -> Tensor:
        """Average and largest, as the windows that they look through along each axis."""
        inputs = args[0]
        sides, kind = self.sides(inputs), "average"
        if packet is aten.mean:
            if {place % inputs.ndim for place in args[1]} != {2, 3}:
                raise self.unknown("a mean over channels")
            axes = [[(0, side, side)] for side in sides]
        elif packet is aten._adaptive_avg_pool2d:
            axes = [adaptive_windows(side, bins) for side, bins in zip(sides, args[1], strict=True)]
        else:
            kind = "largest" if packet is aten.max_pool2d_with_indices else "average"
            axes = self.fixed_windows(kind, args, sides, self.sides(result))
        rows, columns = (tuple(axis) for axis in axes)
        where = (self.channels_of(inputs),)
        return self.add(kind, len(where[0]), len(rows), len(columns), inputs=where, rows=rows, columns=columns)

    def fixed_windows(self, kind: str, args: Any, sides: Any, results: Any) -> list[list[Window]]:
        settings = [*args[1:], *[None] * 7]
        kernels, strides, paddings = (pair(settings[place]) for place in range(3))
        dilated = kind == "largest" and any(one not in (1, None) for one in pair(settings[3]))
        padded_too = kind == "average" and (settings[4] is None or settings[4])
        if dilated or (kind == "average" and settings[5] is not None):
            raise self.unknown("a dilated pooling, or one with a divisor of its own")
        return [
            windows(side, places, kernel, stride or kernel, padding or 0, padded_too)
            for side, places, kernel, stride, padding in zip(sides, results, kernels, strides, paddings, strict=True)
        ]


def pair(value: Any) -> tuple[Any, Any]:
    """A setting for both axes: torch leaves out what was not given, and gives one number for two equal ones."""
    given = list(value) if isinstance(value, list | tuple) else [value]
    return (given or [None])[0], (given or [None])[-1]


def reach(kernel: int, dilation: int) -> int:
    """How many places a kernel of so many, `dilation` apart, spans along one axis."""
    return dilation * (kernel - 1) + 1


def windows(side: int, places: int, kernel: int, stride: int, padding: int, padded_too: bool) -> list[Window]:
    """The windows of a pooling along an axis of `side` pixels; `padded_too` says whether the padding counts."""
    found: list[Window] = []
    for place in range(places):
        start = place * stride - padding
        stop = min(start + kernel, side + padding)
        inside = max(start, 0), min(stop, side)
        found.append((*inside, stop - start if padded_too else inside[1] - inside[0]))
    return found


def adaptive_windows(side: int, bins: int) -> list[Window]:
    """The windows of an adaptive pooling to `bins` places along an axis of `side` pixels, as torch lays them."""
    edges = [(place * side // bins, -((-(place + 1) * side) // bins)) for place in range(bins)]
    return [(start, stop, stop - start) for start, stop in edges]


def runs(keys: Sequence[Any]) -> list[tuple[int, int]]:
    """The stretches [start, stop) of `keys` in which all are equal."""
    edges = [0, *(place for place in range(1, len(keys)) if keys[place - 1] != keys[place]), len(keys)]
    return [(start, stop) for start, stop in itertools.pairwise(edges) if stop > start]
