"""A student as a small device computes it: every stored map in bytes, every sum in 32-bit integers.

In `bantam.compress.integers` a layer's input is rounded to a grid as the layer reads it, and what lies between (sums,
gates, shortcuts) stays float32. A device stores a map once, as bytes on one grid, for whoever reads it. Here is the one
definition of that arithmetic, and what the C file is held to, bit for bit:

    sum      int32, exact: the bias and the products of weights and (byte - zero)
    vector   float32(sum) * scale of its channel; float32 operations one after another, each rounded
    byte     round half to even of (value * float32(1 / step)), plus zero, clamped to 0..255

`bantam.compress.device_grids` finds the grids.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bantam.compress.integers import ACTIVATION_TOP
from bantam.data.splits import Normalisation
from bantam.nets.device.operations import Operation, Window
from bantam.nets.device.steps import Expression, Program, Step, Write

EXACT = 2**24
"""Below it float32 holds every whole number, so that integers are added exactly in any order."""

LARGEST_SUM = 2**31 - 1

SIXTH = float(np.float32(1 / 6))

CHUNK = 100
"""Images at a time."""


@dataclass(frozen=True)
class Grid:
    """The bytes of a map: byte b stands for (b - zero) * scale; `scale` is a float32."""

    scale: float
    zero: int

    @property
    def steps(self) -> float:
        """How many steps one is: the float32 nearest to 1 / scale."""
        return float(np.float32(1) / np.float32(self.scale))

    @classmethod
    def over(cls, low: float, high: float) -> "Grid":
        """The grid over low..high, which is widened to hold 0."""
        low, high = min(low, 0.0), max(high, 0.0, 1e-8)
        scale = (high - low) / ACTIVATION_TOP
        return cls(float(np.float32(scale)), min(max(round(-low / scale), 0), ACTIVATION_TOP))


@dataclass(frozen=True, eq=False)
class Layer:
    """A convolution on integers: `weight` int8 [O, I / groups, k, k] with the step `scale` [O], and the `bias` [O]."""

    weight: Tensor
    scale: Tensor
    bias: Tensor

    def sum_scale(self, grid: Grid) -> Tensor:
        """The step [O] of the sums, float32, where the input is on `grid`."""
        return (grid.scale * self.scale.double()).float()

    def bias_integers(self, grid: Grid) -> Tensor:
        """The bias [O] in steps of the sums, int64 within 32 bits."""
        steps = (self.bias.double() / self.sum_scale(grid).double()).round()
        return steps.clamp(-LARGEST_SUM, LARGEST_SUM).long()


@dataclass(frozen=True)
class DeviceStudent:
    """A student in bytes: its program, the grid of each map, and the layer of each convolution by its number.

    `normalisation` is what the image is normalised by, within. `way` says how the grids were found.
    """

    program: Program
    grids: tuple[Grid, ...]
    layers: Mapping[int, Layer]
    normalisation: Normalisation
    way: str = ""

    def table(self, grid: Grid) -> Tensor:
        """The byte on `grid` of each byte of a photograph, uint8 [3, 256]."""
        return to_bytes(pixels(torch.arange(256, dtype=torch.uint8).expand(1, 3, 256), self.normalisation), grid)[0]

    @torch.no_grad()
    def answers(self, images: Tensor) -> list[Tensor]:
        """The logits float32 [N, K] of each early exit and of the end, of images uint8 [N, H, W, 3]."""
        parts = [
            [
                maps[-1]
                for step, maps in self.walk(pixels(part.permute(0, 3, 1, 2), self.normalisation))
                if step.answer >= 0
            ]
            for part in images.split(CHUNK)
        ]
        return [torch.cat(one) for one in zip(*parts, strict=True)]

    def leave(self, answers: Sequence[Tensor], threshold: float) -> tuple[Tensor, Tensor]:
        """Of each image the scores [N, K] with which it leaves, and where, int64 [N]: 0 is the first exit.

        It leaves at the first exit whose largest probability is at least `threshold`, a float32; else at the end.
        """
        scores, left = answers[-1].clone(), torch.full((len(answers[-1]),), len(answers) - 1)
        for place in reversed(range(len(answers) - 1)):
            sure = confidence(answers[place]) >= float(np.float32(threshold))
            scores[sure], left[sure] = answers[place][sure], place
        return scores, left

    def walk(self, images: Tensor) -> Iterator[tuple[Step, dict[int, Tensor]]]:
        """Each step on normalised images [N, 3, H, W], and the maps once it is done; an answer is the map -1."""
        maps: dict[int, Tensor] = {}
        for step in self.program.steps:
            self.fill(step, self.vector(step, maps, images), maps)
            yield step, maps

    def fill(self, step: Step, vector: Tensor, maps: dict[int, Tensor]) -> None:
        """Store what `step` makes of its vector."""
        values = [(write, computed(write.value, vector, lambda leaf: self.stored(leaf, maps))) for write in step.writes]
        for write, value in values:
            store(maps, self.program, write, value if write.map < 0 else to_bytes(value, self.grids[write.map]))
        forget(maps, self.program, step)

    def stored(self, leaf: Expression, maps: Mapping[int, Tensor]) -> Tensor:
        """What the bytes of a stored map stand for, float32."""
        grid = self.grids[leaf.map]
        return (maps[leaf.map][:, list(leaf.places)].int() - grid.zero).float() * grid.scale

    def vector(self, step: Step, maps: Mapping[int, Tensor], images: Tensor) -> Tensor:
        """What the step's convolution or pooling gives, float32 [N, C, H, W]; empty where there is none."""
        operation = step.operation
        if operation is None:
            return torch.empty(0)
        if step.source < 0:
            return images
        grid = self.grids[step.source]
        read = maps[step.source][:, step.start : step.start + len(operation.inputs[0])].int() - grid.zero
        if operation.kind == "convolution":
            return self.sums(operation, grid, read)
        if operation.kind == "largest":
            return largest(operation, read).float() * grid.scale
        rows, columns = (
            windowed(windows, read.shape[axis]) for axis, windows in zip((2, 3), axes(operation), strict=True)
        )
        sums = (rows @ read.double() @ columns.T).float()  # whole numbers far below 2 ** 53: exact
        return sums * (grid.scale / counts(operation).float())

    def sums(self, operation: Operation, grid: Grid, read: Tensor) -> Tensor:
        """A convolution of whole numbers [N, I, H, W], added without rounding, and scaled: float32 [N, O, H, W]."""
        layer = self.layers[operation.number]
        exact = torch.float32 if int(sum_bound(layer.weight).max()) < EXACT else torch.float64
        products = nn.functional.conv2d(
            read.to(exact),
            layer.weight.to(exact),
            None,
            operation.stride,
            operation.padding,
            operation.dilation,
            operation.groups,
        )
        sums = products.long() + layer.bias_integers(grid)[:, None, None]
        return sums.float() * layer.sum_scale(grid)[:, None, None]


