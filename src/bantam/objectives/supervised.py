"""Learning from the labels: cross-entropy with soft targets."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from bantam.nets.output import Output
from bantam.objectives.hyperparameters import require_share
from bantam.objectives.objective import Objective, full_precision


def cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean over the batch of -sum_k t'_k log softmax(logits)_k, with t' = (1 - s) t + s / K.

    Args:
        logits: [N, K].
        targets: integer labels [N], or class probabilities [N, K] whose rows sum to 1.
        label_smoothing: s in 0..1, the share of the target spread over all K classes (Szegedy et al.,
            "Rethinking the Inception Architecture for Computer Vision", CVPR 2016, section 7).

    Returns:
        A scalar in nats.
    """
    logits = full_precision(logits)
    targets = targets.to(logits.dtype) if targets.ndim == 2 else targets.long()
    return F.cross_entropy(logits, targets, label_smoothing=label_smoothing)


class Supervised(Objective):
    """The labels, mixed where the view is mixed, as the only teacher."""

    paper: ClassVar[str] = "Szegedy et al., Rethinking the Inception Architecture, CVPR 2016 (label smoothing)"
    needs_teacher: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        require_share(label_smoothing=label_smoothing)
        self.label_smoothing = label_smoothing

    def terms(
        self, student: Output, teacher: Output | None, targets: Tensor, progress: float | Tensor
    ) -> dict[str, Tensor]:
        return {"cross_entropy": cross_entropy(student.logits, targets, self.label_smoothing)}
