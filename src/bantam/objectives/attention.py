"""Attention transfer: the student looks where the teacher looks."""

from typing import ClassVar

import torch
from torch import Tensor

from bantam.nets.output import Output
from bantam.objectives.features import last_stages, to_common_size, unit
from bantam.objectives.hyperparameters import require_positive, require_whole
from bantam.objectives.objective import Objective, full_precision


def attention_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """1 / N * sum_n ||Q_n(student) - Q_n(teacher)||^2, Q = vec(mean_c A_c^2) / ||vec(mean_c A_c^2)||.

    The maps are average-pooled to the smaller of the two sizes, h x w, before they are made unit vectors; the
    authors' code wants equal sizes, and RepDistiller's pools the features, before they are squared. The squared
    distance is the authors' code's; the paper's equation 2 has it without the square. Their code takes its mean
    over the positions too: this loss is h * w times theirs, so that a weight does not depend on the size of the
    maps. Invariant to the scale of either net's features. A map that is zero everywhere has no direction: it counts
    as Q = 0. Source:
    Zagoruyko and Komodakis, "Paying More Attention to Attention", ICLR 2017, activation-based attention with
    p = 2.

    Args:
        student: features [N, C, H, W].
        teacher: features [N, C', H', W'].

    Returns:
        A scalar in 0..2.
    """
    ours, theirs = to_common_size(energy(student), energy(teacher))  # [N, h, w]
    return (unit(ours.flatten(1)) - unit(theirs.flatten(1))).square().sum(dim=1).mean()


def energy(features: Tensor) -> Tensor:
    """[N, C, H, W] to the mean square over channels [N, H, W]."""
    return full_precision(features).square().mean(dim=1)


class Attention(Objective):
    """Attention maps of the last `stages` stages, paired from the classifier backwards and averaged.

    The authors' code sums over the stages and weighs the sum with beta = 1000. With S = `stages`, all of h x w, that
    is a weight of 1000 * S / (h * w) here: 47 for three stages of 8 x 8.
    """

    paper: ClassVar[str] = "Zagoruyko and Komodakis, Paying More Attention to Attention, ICLR 2017"
    needs: ClassVar[frozenset[str]] = frozenset({"features"})

    def __init__(self, stages: int = 3) -> None:
        super().__init__()
        require_whole(stages=stages)
        require_positive(stages=stages)
        self.stages = stages

    def terms(
        self, student: Output, teacher: Output | None, targets: Tensor, progress: float | Tensor
    ) -> dict[str, Tensor]:
        pairs = last_stages("attention", student, self.taught_by(teacher), self.stages)
        return {"attention": torch.stack([attention_loss(ours, theirs) for ours, theirs in pairs]).mean()}
