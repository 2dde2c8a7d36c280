"""MobileNetV2: inverted residuals with linear bottlenecks.

Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018, arXiv:1801.04381. The blocks and
the wide last layer are the paper's; depth, widths and strides are chosen for small inputs and budgets.
"""

from collections.abc import Sequence

from torch import nn

from bantam.nets.blocks import (
    conv_bn,
    conv_bn_parameters,
    inverted_residual,
    inverted_residual_parameters,
    linear_parameters,
)
from bantam.nets.family import Family
from bantam.nets.fit import Shape, Widths, fit_widths, late_strides
from bantam.nets.output import StagedNet
from bantam.nets.slimmable import Switch, further_parameters

PAPER = "Sandler et al., MobileNetV2, 2018, arXiv:1801.04381"

PROPORTIONS = (1.25, 1.0, 1.5, 2.25, 3.25, 9.0)
"""Widths of the stem, the four stages and the last layer, as multiples of the first stage's."""

EXPANSION = 4
"""How much wider a block is inside: the paper has 6 and finds that smaller nets do better with less."""


def fit(budget: int, classes: int, size: int, switches: Sequence[Switch] = ()) -> Shape:
    """Return the shape that fills 99.5% to 100% of `budget` parameters, for `size` x `size` pixels.

    What `switches` ship beside it counts too. Raises BudgetExceeded if the smallest net is heavier than the budget.
    """
    blocks, strides = _blocks(budget), late_strides(size)

    def count(widths: Widths) -> int:
        shape = _shape(widths, blocks, strides)
        return parameters(shape, classes) + further_parameters(norms(shape), switches)

    return _shape(fit_widths("mobilenet_v2", count, PROPORTIONS, budget), blocks, strides)


def parameters(shape: Shape, classes: int) -> int:
    """Count the parameters that the net of `build` has when it is deployed."""
    width: int = shape["stem"]
    total = conv_bn_parameters(3, width)
    for blocks in shape["stages"]:
        for expanded, outputs in blocks:
            total += inverted_residual_parameters(width, expanded, outputs)
            width = outputs
    return total + conv_bn_parameters(width, shape["last"], 1) + linear_parameters(shape["last"], classes)


def norms(shape: Shape) -> list[int]:
    """List the channels of every BatchNorm: the stem's, those of each block, and the last layer's."""
    width: int = shape["stem"]
    channels = [width]
    for expanded, outputs in (block for blocks in shape["stages"] for block in blocks):
        channels += [expanded, outputs] if expanded == width else [expanded, expanded, outputs]
        width = outputs
    return [*channels, shape["last"]]


def build(shape: Shape, classes: int) -> StagedNet:
    """Build the net from `shape`.

    "stem" is the width of the first convolution, "stages" holds [inner width, outer width] of each block stage
    by stage, "last" is the width of the last pointwise layer, and "strides" those of the stem and of the first
    block of each stage.
    """
    width: int = shape["stem"]
    stem_stride, *stage_strides = shape["strides"]
    stages: list[nn.Sequential] = []
    layers: list[nn.Module] = [conv_bn(3, width, stride=stem_stride, activation=nn.ReLU6)]
    for blocks, first_stride in zip(shape["stages"], stage_strides, strict=True):
        for position, (expanded, outputs) in enumerate(blocks):
            stride = first_stride if position == 0 else 1
            layers.append(inverted_residual(width, expanded, outputs, stride=stride))
            width = outputs
        stages.append(nn.Sequential(*layers))
        layers = []
    stages[-1].append(conv_bn(width, shape["last"], kernel=1, activation=nn.ReLU6))
    return StagedNet(stages, shape["last"], classes)


def _blocks(budget: int) -> tuple[int, int, int, int]:
    """Return the number of blocks of each stage: a heavier net is also a deeper one."""
    if budget < 15_000:
        return 1, 1, 2, 2
    if budget < 150_000:
        return 1, 2, 3, 3
    return 1, 3, 4, 4


def _shape(widths: Widths, blocks: tuple[int, ...], strides: list[int]) -> Shape:
    """Lay out the widths: as in the paper, the very first block does not expand."""
    stem, *outer, last = widths
    stages: list[list[list[int]]] = []
    width, expansion = stem, 1
    for outputs, repeats in zip(outer, blocks, strict=True):
        stages.append([])
        for _ in range(repeats):
            stages[-1].append([expansion * width, outputs])
            width, expansion = outputs, EXPANSION
    return {"stem": stem, "stages": stages, "last": last, "strides": strides}


FAMILY = Family("mobilenet_v2", PAPER, fit, build, slims=True)
