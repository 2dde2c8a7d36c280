"""Knowledge distillation: the student matches the teacher's softened distribution."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from bantam.nets.output import Output
from bantam.objectives.hyperparameters import require_flag, require_positive
from bantam.objectives.objective import Objective, full_precision
from bantam.objectives.standardization import standardized
from bantam.objectives.supervised import cross_entropy


def kd_divergence(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T^2 / N * sum_n KL(p_n || q_n), p = softmax(teacher / T), q = softmax(student / T).

    The factor T^2 keeps the size of the gradient independent of the temperature (Hinton, Vinyals and Dean,
    "Distilling the Knowledge in a Neural Network", 2015, section 2.1). Log-probabilities are used on both
    sides, so that probabilities that underflow cost nothing.

    Args:
        student_logits: [N, K].
        teacher_logits: [N, K].
        temperature: T above 0.

    Returns:
        A scalar of at least 0, in nats times T^2.
    """
    log_q = F.log_softmax(full_precision(student_logits) / temperature, dim=1)
    log_p = F.log_softmax(full_precision(teacher_logits) / temperature, dim=1)
    return temperature**2 * F.kl_div(log_q, log_p, reduction="batchmean", log_target=True)


def loss_fn_kd(
    student_logits: Tensor,
    labels: Tensor,
    teacher_logits: Tensor,
    alpha: float = 0.5,
    temperature: float = 1.0,
) -> Tensor:
    """alpha * T^2 * KL(teacher || student, both softened by T, batch mean) + (1 - alpha) * cross-entropy.

    The teacher's logits are taken as constants. Source: Hinton, Vinyals and Dean 2015.

    Args:
        student_logits: [N, K].
        labels: integer labels [N], or class probabilities [N, K].
        teacher_logits: [N, K] for the same views.
        alpha: share of the teacher, 0..1.
        temperature: T above 0; a higher one softens both distributions.

    Returns:
        A scalar.
    """
    soft = kd_divergence(student_logits, teacher_logits.detach(), temperature)
    return alpha * soft + (1 - alpha) * cross_entropy(student_logits, labels)


class KD(Objective):
    """Hinton's distillation term alone; `supervised` is its own objective.

    `standardize` divides each image's logits by their spread first (see `standardization`); `temperature`
    then acts on logits of unit variance, and 2 is a usual value.
    """

    paper: ClassVar[str] = "Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, 2015"

    def __init__(self, temperature: float = 4.0, standardize: bool = False) -> None:
        super().__init__()
        require_positive(temperature=temperature)
        require_flag(standardize=standardize)
        self.temperature = temperature
        self.standardize = standardize

    def terms(
        self, student: Output, teacher: Output | None, targets: Tensor, progress: float | Tensor
    ) -> dict[str, Tensor]:
        student_logits, teacher_logits = student.logits, self.taught_by(teacher).logits
        if self.standardize:
            student_logits, teacher_logits = standardized(student_logits), standardized(teacher_logits)
        return {"kd": kd_divergence(student_logits, teacher_logits, self.temperature)}
