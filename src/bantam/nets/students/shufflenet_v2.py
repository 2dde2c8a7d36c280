"""ShuffleNetV2: half of the channels pass by each unit untouched, and a shuffle mixes the halves.

Ma et al., "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design", 2018, arXiv:1807.11164.
The units and the last pointwise layer are the paper's; depth, widths and strides are chosen for small inputs
and budgets.
"""

import torch
from torch import Tensor, nn

from bantam.nets.blocks import channel_shuffle, conv_bn, conv_bn_parameters, linear_parameters
from bantam.nets.family import Family
from bantam.nets.fit import Shape, Widths, fit_widths, late_strides
from bantam.nets.output import StagedNet

PAPER = "Ma et al., ShuffleNet V2, 2018, arXiv:1807.11164"

PROPORTIONS = (1.25, 1.0, 1.5, 2.5, 3.5, 8.0)
"""Width of the stem, half the widths of the four stages, and width of the last layer."""


def fit(budget: int, classes: int, size: int) -> Shape:
    """Return the shape that fills 99.5% to 100% of `budget` parameters, for `size` x `size` pixels.

    Raises BudgetExceeded if the smallest net is heavier than the budget.
    """
    units, strides = _units(budget), late_strides(size)

    def count(widths: Widths) -> int:
        return parameters(_shape(widths, units, strides), classes)

    return _shape(fit_widths("shufflenet_v2", count, PROPORTIONS, budget), units, strides)


def parameters(shape: Shape, classes: int) -> int:
    """Count the parameters that the net of `build` has when it is deployed."""
    width: int = shape["stem"]
    total = conv_bn_parameters(3, width)
    for half, units in zip(shape["halves"], shape["units"], strict=True):
        depthwise, pointwise = conv_bn_parameters(half, half, groups=half), conv_bn_parameters(half, half, 1)
        total += conv_bn_parameters(width, width, groups=width) + 2 * conv_bn_parameters(width, half, 1)
        total += depthwise + pointwise + (units - 1) * (depthwise + 2 * pointwise)
        width = 2 * half
    return total + conv_bn_parameters(width, shape["last"], 1) + linear_parameters(shape["last"], classes)


def build(shape: Shape, classes: int) -> StagedNet:
    """Build the net from `shape`.

    "stem" is the width of the first convolution, "halves" and "units" hold half the width and the number of
    units of each stage, "last" is the width of the last pointwise layer, and "strides" holds those of the stem
    and of the first unit of each stage.
    """
    width: int = shape["stem"]
    stem_stride, *stage_strides = shape["strides"]
    stages: list[nn.Sequential] = []
    layers: list[nn.Module] = [conv_bn(3, width, stride=stem_stride)]
    for half, units, stride in zip(shape["halves"], shape["units"], stage_strides, strict=True):
        layers.append(WideningUnit(width, half, stride))
        layers += [SplitUnit(half) for _ in range(units - 1)]
        width = 2 * half
        stages.append(nn.Sequential(*layers))
        layers = []
    stages[-1].append(conv_bn(width, shape["last"], kernel=1))
    return StagedNet(stages, shape["last"], classes)


class SplitUnit(nn.Module):
    """Changes one half of the channels and shuffles them with the other: figure 3 (c) of the paper.

    Maps [N, 2 * half, H, W] to the same shape.
    """

    def __init__(self, half: int) -> None:
        super().__init__()
        self.branch = _branch(half, half, stride=1)

    def forward(self, maps: Tensor) -> Tensor:
        """Map [N, 2 * half, H, W] to [N, 2 * half, H, W]."""
        kept, changed = maps.chunk(2, 1)  # [N, 2 * half, H, W] -> twice [N, half, H, W]
        return channel_shuffle(torch.cat((kept, self.branch(changed)), 1), 2)


class WideningUnit(nn.Module):
    """Computes both halves from all channels and shuffles them: figure 3 (d) of the paper.

    Maps [N, inputs, H, W] to [N, 2 * half, ceil(H / stride), ceil(W / stride)].
    """

    def __init__(self, inputs: int, half: int, stride: int) -> None:
        super().__init__()
        self.shortcut = nn.Sequential(
            conv_bn(inputs, inputs, stride=stride, groups=inputs, activation=None),
            conv_bn(inputs, half, kernel=1),
        )
        self.branch = _branch(inputs, half, stride)

    def forward(self, maps: Tensor) -> Tensor:
        """Map [N, inputs, H, W] to [N, 2 * half, h, w]."""
        return channel_shuffle(torch.cat((self.shortcut(maps), self.branch(maps)), 1), 2)


def _branch(inputs: int, half: int, stride: int) -> nn.Sequential:
    """Return pointwise, depthwise 3 x 3 and pointwise, with ReLU after the pointwise ones only."""
    return nn.Sequential(
        conv_bn(inputs, half, kernel=1),
        conv_bn(half, half, stride=stride, groups=half, activation=None),
        conv_bn(half, half, kernel=1),
    )


def _units(budget: int) -> tuple[int, int, int, int]:
    """Return the number of units of each stage: a heavier net is also a deeper one."""
    if budget < 15_000:
        return 1, 1, 2, 2
    if budget < 150_000:
        return 1, 2, 4, 4
    return 2, 3, 6, 4


def _shape(widths: Widths, units: tuple[int, ...], strides: list[int]) -> Shape:
    """Lay out the widths of the stem, the stages' halves and the last layer."""
    stem, *halves, last = widths
    return {"stem": stem, "halves": halves, "units": list(units), "last": last, "strides": strides}


FAMILY = Family("shufflenet_v2", PAPER, fit, build)
