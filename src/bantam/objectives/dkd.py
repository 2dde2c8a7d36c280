"""Decoupled knowledge distillation: how sure of the target class, and how the other classes rank."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from bantam.nets.output import Output
from bantam.objectives.hyperparameters import require_flag, require_not_negative, require_positive
from bantam.objectives.objective import Objective, full_precision, labelled, labelled_mean
from bantam.objectives.standardization import standardized


def dkd_divergences(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """The two parts of distillation for each image: KL(p || q) = TCKD + (1 - p_t) NCKD.

    TCKD = T^2 KL([p_t, 1 - p_t] || [q_t, 1 - q_t]) concerns the target class t against all others; NCKD = T^2
    KL(p' || q') the others among themselves, p'_k = p_k / (1 - p_t) for k != t. p and q are the teacher's and
    the student's softmax at temperature T. Plain distillation weighs NCKD by 1 - p_t, so that a teacher sure
    of its answer teaches nothing. Source: Zhao et al., "Decoupled Knowledge Distillation", CVPR 2022,
    equations 5 to 7.

    Args:
        student_logits: [N, K].
        teacher_logits: [N, K].
        labels: integer target classes [N].
        temperature: T above 0.

    Returns:
        TCKD and NCKD, each [N] and at least 0.
    """
    target_q, rest_q, others_q = decoupled(student_logits, labels, temperature)
    target_p, rest_p, others_p = decoupled(teacher_logits, labels, temperature)
    tckd = target_p.exp() * (target_p - target_q) + rest_p.exp() * (rest_p - rest_q)  # [N]
    nckd = F.kl_div(others_q, others_p, reduction="none", log_target=True).sum(dim=1)  # [N]
    return temperature**2 * tckd, temperature**2 * nckd


def decoupled(logits: Tensor, labels: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """log p_t [N], log(1 - p_t) [N], and log p' of the other classes [N, K - 1]."""
    log_p = F.log_softmax(full_precision(logits) / temperature, dim=1)
    classes = log_p.shape[1]
    labels = labels.long().unsqueeze(1)  # [N] -> [N, 1]
    # The classes after the target, wrapping round: its shape is known, where a mask would make a GPU wait.
    others = (labels + torch.arange(1, classes, device=labels.device)) % classes  # [N, K - 1]
    log_others = log_p.gather(1, others)
    log_rest = log_others.logsumexp(dim=1)
    return log_p.gather(1, labels).squeeze(1), log_rest, log_others - log_rest.unsqueeze(1)


class DKD(Objective):
    """`alpha` TCKD and `beta` NCKD, means over images. Of a mixed view the class with the larger share is the target.

    TCKD is about the label, so its mean is over the labelled images alone (see `supervised`). NCKD is about the other
    classes; of an image without a label these are all but the one that the teacher finds most probable.
    `standardize` divides each image's logits by their spread first (see `standardization`).
    """

    paper: ClassVar[str] = "Zhao et al., Decoupled Knowledge Distillation, CVPR 2022"
    of_labels: ClassVar[frozenset[str]] = frozenset({"dkd_target"})

    def __init__(
        self, alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0, standardize: bool = False
    ) -> None:
        super().__init__()
        require_not_negative(alpha=alpha, beta=beta)
        require_positive(temperature=temperature)
        require_flag(standardize=standardize)
        self.alpha = alpha
        self.beta = beta
        self.temperature = temperature
        self.standardize = standardize

    def terms(
        self, student: Output, teacher: Output | None, targets: Tensor, progress: float | Tensor
    ) -> dict[str, Tensor]:
        student_logits, teacher_logits = student.logits, self.taught_by(teacher).logits
        if self.standardize:
            student_logits, teacher_logits = standardized(student_logits), standardized(teacher_logits)
        classes = torch.where(labelled(targets), targets.argmax(dim=1), teacher_logits.argmax(dim=1))  # [N]
        tckd, nckd = dkd_divergences(student_logits, teacher_logits, classes, self.temperature)
        return {"dkd_target": self.alpha * labelled_mean(tckd, targets), "dkd_others": self.beta * nckd.mean()}
