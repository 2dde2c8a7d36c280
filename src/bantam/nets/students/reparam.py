"""MobileOne: a depthwise separable net that trains with parallel branches and ships without them.

Vasu et al., "MobileOne: An Improved One millisecond Mobile Backbone", CVPR 2023, arXiv:2206.04040, after Ding
et al., "RepVGG", CVPR 2021, arXiv:2101.03697. While it trains, each depthwise convolution stands beside a
pointwise one (the scale branch) and each pointwise one beside a twin, every branch has its own BatchNorm, and
BatchNorm alone is one more branch where input and output have the same shape. Deployed, this is a MobileNet,
and weighs no more.
"""

import itertools

from torch import nn

from bantam.nets.blocks import (
    ParallelConv,
    conv_bn_parameters,
    depthwise_separable_parameters,
    linear_parameters,
)
from bantam.nets.fit import Shape, Widths, fit_widths, late_strides
from bantam.nets.output import StagedNet

PAPER = "Vasu et al., MobileOne, CVPR 2023, arXiv:2206.04040"

PROPORTIONS = (1.0, 1.5, 2.5, 4.0, 4.0)
"""Widths of the four stages and of the last block, as multiples of the first stage's."""


def fit(budget: int, classes: int, size: int) -> Shape:
    """Return the shape that fills 99.5% to 100% of `budget` parameters, for `size` x `size` pixels.

    Raises BudgetExceeded if the smallest net is heavier than the budget.
    """
    blocks, strides = _blocks(budget), late_strides(size)

    def count(widths: Widths) -> int:
        return parameters(_shape(widths, blocks, strides), classes)

    return _shape(fit_widths("reparam", count, PROPORTIONS, budget), blocks, strides)


def parameters(shape: Shape, classes: int) -> int:
    """Count the parameters that the net of `build` has when it is deployed."""
    channels = [shape["stem"], *(width for stage in shape["stages"] for width in stage)]
    body = sum(depthwise_separable_parameters(i, o) for i, o in itertools.pairwise(channels))
    return conv_bn_parameters(3, channels[0]) + body + linear_parameters(channels[-1], classes)


def build(shape: Shape, classes: int) -> StagedNet:
    """Build the net as it trains, from `shape`.

    "stem" is the width of the first convolution, "stages" holds the width of each block stage by stage, and
    "strides" those of the stem and of the first block of each stage.
    """
    width: int = shape["stem"]
    stem_stride, *stage_strides = shape["strides"]
    stages: list[nn.Module] = []
    layers = [nn.Sequential(ParallelConv(3, width, (3, 1), stem_stride), nn.ReLU(inplace=True))]
    for blocks, first_stride in zip(shape["stages"], stage_strides, strict=True):
        for position, outputs in enumerate(blocks):
            layers.append(_block(width, outputs, first_stride if position == 0 else 1))
            width = outputs
        stages.append(nn.Sequential(*layers))
        layers = []
    return StagedNet(stages, width, classes)


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Map [N, inputs, H, W] to [N, outputs, ceil(H / stride), ceil(W / stride)]."""
    return nn.Sequential(
        ParallelConv(inputs, inputs, (3, 1), stride, groups=inputs, identity=stride == 1),
        nn.ReLU(inplace=True),
        ParallelConv(inputs, outputs, (1, 1), identity=inputs == outputs),
        nn.ReLU(inplace=True),
    )


def _blocks(budget: int) -> tuple[int, int, int, int]:
    """Return the number of blocks of each stage: a heavier net is also a deeper one."""
    if budget < 15_000:
        return 1, 1, 1, 2
    if budget < 150_000:
        return 1, 1, 2, 3
    return 1, 2, 3, 5


def _shape(widths: Widths, blocks: tuple[int, ...], strides: list[int]) -> Shape:
    """Lay out the widths: the stem is as wide as the first stage, the last block has a width of its own."""
    stages = [[width] * repeats for width, repeats in zip(widths, blocks, strict=False)]
    stages[-1][-1] = widths[-1]
    return {"stem": widths[0], "stages": stages, "strides": strides}
