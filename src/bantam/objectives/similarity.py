"""Similarity-preserving distillation: images alike to the teacher are alike to the student."""

from typing import ClassVar

import torch
from torch import Tensor

from bantam.nets.output import Output
from bantam.objectives.features import last_stages, unit
from bantam.objectives.hyperparameters import require_positive, require_whole
from bantam.objectives.objective import Objective, full_precision


def similarity_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """1 / N^2 * ||G(student) - G(teacher)||^2 (Frobenius), G = A A^T with every row divided by its length.

    A is the batch's features with each image's flattened to one row. Sizes and channels of the two nets need
    not agree. Invariant to the scale of either net's features. Source: Tung and Mori, "Similarity-Preserving
    Knowledge Distillation", ICCV 2019, equations 1 to 4.

    Args:
        student: features [N, C, H, W].
        teacher: features [N, C', H', W'].

    Returns:
        A scalar in 0..2; 0 for a batch of one.
    """
    return (similarities(student) - similarities(teacher)).square().mean()


def similarities(features: Tensor) -> Tensor:
    """[N, C, H, W] to G [N, N], rows of unit length."""
    rows = full_precision(features).flatten(1)  # [N, C H W]
    return unit(rows @ rows.T)


class Similarity(Objective):
    """Similarities in the last `stages` stages, paired from the classifier backwards and averaged."""

    paper: ClassVar[str] = "Tung and Mori, Similarity-Preserving Knowledge Distillation, ICCV 2019"
    needs: ClassVar[frozenset[str]] = frozenset({"features"})

    def __init__(self, stages: int = 1) -> None:
        super().__init__()
        require_whole(stages=stages)
        require_positive(stages=stages)
        self.stages = stages

    def terms(
        self, student: Output, teacher: Output | None, targets: Tensor, progress: float | Tensor
    ) -> dict[str, Tensor]:
        pairs = last_stages("similarity", student, self.taught_by(teacher), self.stages)
        return {"similarity": torch.stack([similarity_loss(ours, theirs) for ours, theirs in pairs]).mean()}
