"""MobileOne: a MobileNet that trains with parallel branches and ships without them.

Vasu et al., "MobileOne: An Improved One millisecond Mobile Backbone", CVPR 2023, arXiv:2206.04040, after Ding
et al., "RepVGG", CVPR 2021, arXiv:2101.03697. While it trains, each depthwise 3 x 3 convolution stands beside
a depthwise 1 x 1 (the paper's scale branch), and each pointwise one and the stem beside a twin; every branch has
its own BatchNorm, and where input and output have the same shape BatchNorm alone is one branch more. Deployed,
the net is a MobileNet: it takes shape and weight from there.
"""

from torch import nn

from bantam.nets.blocks import ParallelConv
from bantam.nets.family import Family
from bantam.nets.fit import Shape
from bantam.nets.output import StagedNet
from bantam.nets.students import mobilenet_v1

PAPER = "Vasu et al., MobileOne, CVPR 2023, arXiv:2206.04040"

parameters = mobilenet_v1.parameters


def fit(budget: int, classes: int, size: int) -> Shape:
    """Return the shape that fills 99.5% to 100% of `budget` parameters, for `size` x `size` pixels.

    Raises BudgetExceeded if the smallest net is heavier than the budget.
    """
    return mobilenet_v1.fit(budget, classes, size, family="reparam")


def build(shape: Shape, classes: int) -> StagedNet:
    """Build the net as it trains, from a shape of `mobilenet_v1`.

    "stem" is the width of the first convolution, "stages" holds the width of each block stage by stage, and
    "strides" those of the stem and of the first block of each stage.
    """
    width: int = shape["stem"]
    stem_stride, *stage_strides = shape["strides"]
    stages: list[nn.Module] = []
    # The stem has a twin and no pointwise branch: with 3 channels, channels_last and a stride, the gradient of a
    # pointwise convolution's weights writes out of bounds on CPUs (oneDNN, in torch 2.14).
    layers = [nn.Sequential(ParallelConv(3, width, (3, 3), stem_stride), nn.ReLU(inplace=True))]
    for blocks, first_stride in zip(shape["stages"], stage_strides, strict=True):
        for position, outputs in enumerate(blocks):
            layers.append(branched_separable(width, outputs, stride=first_stride if position == 0 else 1))
            width = outputs
        stages.append(nn.Sequential(*layers))
        layers = []
    return StagedNet(stages, width, classes)


def branched_separable(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Depthwise 3 x 3, then pointwise convolution, each of several branches and with ReLU after their sum.

    Maps [N, inputs, H, W] to [N, outputs, ceil(H / stride), ceil(W / stride)].
    """
    return nn.Sequential(
        ParallelConv(inputs, inputs, (3, 1), stride, groups=inputs, identity=stride == 1),
        nn.ReLU(inplace=True),
        ParallelConv(inputs, outputs, (1, 1), identity=inputs == outputs),
        nn.ReLU(inplace=True),
    )


FAMILY = Family("reparam", PAPER, fit, build)
