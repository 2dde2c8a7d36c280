"""Several nets that train together: on the same views, in the same steps, each with a loss of its own."""

from collections.abc import Sequence

from torch import Tensor, nn


class Cohort(nn.Module):
    """Peers for deep mutual learning (Zhang et al., 2018, arXiv:1706.00384), as one module with all their weights.

    As a net it answers with the mean of its members' log-probabilities; training and selection look at each by itself.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    @staticmethod
    def of(nets: Sequence[nn.Module]) -> nn.Module:
        """A cohort of several nets; a single one as it is."""
        return nets[0] if len(nets) == 1 else Cohort(nets)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images [N, 3, H, W] to logits [N, K]."""
        answers: list[Tensor] = [member(images).log_softmax(1) for member in self.members]
        return sum(answers[1:], answers[0]) / len(answers)


def members_of(net: nn.Module) -> list[nn.Module]:
    """The nets of a cohort; of any other net, the net itself."""
    return list(net.members) if isinstance(net, Cohort) else [net]
