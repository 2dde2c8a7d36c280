"""ShuffleNet: grouped pointwise convolutions, and a shuffle of channels between them.

Zhang et al., "ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile Devices", 2018,
arXiv:1707.01083. The units are the paper's, with its 3 groups. Depth, widths and strides are chosen for small
inputs and budgets, and one pointwise layer without groups comes last: it mixes what the groups have found, and
its width, being free of their multiples, lets the net fill any budget.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from bantam.nets.blocks import channel_shuffle, conv_bn, conv_bn_parameters, linear_parameters
from bantam.nets.family import Family
from bantam.nets.fit import Shape, Widths, fit_widths, late_strides
from bantam.nets.output import StagedNet

PAPER = "Zhang et al., ShuffleNet, 2018, arXiv:1707.01083"

GROUPS = 3

PROPORTIONS = (1.0, 1.0, 2.0, 3.0, 3.0, 8.0)
"""Width of the stem and what each stage adds to it, in units of GROUPS channels, and the last layer's width."""


def fit(budget: int, classes: int, size: int) -> Shape:
    """Return the shape that fills 99.5% to 100% of `budget` parameters, for `size` x `size` pixels.

    Raises BudgetExceeded if the smallest net is heavier than the budget.
    """
    units, strides = _units(budget), late_strides(size)

    def count(widths: Widths) -> int:
        return parameters(_shape(widths, units, strides), classes)

    return _shape(fit_widths("shufflenet_v1", count, PROPORTIONS, budget, smallest=2), units, strides)


def parameters(shape: Shape, classes: int) -> int:
    """Count the parameters that the net of `build` has when it is deployed."""
    width: int = shape["stem"]
    total, groups = conv_bn_parameters(3, width), 1
    for units in shape["stages"]:
        for position, (bottleneck, outputs) in enumerate(units):
            new = outputs - width if position == 0 else outputs
            total += conv_bn_parameters(width, bottleneck, 1, groups)
            total += conv_bn_parameters(bottleneck, bottleneck, groups=bottleneck)
            total += conv_bn_parameters(bottleneck, new, 1, shape["groups"])
            width, groups = outputs, shape["groups"]
    return total + conv_bn_parameters(width, shape["last"], 1) + linear_parameters(shape["last"], classes)


def build(shape: Shape, classes: int) -> StagedNet:
    """Build the net from `shape`.

    "stem" is the width of the first convolution, "stages" holds [bottleneck, outputs] of each unit stage by
    stage, "groups" is the number of groups, "last" the width of the last pointwise layer, and "strides" holds
    those of the stem and of the first unit of each stage.
    """
    width: int = shape["stem"]
    stem_stride, *stage_strides = shape["strides"]
    stages: list[nn.Sequential] = []
    layers: list[nn.Module] = [conv_bn(3, width, stride=stem_stride)]
    # The paper leaves the very first pointwise layer ungrouped, because it has few inputs.
    first_groups = 1
    for units, stride in zip(shape["stages"], stage_strides, strict=True):
        for position, (bottleneck, outputs) in enumerate(units):
            if position == 0:
                unit = WideningUnit(width, bottleneck, outputs, shape["groups"], first_groups, stride)
            else:
                unit = ShuffleUnit(width, bottleneck, shape["groups"])
            layers.append(unit)
            width, first_groups = outputs, shape["groups"]
        stages.append(nn.Sequential(*layers))
        layers = []
    stages[-1].append(conv_bn(width, shape["last"], kernel=1))
    return StagedNet(stages, shape["last"], classes)


class Bottleneck(nn.Module):
    """Grouped pointwise, channel shuffle, depthwise 3 x 3, grouped pointwise: the branch of both units.

    Maps [N, inputs, H, W] to [N, outputs, ceil(H / stride), ceil(W / stride)].
    """

    def __init__(
        self, inputs: int, bottleneck: int, outputs: int, groups: int, first_groups: int, stride: int = 1
    ) -> None:
        super().__init__()
        self.groups = groups
        self.reduce = conv_bn(inputs, bottleneck, kernel=1, groups=first_groups)
        self.depthwise = conv_bn(bottleneck, bottleneck, stride=stride, groups=bottleneck, activation=None)
        self.expand = conv_bn(bottleneck, outputs, kernel=1, groups=groups, activation=None)

    def forward(self, maps: Tensor) -> Tensor:
        """Map [N, inputs, H, W] to [N, outputs, h, w]."""
        return self.expand(self.depthwise(channel_shuffle(self.reduce(maps), self.groups)))


class ShuffleUnit(nn.Module):
    """Adds the branch to its input: figure 2 (b) of the paper. Maps [N, width, H, W] to the same shape."""

    def __init__(self, width: int, bottleneck: int, groups: int) -> None:
        super().__init__()
        self.branch = Bottleneck(width, bottleneck, width, groups, groups)

    def forward(self, maps: Tensor) -> Tensor:
        """Map [N, width, H, W] to [N, width, H, W]."""
        return functional.relu(maps + self.branch(maps))


class WideningUnit(nn.Module):
    """Joins the branch to its average-pooled input: figure 2 (c) of the paper.

    Maps [N, inputs, H, W] to [N, outputs, ceil(H / stride), ceil(W / stride)]; with stride 1 nothing is pooled.
    """

    def __init__(self, inputs: int, bottleneck: int, outputs: int, groups: int, first_groups: int, stride: int) -> None:
        super().__init__()
        self.shortcut = nn.AvgPool2d(3, stride, padding=1) if stride > 1 else nn.Identity()
        self.branch = Bottleneck(inputs, bottleneck, outputs - inputs, groups, first_groups, stride)

    def forward(self, maps: Tensor) -> Tensor:
        """Map [N, inputs, H, W] to [N, outputs, h, w]."""
        return functional.relu(torch.cat((self.shortcut(maps), self.branch(maps)), 1))


def _units(budget: int) -> tuple[int, int, int, int]:
    """Return the number of units of each stage: a heavier net is also a deeper one."""
    if budget < 15_000:
        return 1, 1, 2, 2
    if budget < 150_000:
        return 1, 2, 4, 4
    return 2, 3, 6, 4


def _shape(widths: Widths, units: tuple[int, ...], strides: list[int]) -> Shape:
    """Lay out the widths: each stage is wider than the one before, its bottlenecks a quarter of its width."""
    stem, *added, last = widths
    width = stem
    stages: list[list[list[int]]] = []
    for more, repeats in zip(added, units, strict=True):
        width += more
        bottleneck = max(1, round(width / 4))
        stages.append([[GROUPS * bottleneck, GROUPS * width]] * repeats)
    return {"stem": GROUPS * stem, "stages": stages, "groups": GROUPS, "last": last, "strides": strides}


FAMILY = Family("shufflenet_v1", PAPER, fit, build)