def sum_bound(weight: Tensor) -> Tensor:
    """The most, in size, that the products of each output can add up to, int64 [O]."""
    return weight.long().abs().flatten(1).sum(1) * ACTIVATION_TOP


def pixels(images: Tensor, normalisation: Normalisation) -> Tensor:
    """Bytes [N, 3, ...] as the net sees them: float32, divided by 255, then normalised as exported graphs do."""
    deviation = torch.tensor(normalisation.std, dtype=torch.float64)
    shape = (3, *[1] * (images.ndim - 2))
    scale = (1 / deviation).float().reshape(shape)
    shift = (-torch.tensor(normalisation.mean, dtype=torch.float64) / deviation).float().reshape(shape)
    return images.float() / 255 * scale + shift


def to_bytes(value: Tensor, grid: Grid) -> Tensor:
    """Float32 on a grid, uint8."""
    steps = (value * grid.steps).clamp(-grid.zero, ACTIVATION_TOP - grid.zero)
    return (steps.round() + grid.zero).to(torch.uint8)  # torch rounds half to even


def store(maps: dict[int, Tensor], program: Program, write: Write, value: Tensor) -> None:
    """Put `value` [N, C, H, W] where `write` says, into a map that is made when it is first written."""
    if write.map < 0:
        maps[-1] = value.flatten(1)
        return
    if write.map not in maps:
        one = program.maps[write.map]
        maps[write.map] = value.new_zeros(len(value), one.channels, one.height, one.width)
    maps[write.map][:, list(write.places)] = value


