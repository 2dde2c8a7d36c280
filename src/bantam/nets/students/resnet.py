"""Torchvision's ResNets with the face of a student: far above any budget here, they make the weight by pruning.

He et al., "Deep Residual Learning for Image Recognition", 2015, arXiv:1512.03385. The names of the weights are
torchvision's, so a teacher's state_dict loads strictly.
"""

from collections.abc import Callable
from typing import NoReturn, cast

from torch import nn

from bantam.errors import BudgetExceeded
from bantam.nets.family import Family
from bantam.nets.fit import Shape
from bantam.nets.output import StagedNet

PAPER = "He et al., Deep Residual Learning, 2015, arXiv:1512.03385"


class ResNet(StagedNet):
    """A torchvision ResNet of `classes` logits: maps [N, 3, H, W] to [N, classes]."""

    def __init__(self, name: str, classes: int) -> None:
        nn.Module.__init__(self)  # the stages keep torchvision's names instead of StagedNet's
        import torchvision  # Brings torch's compiler with it: seconds, which other students do without.

        net = torchvision.models.get_model(name, weights=None, num_classes=classes)
        for part in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4", "fc"):
            self.add_module(part, getattr(net, part))

    @property
    def stages(self) -> nn.Sequential:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The four stages, the first with the stem."""
        parts = dict(self.named_children())
        first = nn.Sequential(*(parts[name] for name in ("conv1", "bn1", "relu", "maxpool", "layer1")))
        return nn.Sequential(first, *(parts[name] for name in ("layer2", "layer3", "layer4")))

    @property
    def head(self) -> nn.Linear:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The classifier, or what stands in its place: on integers, or with compressed rows."""
        return cast(nn.Linear, self.get_submodule("fc"))


def builder(name: str) -> Callable[[Shape, int], StagedNet]:
    """Return the builder of torchvision's `name`, whose shape is always the same: the empty dict."""

    def build(shape: Shape, classes: int) -> StagedNet:
        return ResNet(name, classes)

    return build


def never_fits(budget: int, classes: int, size: int) -> NoReturn:
    """Raises BudgetExceeded: there is only one size of this net."""
    raise BudgetExceeded("a ResNet comes in one size: prune it to the budget with a stage of kind prune")


RESNET18, RESNET34, RESNET50 = (
    Family(name, PAPER, never_fits, builder(name), folds=False) for name in ("resnet18", "resnet34", "resnet50")
)
