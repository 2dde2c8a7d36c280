"""SqueezeNet: fire modules, which squeeze to a few channels before their 3 x 3 convolutions.

Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters", 2016, arXiv:1602.07360, in the
variant with simple bypass, the most accurate one of the paper, with batch normalisation. The paper's ratios are
kept (a squeeze has an eighth of the outputs, half of which see 3 x 3), and its advice to downsample late. The
bypass goes around every fire module whose input is as wide as its output. The paper's last layer, a pointwise
convolution to the classes, a ReLU and then the pooling, as in torchvision, is here a linear layer behind the
pooling, without the ReLU, so that logits may be negative, and without the dropout before it.
"""

import torch
from torch import Tensor, nn

from bantam.nets.blocks import Residual, conv_bn, conv_bn_parameters, linear_parameters
from bantam.nets.family import Family
from bantam.nets.fit import Shape, Widths, fit_widths, late_strides
from bantam.nets.output import StagedNet

PAPER = "Iandola et al., SqueezeNet, 2016, arXiv:1602.07360"

PROPORTIONS = (6.0, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)
"""Width of the stem, squeezes of the four stages, and expansions (of each kind) of the four stages."""


def fit(budget: int, classes: int, size: int) -> Shape:
    """Return the shape that fills 99.5% to 100% of `budget` parameters, for `size` x `size` pixels.

    Raises BudgetExceeded if the smallest net is heavier than the budget.
    """
    fires, strides = _fires(budget), late_strides(size)

    def count(widths: Widths) -> int:
        return parameters(_shape(widths, fires, strides), classes)

    return _shape(fit_widths("squeezenet", count, PROPORTIONS, budget, smallest=2), fires, strides)


def parameters(shape: Shape, classes: int) -> int:
    """Count the parameters that the net of `build` has when it is deployed."""
    width: int = shape["stem"]
    total = conv_bn_parameters(3, width)
    for fires in shape["stages"]:
        for squeezed, expanded in fires:
            total += conv_bn_parameters(width, squeezed, 1)
            total += conv_bn_parameters(squeezed, expanded, 1) + conv_bn_parameters(squeezed, expanded, 3)
            width = 2 * expanded
    return total + linear_parameters(width, classes)


def build(shape: Shape, classes: int) -> StagedNet:
    """Build the net from `shape`.

    "stem" is the width of the first convolution, "stages" holds [squeezed, expanded] of each fire module stage
    by stage, whose output has 2 * expanded channels, and "strides" holds those of the stem and of the pooling
    before each stage.
    """
    width: int = shape["stem"]
    stem_stride, *stage_strides = shape["strides"]
    stages: list[nn.Module] = []
    layers: list[nn.Module] = [conv_bn(3, width, stride=stem_stride)]
    for fires, stride in zip(shape["stages"], stage_strides, strict=True):
        if stride > 1:
            layers.append(nn.MaxPool2d(3, stride, padding=1))
        for squeezed, expanded in fires:
            fire = Fire(width, squeezed, expanded)
            layers.append(Residual(fire) if width == 2 * expanded else fire)
            width = 2 * expanded
        stages.append(nn.Sequential(*layers))
        layers = []
    return StagedNet(stages, width, classes)


class Fire(nn.Module):
    """Pointwise squeeze, then a pointwise and a 3 x 3 expansion side by side, each of the three with a ReLU.

    As torchvision's Fire but for the batch normalisation before each ReLU, in place of a bias.
    Maps [N, inputs, H, W] to [N, 2 * expanded, H, W].
    """

    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = conv_bn(inputs, squeezed, kernel=1)
        self.expand1 = conv_bn(squeezed, expanded, kernel=1)
        self.expand3 = conv_bn(squeezed, expanded, kernel=3)

    def forward(self, maps: Tensor) -> Tensor:
        """Map [N, inputs, H, W] to [N, 2 * expanded, H, W]."""
        squeezed = self.squeeze(maps)
        return torch.cat((self.expand1(squeezed), self.expand3(squeezed)), 1)


def _fires(budget: int) -> tuple[int, int, int, int]:
    """Return the number of fire modules of each stage: a heavier net is also a deeper one."""
    if budget < 15_000:
        return 1, 1, 1, 2
    if budget < 150_000:
        return 1, 2, 2, 3
    return 2, 2, 4, 4


def _shape(widths: Widths, fires: tuple[int, ...], strides: list[int]) -> Shape:
    """Lay out the widths: all fire modules of a stage are alike."""
    stem, *inner = widths
    squeezes, expansions = inner[: len(fires)], inner[len(fires) :]
    stages = [[[s, e]] * repeats for s, e, repeats in zip(squeezes, expansions, fires, strict=True)]
    return {"stem": stem, "stages": stages, "strides": strides}


FAMILY = Family("squeezenet", PAPER, fit, build)
