"""GhostNet: half of the channels are computed, the other half are cheap ghosts of them.

Han et al., "GhostNet: More Features from Cheap Operations", CVPR 2020, arXiv:1911.11907. The modules are
the paper's, and so are the bottlenecks but for two things: its squeeze-excite is left out, for at C hidden
channels it costs C * C / 2 parameters, as much as the ghost module that it would scale; and depthwise kernels
are 3 x 3 everywhere, where some of the paper's are 5 x 5. The hidden layer of 1,280 between the pooling and the
classifier is left out as well: the last pointwise convolution stands before the pooling, as in the paper, and
the classifier behind it. The number of bottlenecks, the widths and the place of the strides are chosen for small
inputs and budgets.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bantam.nets.blocks import conv_bn, conv_bn_parameters, linear_parameters
from bantam.nets.family import Family
from bantam.nets.fit import Shape, Widths, fit_widths, late_strides
from bantam.nets.output import StagedNet

PAPER = "Han et al., GhostNet, CVPR 2020, arXiv:1911.11907"

PROPORTIONS = (1.0, 1.5, 2.5, 3.5, 5.0)
"""Widths of the four stages and of the last pointwise convolution, as multiples of the first stage's."""

EXPANSION = 3
"""How many times as wide as its input a bottleneck is inside; the paper has 1 to 6."""


def fit(budget: int, classes: int, size: int) -> Shape:
    """Return the shape that fills 99.5% to 100% of `budget` parameters, for `size` x `size` pixels.

    Raises BudgetExceeded if the smallest net is heavier than the budget.
    """
    blocks, strides = _blocks(budget), late_strides(size)

    def count(widths: Widths) -> int:
        return parameters(_shape(widths, blocks, strides), classes)

    return _shape(fit_widths("ghostnet", count, PROPORTIONS, budget), blocks, strides)


def parameters(shape: Shape, classes: int) -> int:
    """Count the parameters that the net of `build` has when it is deployed."""
    body = sum(bottleneck_parameters(*bottleneck) for stage in _stages(shape) for bottleneck in stage)
    last = conv_bn_parameters(shape["stages"][-1][-1], shape["last"], 1)
    return conv_bn_parameters(3, shape["stem"]) + body + last + linear_parameters(shape["last"], classes)


def build(shape: Shape, classes: int) -> StagedNet:
    """Build the net from `shape`.

    "stem" and "last" are the widths of the first and of the last convolution, "stages" holds the width of each
    bottleneck stage by stage, "expansion" is the inner width in multiples of the input's, and "strides" are
    those of the stem and of the first bottleneck of each stage.
    """
    stages = [[GhostBottleneck(*bottleneck) for bottleneck in stage] for stage in _stages(shape)]
    stem = conv_bn(3, shape["stem"], stride=shape["strides"][0])
    last = conv_bn(shape["stages"][-1][-1], shape["last"], kernel=1)
    first, *middle, final = [nn.Sequential(*stage) for stage in stages]
    return StagedNet([nn.Sequential(stem, *first), *middle, nn.Sequential(*final, last)], shape["last"], classes)


class GhostModule(nn.Module):
    """Pointwise convolution to half of the channels; a depthwise 3 x 3 of these makes the other half.

    Maps [N, inputs, H, W] to [N, outputs, H, W]. Of an odd number of outputs the larger half is computed.
    """

    def __init__(self, inputs: int, outputs: int, activation: Callable[..., nn.Module] | None = nn.ReLU) -> None:
        super().__init__()
        ghosts = outputs // 2
        self.primary = conv_bn(inputs, outputs - ghosts, kernel=1, activation=activation)
        self.cheap = conv_bn(ghosts, ghosts, groups=ghosts, activation=activation)

    def forward(self, maps: Tensor) -> Tensor:
        primary = self.primary(maps)  # [N, I, H, W] -> [N, O - O / 2, H, W]
        return torch.cat((primary, self.cheap(primary[:, : self.cheap[0].in_channels])), 1)  # [N, O, H, W]


def ghost_module_parameters(inputs: int, outputs: int) -> int:
    """Count the parameters that `GhostModule` ships: half of a pointwise convolution's, and 9 per ghost."""
    ghosts = outputs // 2
    return conv_bn_parameters(inputs, outputs - ghosts, 1) + conv_bn_parameters(ghosts, ghosts, groups=ghosts)


class GhostBottleneck(nn.Module):
    """Ghost module that widens, a strided depthwise 3 x 3, ghost module that narrows, and a shortcut around.

    Maps [N, inputs, H, W] to [N, outputs, ceil(H / stride), ceil(W / stride)]. As in the paper there is no
    activation after the second module, the depthwise convolution is there for stride 2 only, and the shortcut
    is a depthwise and a pointwise convolution where the shape changes.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, stride: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [GhostModule(inputs, hidden)]
        if stride > 1:
            layers.append(conv_bn(hidden, hidden, stride=stride, groups=hidden, activation=None))
        layers.append(GhostModule(hidden, outputs, activation=None))
        self.layers = nn.Sequential(*layers)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                conv_bn(inputs, inputs, stride=stride, groups=inputs, activation=None),
                conv_bn(inputs, outputs, kernel=1, activation=None),
            )

    def forward(self, maps: Tensor) -> Tensor:
        return self.shortcut(maps) + self.layers(maps)


def bottleneck_parameters(inputs: int, hidden: int, outputs: int, stride: int) -> int:
    """Count the parameters that `GhostBottleneck` ships."""
    total = ghost_module_parameters(inputs, hidden) + ghost_module_parameters(hidden, outputs)
    if stride > 1:
        total += conv_bn_parameters(hidden, hidden, groups=hidden)
    if stride > 1 or inputs != outputs:
        total += conv_bn_parameters(inputs, inputs, groups=inputs) + conv_bn_parameters(inputs, outputs, 1)
    return total


def _stages(shape: Shape) -> list[list[tuple[int, int, int, int]]]:
    """List inputs, hidden channels, outputs and stride of every bottleneck, stage by stage."""
    width: int = shape["stem"]
    stages: list[list[tuple[int, int, int, int]]] = []
    for blocks, stride in zip(shape["stages"], shape["strides"][1:], strict=True):
        stage: list[tuple[int, int, int, int]] = []
        for outputs in blocks:
            stage.append((width, shape["expansion"] * width, outputs, 1 if stage else stride))
            width = outputs
        stages.append(stage)
    return stages


def _blocks(budget: int) -> tuple[int, int, int, int]:
    """Return the number of bottlenecks of each stage: a heavier net is also a deeper one."""
    if budget < 15_000:
        return 1, 1, 1, 1
    if budget < 150_000:
        return 1, 1, 2, 2
    return 1, 2, 3, 3


def _shape(widths: Widths, blocks: tuple[int, ...], strides: list[int]) -> Shape:
    """Lay out the widths: the stem is as wide as the first stage, the last convolution has its own width."""
    return {
        "stem": widths[0],
        "stages": [[width] * repeats for width, repeats in zip(widths, blocks, strict=False)],
        "last": widths[-1],
        "expansion": EXPANSION,
        "strides": strides,
    }


FAMILY = Family("ghostnet", PAPER, fit, build)
