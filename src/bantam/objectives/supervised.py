"""Learning from the labels: cross-entropy with soft targets."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from bantam.nets.output import Output
from bantam.objectives.hyperparameters import require_share
from bantam.objectives.objective import Objective, full_precision, labelled_mean


def cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean over the labelled images of -sum_k t'_k log softmax(logits)_k, with t' = (1 - s) t + s / K.

    An image without a label counts neither in the sum nor in the number that divides it, so that the labels' weight
    against the teacher's does not depend on how many such images there are; with none labelled the mean is 0.

    Args:
        logits: [N, K].
        targets: integer labels [N], or class probabilities [N, K] whose rows sum to 1, or are 0 for no label.
        label_smoothing: s in 0..1, the share of the target spread over all K classes (Szegedy et al.,
            "Rethinking the Inception Architecture for Computer Vision", CVPR 2016, section 7).

    Returns:
        A scalar in nats.
    """
    logits = full_precision(logits)
    if targets.ndim == 1:
        return F.cross_entropy(logits, targets.long(), label_smoothing=label_smoothing)
    each = F.cross_entropy(logits, targets.to(logits.dtype), reduction="none", label_smoothing=label_smoothing)  # [N]
    return labelled_mean(each, targets)


class Supervised(Objective):
    """The labels, mixed where the view is mixed, as the only teacher."""

    paper: ClassVar[str] = "Szegedy et al., Rethinking the Inception Architecture, CVPR 2016 (label smoothing)"
    needs_teacher: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset()
    of_labels: ClassVar[frozenset[str]] = frozenset({"cross_entropy"})

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        require_share(label_smoothing=label_smoothing)
        self.label_smoothing = label_smoothing

    def terms(
        self, student: Output, teacher: Output | None, targets: Tensor, progress: float | Tensor
    ) -> dict[str, Tensor]:
        return {"cross_entropy": cross_entropy(student.logits, targets, self.label_smoothing)}
