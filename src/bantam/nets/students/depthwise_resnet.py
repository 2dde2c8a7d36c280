"""Depthwise ResNet: residual blocks of separable convolutions, the form that won at 60,000 parameters.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv:1512.03385, with every convolution
replaced by a depthwise and a pointwise one (Chollet, "Xception", CVPR 2017, arXiv:1610.02357): no BN or ReLU
between the two, BN and ReLU after them, nothing after the sum. The shape 16-32-64-128, strided everywhere, is
the best public solution of the course's exercise; `fit` scales it to any budget and shrinks the map late.
"""

from torch import Tensor, nn

from bantam.nets.blocks import linear_parameters
from bantam.nets.family import Family
from bantam.nets.fit import Shape, Widths, fit_widths, late_strides
from bantam.nets.output import StagedNet

PAPER = "He et al., Deep Residual Learning, CVPR 2016, arXiv:1512.03385, with separable convolutions"

PROPORTIONS = (1.0, 2.0, 4.0, 8.0, 8.0)
"""Widths of the four stages and of the last block, as multiples of the first stage's."""

STEM_KERNEL = 7
"""Side of the stem's depthwise kernels, in pixels."""


def fit(budget: int, classes: int, size: int) -> Shape:
    """Return the shape that fills 99.5% to 100% of `budget` parameters, for `size` x `size` pixels.

    Raises BudgetExceeded if the smallest net is heavier than the budget.
    """
    convolutions, strides = _convolutions(budget), late_strides(size)

    def count(widths: Widths) -> int:
        return parameters(_shape(widths, convolutions, strides), classes)

    return _shape(fit_widths("depthwise_resnet", count, PROPORTIONS, budget), convolutions, strides)


def parameters(shape: Shape, classes: int) -> int:
    """Count the parameters that the net of `build` has when it is deployed."""
    body = sum(block_parameters(*block) for stage in _stages(shape) for block in stage)
    stem = separable_parameters(3, shape["stem"], STEM_KERNEL)
    return stem + body + linear_parameters(shape["stages"][-1][-1][0], classes)


def build(shape: Shape, classes: int) -> StagedNet:
    """Build the net from `shape`.

    "stem" is the width of the first convolution, "stages" holds [width, number of convolutions] of each block
    stage by stage, and "strides" those of the stem, of the pooling behind it, and of the first block of each
    stage but the first.
    """
    stem_stride, pool_stride, *_ = shape["strides"]
    stem: list[nn.Module] = [separable(3, shape["stem"], STEM_KERNEL, stem_stride)]
    if pool_stride > 1:
        stem.append(nn.MaxPool2d(3, pool_stride, padding=1))
    first, *others = [[SeparableBlock(*block) for block in stage] for stage in _stages(shape)]
    stages = [nn.Sequential(*stem, *first), *(nn.Sequential(*stage) for stage in others)]
    return StagedNet(stages, shape["stages"][-1][-1][0], classes)


def separable(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Depthwise k x k and pointwise convolution, then BN and ReLU, with nothing between the two.

    Maps [N, inputs, H, W] to [N, outputs, ceil(H / stride), ceil(W / stride)] for odd kernels.
    """
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, kernel, stride, kernel // 2, groups=inputs, bias=False),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def separable_parameters(inputs: int, outputs: int, kernel: int = 3) -> int:
    """Count the parameters that `separable` ships: I * k * k + I * O weights and a bias per output."""
    return inputs * kernel * kernel + inputs * outputs + outputs


class SeparableBlock(nn.Module):
    """Separable convolutions, the first strided, beside a shortcut; their sum is left as it is.

    Maps [N, inputs, H, W] to [N, outputs, ceil(H / stride), ceil(W / stride)]. The shortcut is a separable
    convolution with kernel 1 where the shape changes, and the identity elsewhere.
    """

    def __init__(self, inputs: int, outputs: int, convolutions: int, stride: int) -> None:
        super().__init__()
        others = [separable(outputs, outputs) for _ in range(convolutions - 1)]
        self.layers = nn.Sequential(separable(inputs, outputs, stride=stride), *others)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = separable(inputs, outputs, kernel=1, stride=stride)

    def forward(self, maps: Tensor) -> Tensor:
        return self.layers(maps) + self.shortcut(maps)


def block_parameters(inputs: int, outputs: int, convolutions: int, stride: int) -> int:
    """Count the parameters that `SeparableBlock` ships."""
    total = separable_parameters(inputs, outputs) + (convolutions - 1) * separable_parameters(outputs, outputs)
    if stride > 1 or inputs != outputs:
        total += separable_parameters(inputs, outputs, 1)
    return total


def _stages(shape: Shape) -> list[list[tuple[int, int, int, int]]]:
    """List inputs, outputs, number of convolutions and stride of every block, stage by stage."""
    width: int = shape["stem"]
    stages: list[list[tuple[int, int, int, int]]] = []
    for blocks, stride in zip(shape["stages"], [1, *shape["strides"][2:]], strict=True):
        stage: list[tuple[int, int, int, int]] = []
        for outputs, convolutions in blocks:
            stage.append((width, outputs, convolutions, 1 if stage else stride))
            width = outputs
        stages.append(stage)
    return stages


def _convolutions(budget: int) -> list[list[int]]:
    """Return the number of convolutions of each block, stage by stage: a heavier net is also a deeper one."""
    if budget < 15_000:
        return [[2], [1], [1], [1]]
    if budget < 150_000:
        return [[2, 2], [2, 1, 2], [1, 2], [1, 1]]
    return [[2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2]]


def _shape(widths: Widths, convolutions: list[list[int]], strides: list[int]) -> Shape:
    """Lay out the widths: the stem is as wide as the first stage, the last block has a width of its own."""
    stages = [[[width, number] for number in numbers] for width, numbers in zip(widths, convolutions, strict=False)]
    stages[-1][-1][0] = widths[-1]
    return {"stem": widths[0], "stages": stages, "strides": strides}


FAMILY = Family("depthwise_resnet", PAPER, fit, build)
