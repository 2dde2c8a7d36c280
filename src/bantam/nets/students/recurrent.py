"""Weight sharing: one residual block, applied several times, instead of several blocks.

Liao and Poggio, "Bridging the Gaps Between Residual Learning, Recurrent Neural Networks and Visual Cortex",
2016, arXiv:1604.03640. The convolutions are shared between the applications; each application has a BatchNorm
of its own, as in the paper, because the statistics differ from one to the next. For that same reason these
BatchNorms cannot be folded and are shipped.

Sharing saves parameters only where each is counted once. torchsummary counts a module at every call, and the
budget holds for the larger count: under it an application costs as much as a block of its own.
"""

from torch import Tensor, nn
from torch.nn import functional

from bantam.nets.blocks import (
    conv_bn,
    conv_bn_parameters,
    depthwise_separable,
    depthwise_separable_parameters,
    linear_parameters,
    start_near_identity,
)
from bantam.nets.budget import Weight
from bantam.nets.family import Family
from bantam.nets.fit import Shape, Widths, fit_widths, late_strides
from bantam.nets.output import StagedNet

PAPER = "Liao and Poggio, Residual Learning, Recurrent Networks and Visual Cortex, 2016, arXiv:1604.03640"

PROPORTIONS = (1.0, 1.5, 2.5, 3.5, 5.0)
"""Widths of the four stages and of the last pointwise convolution, as multiples of the first stage's."""


def fit(budget: int, classes: int, size: int) -> Shape:
    """Return the shape whose larger count fills 99.5% to 100% of `budget`, for `size` x `size` pixels.

    Raises BudgetExceeded if the smallest net is heavier than the budget.
    """
    times, strides = _times(budget), late_strides(size)

    def count(widths: Widths) -> int:
        return parameters(_shape(widths, times, strides), classes).counted

    return _shape(fit_widths("recurrent", count, PROPORTIONS, budget), times, strides)


def parameters(shape: Shape, classes: int) -> Weight:
    """Count, by both rules, the parameters that the net of `build` has when it is deployed."""
    width, last = shape["widths"][-1], shape["last"]
    once = conv_bn_parameters(3, shape["stem"]) + conv_bn_parameters(width, last, 1) + linear_parameters(last, classes)
    unique = called = once
    inputs: int = shape["stem"]
    for outputs, times in zip(shape["widths"], shape["times"], strict=True):
        entry = depthwise_separable_parameters(inputs, outputs)
        shared, norms = outputs * 9 + outputs * outputs, 4 * outputs
        unique += entry + shared + times * norms
        called += entry + times * (shared + norms)
        inputs = outputs
    return Weight(unique=unique, torchsummary=called)


def build(shape: Shape, classes: int) -> StagedNet:
    """Build the net from `shape`.

    "stem" and "last" are the widths of the first and of the last convolution; "widths" and "times" hold the
    channels of each stage and how often its block is applied; "strides" are those of the stem and of the
    layers that enter each stage.
    """
    width: int = shape["stem"]
    stem_stride, *strides = shape["strides"]
    stages: list[nn.Module] = []
    layers: list[nn.Module] = [conv_bn(3, width, stride=stem_stride)]
    for outputs, times, stride in zip(shape["widths"], shape["times"], strides, strict=True):
        layers += [depthwise_separable(width, outputs, stride=stride), RecurrentBlock(outputs, times)]
        width = outputs
        if len(stages) == len(strides) - 1:
            layers.append(conv_bn(width, shape["last"], kernel=1))
        stages.append(nn.Sequential(*layers))
        layers = []
    return StagedNet(stages, shape["last"], classes)


class RecurrentBlock(nn.Module):
    """A residual block of a depthwise 3 x 3 and a pointwise convolution, applied `times` times in a row.

    Maps [N, channels, H, W] to the same shape. An application is depthwise, BN, ReLU, pointwise, BN, and the
    sum with its input; the convolutions are the same in all of them, the BatchNorms are not.
    """

    def __init__(self, channels: int, times: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.inner_norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(times))
        self.outer_norms = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(times))
        start_near_identity(self.outer_norms)

    def forward(self, maps: Tensor) -> Tensor:
        for inner_norm, outer_norm in zip(self.inner_norms, self.outer_norms, strict=True):
            inner = functional.relu(inner_norm(self.depthwise(maps)))
            maps = maps + outer_norm(self.pointwise(inner))
        return maps


def _times(budget: int) -> tuple[int, int, int, int]:
    """Return how often the block of each stage is applied: a heavier net thinks longer."""
    if budget < 15_000:
        return 1, 1, 2, 2
    if budget < 150_000:
        return 1, 2, 3, 3
    return 2, 3, 4, 4


def _shape(widths: Widths, times: tuple[int, ...], strides: list[int]) -> Shape:
    """Lay out the widths: the stem is as wide as the first stage, the last convolution has its own width."""
    return {
        "stem": widths[0],
        "widths": list(widths[:-1]),
        "times": list(times),
        "last": widths[-1],
        "strides": strides,
    }


FAMILY = Family("recurrent", PAPER, fit, build)
