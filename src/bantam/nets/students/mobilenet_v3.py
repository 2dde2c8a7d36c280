"""MobileNetV3: inverted residuals with squeeze-excite, hard-swish and 5 x 5 kernels.

Howard et al., "Searching for MobileNetV3", 2019, arXiv:1905.02244. Here the 5 x 5 kernels and the squeeze-excites
sit in the same stages, the second and the last of four, and the deeper half has hard-swish. In the paper's large
net both are in the stages of 40 and 160 channels too, but its blocks of 112 channels have squeeze-excites with
3 x 3 kernels; hard-swish begins at 80 channels, in its deeper half. A squeeze-excite is a quarter as wide as its
block's outside, not inside, and has hard-swish within for the paper's ReLU. Depth, widths and strides are chosen
for small inputs and budgets. The last pointwise layer stays before the pooling and the hidden
layer behind it is left out: the paper moves the one to save time, and the other would take most of the budget.
"""

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

PAPER = "Howard et al., Searching for MobileNetV3, 2019, arXiv:1905.02244"

PROPORTIONS = (1.25, 1.0, 1.5, 2.25, 3.25, 9.0)
"""Widths of the stem, the four stages and the last layer, as multiples of the first stage's."""

EXPANSION = 4
"""How much wider a block is inside; the paper's search chose between 2.3 and 6."""

KERNELS = (3, 5, 3, 5)
"""The depthwise kernel of each stage; where it is 5, the blocks have squeeze-excite too."""

ACTIVATIONS = {"relu": nn.ReLU, "hardswish": nn.Hardswish}


def fit(budget: int, classes: int, size: int) -> Shape:
    """Return the shape that fills 99.5% to 100% of `budget` parameters, for `size` x `size` pixels.

    Raises BudgetExceeded if the smallest net is heavier than the budget.
    """
    blocks, strides = _blocks(budget), late_strides(size)

    def count(widths: Widths) -> int:
        return parameters(_shape(widths, blocks, strides), classes)

    return _shape(fit_widths("mobilenet_v3", count, PROPORTIONS, budget), blocks, strides)


def parameters(shape: Shape, classes: int) -> int:
    """Count the parameters that the net of `build` has when it is deployed."""
    width: int = shape["stem"]
    total = conv_bn_parameters(3, width)
    for stage in shape["stages"]:
        for expanded, squeezed, outputs in stage["blocks"]:
            total += inverted_residual_parameters(width, expanded, outputs, stage["kernel"], squeezed)
            width = outputs
    return total + conv_bn_parameters(width, shape["last"], 1) + linear_parameters(shape["last"], classes)


def build(shape: Shape, classes: int) -> StagedNet:
    """Build the net from `shape`.

    "stem" is the width of the first convolution. Each of "stages" has a "kernel" size, an "activation" (relu or
    hardswish) and "blocks" of [inner width, squeezed width or 0, outer width]. "last" is the width of the last
    pointwise layer, and "strides" holds those of the stem and of the first block of each stage.
    """
    width: int = shape["stem"]
    stem_stride, *stage_strides = shape["strides"]
    stages: list[nn.Sequential] = []
    layers: list[nn.Module] = [conv_bn(3, width, stride=stem_stride, activation=nn.Hardswish)]
    for stage, first_stride in zip(shape["stages"], stage_strides, strict=True):
        activation = ACTIVATIONS[stage["activation"]]
        for position, (expanded, squeezed, outputs) in enumerate(stage["blocks"]):
            stride = first_stride if position == 0 else 1
            layers.append(inverted_residual(width, expanded, outputs, stage["kernel"], stride, squeezed, activation))
            width = outputs
        stages.append(nn.Sequential(*layers))
        layers = []
    stages[-1].append(conv_bn(width, shape["last"], kernel=1, activation=nn.Hardswish))
    return StagedNet(stages, shape["last"], classes)


def _blocks(budget: int) -> tuple[int, int, int, int]:
    """Return the number of blocks of each stage: a heavier net is also a deeper one."""
    if budget < 15_000:
        return 1, 1, 2, 2
    if budget < 150_000:
        return 1, 2, 3, 3
    return 1, 3, 4, 4


def _shape(widths: Widths, blocks: tuple[int, ...], strides: list[int]) -> Shape:
    """Lay out the widths: as in the paper, the very first block does not expand.

    A squeeze-excite has a quarter of the block's outer width; the paper's quarter of the inner width would
    take as many parameters as all pointwise layers.
    """
    stem, *outer, last = widths
    stages: list[Shape] = []
    width, expansion = stem, 1
    for position, (outputs, repeats, kernel) in enumerate(zip(outer, blocks, KERNELS, strict=True)):
        rows: list[list[int]] = []
        for _ in range(repeats):
            rows.append([expansion * width, outputs // 4 if kernel == 5 else 0, outputs])
            width, expansion = outputs, EXPANSION
        activation = "relu" if position < len(blocks) // 2 else "hardswish"
        stages.append({"kernel": kernel, "activation": activation, "blocks": rows})
    return {"stem": stem, "stages": stages, "last": last, "strides": strides}


FAMILY = Family("mobilenet_v3", PAPER, fit, build)
