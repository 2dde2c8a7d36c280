"""Mixed kernels: a quarter of the channels passes by, the others see 3 x 3, 7 x 7 and 19 x 19 pixels.

One depthwise layer whose channels have kernels of several sizes sees fine and coarse structure for the price of its
mean kernel (Tan and Le, "MixConv: Mixed Depthwise Convolutional Kernels", BMVC 2019, arXiv:1907.09595). The kernels,
the halving that comes late and alone, and a learned scale on each shortcut are those of the smallest net known to reach
94.4% on CIFAR-10, with 97,530 parameters (github.com/xvel/cifar10-tiniest). Here BatchNorm stands in the place of
LayerNorm, because it folds away; the gate is the hard-swish of `largekernel`; and the farthest kernel has no pooling
before it.
"""

import math

import torch
from torch import Tensor, nn

from bantam.errors import BadRecipe
from bantam.nets.blocks import (
    conv_bn,
    conv_bn_parameters,
    linear_parameters,
    start_near_identity,
    transition,
    transition_parameters,
)
from bantam.nets.family import Family
from bantam.nets.fit import Shape, Widths, fit_widths
from bantam.nets.output import StagedNet

PAPER = "Tan and Le, MixConv, BMVC 2019, arXiv:1907.09595, in the way of github.com/xvel/cifar10-tiniest"

PROPORTIONS = (1.0, 1.1, 1.2, 1.8)
"""Widths of the four stages, as multiples of the first one's."""

KERNELS = ((3, 1), (7, 1), (7, 3))
"""Side and dilation of the depthwise kernels, each of a quarter of the channels; the first quarter has none."""

LAST_MAP = 16
"""Side of the last map in pixels, about: twice that of the other families."""

STRIDE_ORDER = (4, 0, 2, 3, 1)
"""Which place halves the map first, second, ...: 0 is the stem, 1 to 4 are the stages."""


def fit(budget: int, classes: int, size: int) -> Shape:
    """Return the shape that fills 99.5% to 100% of `budget` parameters, for `size` x `size` pixels.

    Raises BudgetExceeded if the smallest net is heavier than the budget, BadRecipe for a size below 1 pixel.
    """
    blocks, strides = _blocks(budget), _strides(size)

    def shape(widths: Widths) -> Shape:
        return {"widths": list(widths), "blocks": list(blocks), "strides": strides}

    return shape(fit_widths("mixedkernel", lambda widths: parameters(shape(widths), classes), PROPORTIONS, budget))


def parameters(shape: Shape, classes: int) -> int:
    """Count the parameters that the net of `build` has when it is deployed."""
    width: int = shape["widths"][0]
    total = conv_bn_parameters(3, width)
    for outputs, blocks, stride in zip(shape["widths"], shape["blocks"], shape["strides"][1:], strict=True):
        total += transition_parameters(width, outputs, stride) + blocks * mixed_parameters(outputs)
        width = outputs
    return total + linear_parameters(width, classes)


def build(shape: Shape, classes: int) -> StagedNet:
    """Build the net as it trains, from `shape`.

    "widths" and "blocks" hold the channels and the number of blocks of each stage, "strides" those of the stem and of
    each stage.
    """
    width: int = shape["widths"][0]
    stages: list[nn.Module] = []
    layers: list[nn.Module] = [conv_bn(3, width, stride=shape["strides"][0])]
    for outputs, blocks, stride in zip(shape["widths"], shape["blocks"], shape["strides"][1:], strict=True):
        layers += [*transition(width, outputs, stride), *(MixedBlock(outputs) for _ in range(blocks))]
        stages.append(nn.Sequential(*layers))
        layers, width = [], outputs
    return StagedNet(stages, width, classes)


class MixedBlock(nn.Module):
    """Depthwise kernels of several sizes, then the product of two pointwise convolutions, as a residual.

    Maps [N, channels, H, W] to the same shape. The shortcut has a learned scale for each channel, at first 1.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        quarter = channels // 4
        self.near, self.far, self.farthest = (
            conv_bn(quarter, quarter, side, groups=quarter, activation=None, dilation=dilation)
            for side, dilation in KERNELS
        )
        self.expand = nn.Conv2d(channels, 2 * channels, 1)
        self.gate = nn.Hardswish()
        self.project = conv_bn(channels, channels, kernel=1, activation=None)
        self.shortcut = nn.Conv2d(channels, channels, 1, groups=channels, bias=False)
        nn.init.ones_(self.shortcut.weight)
        start_near_identity(self.project)

    def forward(self, maps: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, C, H, W]."""
        # Not a quarter each, once pruning has taken some.
        kernels = (self.near, self.far, self.farthest)
        seen = [conv.in_channels for one in kernels for conv in one.modules() if isinstance(conv, nn.Conv2d)]
        same, near, far, farthest = maps.split([maps.shape[1] - sum(seen), *seen], 1)
        mixed = torch.cat((same, self.near(near), self.far(far), self.farthest(farthest)), 1)  # [N, C, H, W]
        gate, value = self.expand(mixed).chunk(2, 1)  # [N, C, H, W] -> 2 x [N, C, H, W]
        return self.shortcut(maps) + self.project(self.gate(gate) * value)


def mixed_parameters(channels: int) -> int:
    """Count the parameters that `MixedBlock` ships; it has 4 channels or more."""
    quarter = channels // 4
    mix = sum(conv_bn_parameters(quarter, quarter, side, groups=quarter) for side, _ in KERNELS)
    pointwise = conv_bn_parameters(channels, 2 * channels, 1) + conv_bn_parameters(channels, channels, 1)
    return mix + pointwise + channels


def _blocks(budget: int) -> tuple[int, int, int, int]:
    """Return the number of blocks of each stage: a heavier net is also a deeper one."""
    if budget < 15_000:
        return 1, 1, 1, 1
    if budget < 150_000:
        return 1, 1, 1, 3
    return 1, 2, 2, 4


def _strides(size: int) -> list[int]:
    """Return the strides of the stem and of the stages that bring `size` pixels to about LAST_MAP."""
    if size < 1:
        raise BadRecipe(f"an input of {size} px is too small: give it at least 1 px")
    halvings = max(round(math.log2(size / LAST_MAP)), 0)
    return [2 if place in STRIDE_ORDER[:halvings] else 1 for place in range(len(STRIDE_ORDER))]


FAMILY = Family("mixedkernel", PAPER, fit, build)
