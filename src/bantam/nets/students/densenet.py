"""DenseNet-BC: every layer sees the outputs of all layers before it; bottlenecks and compression keep it light.

Huang et al., "Densely Connected Convolutional Networks", 2017, arXiv:1608.06993. Two things differ from the paper.
Each layer is convolution, BN, ReLU as in PeleeNet (Wang et al., 2018, arXiv:1804.06882) instead of BN, ReLU,
convolution: so every BN folds into the convolution before it and costs no second parameter per input. And the
growth rate rises from block to block, as in CondenseNet (Huang et al., 2018, arXiv:1711.09224).
"""

import torch
from torch import Tensor, nn

from bantam.nets.blocks import conv_bn, conv_bn_parameters, linear_parameters
from bantam.nets.family import Family
from bantam.nets.fit import Shape, Widths, fit_widths, late_strides
from bantam.nets.output import StagedNet

PAPER = "Huang et al., Densely Connected Convolutional Networks, 2017, arXiv:1608.06993"

GROWTHS = (1.0, 1.25, 1.6, 2.0)
"""Growth rates of the four dense blocks, as multiples of the first one's."""

BOTTLENECK = 4
"""The inner width of a layer in multiples of its growth rate: the paper's B."""

COMPRESSION = 0.5
"""The share of the channels that a transition keeps: the paper's C."""


def fit(budget: int, classes: int, size: int) -> Shape:
    """Return the shape that fills 99.5% to 100% of `budget` parameters, for `size` x `size` pixels.

    Raises BudgetExceeded if the smallest net is heavier than the budget.
    """
    layers, strides = _layers(budget), late_strides(size)

    def count(widths: Widths) -> int:
        return parameters(_shape(widths, layers, strides), classes)

    return _shape(fit_widths("densenet", count, _proportions(layers), budget, smallest=2), layers, strides)


def parameters(shape: Shape, classes: int) -> int:
    """Count the parameters that the net of `build` has when it is deployed."""
    inputs, total = 3, 0
    factor: int = shape["bottleneck"]
    kernels = [3] + [1] * len(shape["transitions"])
    entries = [shape["stem"], *shape["transitions"]]
    for kernel, width, growth, layers in zip(kernels, entries, shape["growths"], shape["layers"], strict=True):
        total += conv_bn_parameters(inputs, width, kernel)
        inputs = width
        for _ in range(layers):
            total += conv_bn_parameters(inputs, factor * growth, 1)
            total += conv_bn_parameters(factor * growth, growth)
            inputs += growth
    return total + linear_parameters(inputs, classes)


def build(shape: Shape, classes: int) -> StagedNet:
    """Build the net from `shape`.

    "stem" is the width of the first convolution, "transitions" holds those of the pointwise layers between the
    dense blocks, "growths" and "layers" the growth rate and the number of layers of each block, "bottleneck"
    the inner width of a layer in multiples of its growth rate, and "strides" the strides of the stem and of the
    pooling before each block.
    """
    width: int = shape["stem"]
    stem_stride, first_stride, *strides = shape["strides"]
    head: list[nn.Module] = [conv_bn(3, width, stride=stem_stride)]
    if first_stride > 1:
        head.append(nn.MaxPool2d(3, first_stride, padding=1))
    stages: list[nn.Module] = []
    for growth, layers in zip(shape["growths"], shape["layers"], strict=True):
        if stages:
            width, inputs = shape["transitions"][len(stages) - 1], width
            head = [transition(inputs, width, strides[len(stages) - 1])]
        bottleneck = shape["bottleneck"] * growth
        body = [DenseLayer(width + growth * position, bottleneck, growth) for position in range(layers)]
        width += growth * layers
        stages.append(nn.Sequential(*head, *body))
    return StagedNet(stages, width, classes)


class DenseLayer(nn.Module):
    """Pointwise bottleneck and 3 x 3 convolution, whose output joins the input.

    Maps [N, inputs, H, W] to [N, inputs + growth, H, W].
    """

    def __init__(self, inputs: int, bottleneck: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(conv_bn(inputs, bottleneck, kernel=1), conv_bn(bottleneck, growth))

    def forward(self, maps: Tensor) -> Tensor:
        """Map [N, inputs, H, W] to [N, inputs + growth, H, W]."""
        return torch.cat((maps, self.layers(maps)), 1)


def transition(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    """Return a pointwise layer and average pooling: [N, inputs, H, W] to [N, outputs, ceil(H / stride), ...]."""
    return nn.Sequential(
        conv_bn(inputs, outputs, kernel=1),
        nn.AvgPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity(),
    )


def _layers(budget: int) -> tuple[int, int, int, int]:
    """Return the number of layers of each dense block: a heavier net is also a deeper one."""
    if budget < 15_000:
        return 1, 2, 2, 3
    if budget < 150_000:
        return 2, 3, 4, 6
    return 4, 6, 8, 10


def _proportions(layers: tuple[int, ...]) -> list[float]:
    """Return stem, transitions and growth rates, as multiples of the first growth rate.

    The stem is twice as wide as the growth rate, and each transition keeps COMPRESSION of its inputs.
    """
    width = 2.0
    entries = [width]
    for growth, repeats in zip(GROWTHS[:-1], layers, strict=False):
        width = COMPRESSION * (width + growth * repeats)
        entries.append(width)
    return [*entries, *GROWTHS]


def _shape(widths: Widths, layers: tuple[int, ...], strides: list[int]) -> Shape:
    """Lay out the widths in the order of `_proportions`."""
    stem, *transitions = widths[: len(layers)]
    growths = list(widths[len(layers) :])
    return {
        "stem": stem,
        "transitions": transitions,
        "growths": growths,
        "layers": list(layers),
        "bottleneck": BOTTLENECK,
        "strides": strides,
    }


FAMILY = Family("densenet", PAPER, fit, build)
