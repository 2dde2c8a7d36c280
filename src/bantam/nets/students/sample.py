"""The course's network, from the sample code of its exercise: 59,723 parameters for 11 classes.

Source: the sample code of homework 13 of Hung-yi Lee's Machine Learning, 2022, National Taiwan University.
"""

import itertools

from torch import nn

from bantam.errors import BadRecipe, BudgetExceeded
from bantam.nets.family import Family
from bantam.nets.fit import Shape
from bantam.nets.output import StagedNet

PAPER = "Sample code of homework 13, Machine Learning, National Taiwan University, 2022"

WIDTHS = (4, 16, 64, 84)

SMALLEST_SIZE = 24
"""Below this, in pixels, the unpadded convolutions and the three poolings leave no map."""


def fit(budget: int, classes: int, size: int) -> Shape:
    """Return the one shape there is: the widths of the sample code, whatever the budget above its weight.

    Raises BudgetExceeded if the budget is smaller than the net, and BadRecipe if `size`, in pixels, is too
    small for its poolings.
    """
    if size < SMALLEST_SIZE:
        raise BadRecipe(f"an input of {size} px is too small for sample: give it at least {SMALLEST_SIZE} px")
    needed = parameters(classes)
    if needed > budget:
        raise BudgetExceeded(
            f"sample has a fixed size and needs {needed:,} parameters for {classes} classes, the budget is "
            f"{budget:,}: raise the budget or choose another family"
        )
    return {"widths": list(WIDTHS)}


def parameters(classes: int) -> int:
    """Count the parameters: convolutions with bias, BatchNorm's scale and shift, and the classifier."""
    channels = (3, *WIDTHS)
    body = sum(9 * i * o + 3 * o for i, o in itertools.pairwise(channels))
    return body + (WIDTHS[-1] + 1) * classes


def build(shape: Shape, classes: int) -> StagedNet:
    """Build the net from `shape`, {"widths": four channel counts}."""
    first, second, third, fourth = shape["widths"]
    stages = [
        nn.Sequential(_conv(3, first), _conv(first, second), nn.MaxPool2d(2)),  # [N, 16, H/2 - 2, W/2 - 2]
        nn.Sequential(_conv(second, third), nn.MaxPool2d(2)),  # [N, 64, H/4 - 2, W/4 - 2]
        nn.Sequential(_conv(third, fourth), nn.MaxPool2d(2)),  # [N, 84, H/8 - 2, W/8 - 2]
    ]
    return StagedNet(stages, fourth, classes)


def _conv(inputs: int, outputs: int) -> nn.Sequential:
    """Return an unpadded 3 x 3 convolution, with the bias that the sample code leaves in, BN and ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


FAMILY = Family("sample", PAPER, fit, build, folds=False)