def forget(maps: dict[int, Tensor], program: Program, step: Step) -> None:
    """Drop the maps that nobody reads after `step`."""
    later = program.steps[program.steps.index(step) + 1 :]
    for one in [one for one in maps if one >= 0 and not any(one in other.reads for other in later)]:
        del maps[one]


def computed(value: Expression, vector: Tensor, stored: Callable[[Expression], Tensor]) -> Tensor:
    """An expression's value [N, C, H, W], each operation in float32."""
    if value.kind == "vector":
        return vector[:, list(value.places)]
    if value.kind == "stored":
        return stored(value)
    first, *others = (computed(operand, vector, stored) for operand in value.operands)
    if value.kind == "relu":
        return first.clamp_min(0)
    if value.kind == "relu6":
        return first.clamp(0, 6)
    if value.kind == "hardsigmoid":
        return (first + 3).clamp(0, 6) * SIXTH
    if value.kind == "hardswish":
        return first * (first + 3).clamp(0, 6) * SIXTH
    if value.kind == "affine":
        assert value.weight is not None
        factor, summand = value.weight[:, :, None, None]
        return first * factor + summand
    return first + others[0] if value.kind == "add" else first * others[0]


def axes(operation: Operation) -> tuple[tuple[Window, ...], tuple[Window, ...]]:
    """The windows of an operation along the rows and along the columns."""
    return operation.rows, operation.columns


def windowed(windows: Sequence[Window], side: int) -> Tensor:
    """Which of `side` places each window sees: ones and zeros [windows, side]."""
    found = torch.zeros(len(windows), side, dtype=torch.float64)
    for place, (start, stop, _) in enumerate(windows):
        found[place, start:stop] = 1
    return found


def counts(operation: Operation) -> Tensor:
    """By how many each place of an average is divided, int64 [H, W]."""
    rows, columns = (torch.tensor([count for *_, count in windows]) for windows in axes(operation))
    return rows[:, None] * columns


def largest(operation: Operation, read: Tensor) -> Tensor:
    """The largest value in each window, of maps [N, C, H, W]."""
    for axis, windows in zip((2, 3), axes(operation), strict=True):
        parts = [read.narrow(axis, start, stop - start).amax(axis) for start, stop, _ in windows]
        read = torch.stack(parts, axis)
    return read


def exponential(x: Tensor) -> Tensor:
    """e to the x <= 0, after S. Moshier's Cephes: float32 operations one after another, as the C file has them."""
    n = (x * 1.44269504 + 12582912.0) - 12582912.0
    r = x - n * 0.693359375
    r = r - n * -2.12194440e-4
    p = torch.full_like(r, 1.9875691500e-4)
    for term in (1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1):
        p = p * r + term
    y = p * (r * r) + r + 1.0
    return torch.where(x < -87.0, 0.0, y * torch.exp2(n.clamp_min(-126)))


def confidence(scores: Tensor) -> Tensor:
    """The largest probability [N] among scores [N, K], added up in the order of the classes."""
    parts = exponential(scores - scores.amax(1, keepdim=True))
    total = torch.zeros(len(scores))
    for one in parts.unbind(1):
        total = total + one
    return 1.0 / total
