"""MobileNet: depthwise and pointwise instead of full convolutions.

Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications", 2017,
arXiv:1704.04861. The blocks are the paper's; the number of blocks, the widths and the place of the strides
are chosen for small inputs and budgets: the map stays large for long and ends at about 8 x 8.
"""

import itertools
from collections.abc import Sequence

from torch import nn

from bantam.nets.blocks import (
    conv_bn,
    conv_bn_parameters,
    depthwise_separable,
    depthwise_separable_parameters,
    linear_parameters,
)
from bantam.nets.family import Family
from bantam.nets.fit import Shape, Widths, fit_widths, late_strides
from bantam.nets.output import StagedNet
from bantam.nets.slimmable import Switch, further_parameters

PAPER = "Howard et al., MobileNets, 2017, arXiv:1704.04861"

PROPORTIONS = (1.0, 1.5, 2.5, 4.0, 4.0)
"""Widths of the four stages and of the last block, as multiples of the first stage's."""


def fit(budget: int, classes: int, size: int, family: str = "mobilenet_v1", switches: Sequence[Switch] = ()) -> Shape:
    """Return the shape that fills 99.5% to 100% of `budget` parameters, for `size` x `size` pixels.

    What `switches` ship beside it counts too. Raises BudgetExceeded, in the name of `family`, if the smallest net is
    heavier than the budget.
    """
    blocks, strides = _blocks(budget), late_strides(size)

    def count(widths: Widths) -> int:
        shape = _shape(widths, blocks, strides)
        return parameters(shape, classes) + further_parameters(norms(shape), switches)

    return _shape(fit_widths(family, count, PROPORTIONS, budget), blocks, strides)


def parameters(shape: Shape, classes: int) -> int:
    """Count the parameters that the net of `build` has when it is deployed."""
    channels = _channels(shape)
    body = sum(depthwise_separable_parameters(i, o) for i, o in itertools.pairwise(channels))
    return conv_bn_parameters(3, channels[0]) + body + linear_parameters(channels[-1], classes)


def norms(shape: Shape) -> list[int]:
    """List the channels of every BatchNorm: the stem's, and two for each block."""
    channels = _channels(shape)
    return [channels[0], *(width for block in itertools.pairwise(channels) for width in block)]


def build(shape: Shape, classes: int) -> StagedNet:
    """Build the net from `shape`.

    "stem" is the width of the first convolution, "stages" holds the width of each block stage by stage, and
    "strides" those of the stem and of the first block of each stage.
    """
    width: int = shape["stem"]
    stem_stride, *stage_strides = shape["strides"]
    stages: list[nn.Module] = []
    layers = [conv_bn(3, width, stride=stem_stride)]
    for blocks, first_stride in zip(shape["stages"], stage_strides, strict=True):
        for position, outputs in enumerate(blocks):
            layers.append(depthwise_separable(width, outputs, stride=first_stride if position == 0 else 1))
            width = outputs
        stages.append(nn.Sequential(*layers))
        layers = []
    return StagedNet(stages, width, classes)


def _channels(shape: Shape) -> list[int]:
    return [shape["stem"], *(width for stage in shape["stages"] for width in stage)]


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


FAMILY = Family("mobilenet_v1", PAPER, fit, build, slims=True)
