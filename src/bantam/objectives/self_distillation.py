"""Self-distillation: the early exits of a net learn from the labels, from the teacher, and from the net's own end."""

from typing import ClassVar

from torch import Tensor

from bantam.nets.output import Output
from bantam.objectives.hyperparameters import require_not_negative, require_positive
from bantam.objectives.kd import kd_divergence
from bantam.objectives.objective import Objective
from bantam.objectives.supervised import cross_entropy


def exit_loss(
    exit_logits: Tensor,
    targets: Tensor,
    deepest_logits: Tensor,
    teacher_logits: Tensor | None,
    temperature: float,
    labels: float,
    deepest: float,
    teacher: float,
) -> Tensor:
    """labels * CE(targets, e) + deepest * T^2 KL(d || e) + teacher * T^2 KL(t || e), of one exit's logits e.

    Source: Zhang et al., "Be Your Own Teacher", ICCV 2019, arXiv:1905.08094, equation 5, without its hints on feature
    maps and with the teacher of the net itself as a further source. The deepest classifier's logits d are a constant,
    as the teacher's t are: the end shall not move towards its weaker exits.

    Args:
        exit_logits: [N, K].
        targets: class probabilities [N, K], or integer labels [N].
        deepest_logits: [N, K] of the net's end, for the same views.
        teacher_logits: [N, K], or None; then its term is left out.
        temperature: T above 0, of both divergences.
        labels, deepest, teacher: weights of at least 0.

    Returns:
        A scalar of at least 0.
    """
    loss = labels * cross_entropy(exit_logits, targets)
    loss = loss + deepest * kd_divergence(exit_logits, deepest_logits.detach(), temperature)
    if teacher_logits is not None:
        loss = loss + teacher * kd_divergence(exit_logits, teacher_logits.detach(), temperature)
    return loss


class SelfDistillation(Objective):
    """A term for each early exit: its `exit_loss` over the number of exits, so that the terms add up to the mean.

    A net without exits has nothing to learn here, and no term.
    """

    paper: ClassVar[str] = "Zhang et al., Be Your Own Teacher, ICCV 2019, arXiv:1905.08094"
    needs_teacher: ClassVar[bool] = False

    def __init__(
        self, temperature: float = 2.0, labels: float = 0.2, deepest: float = 0.4, teacher: float = 0.4
    ) -> None:
        super().__init__()
        require_positive(temperature=temperature)
        require_not_negative(labels=labels, deepest=deepest, teacher=teacher)
        self.temperature = temperature
        self.labels, self.deepest, self.teacher = labels, deepest, teacher

    def terms(
        self, student: Output, teacher: Output | None, targets: Tensor, progress: float | Tensor
    ) -> dict[str, Tensor]:
        known = None if teacher is None else teacher.logits
        weights = (self.temperature, self.labels, self.deepest, self.teacher)
        return {
            f"exit_{number}": exit_loss(logits, targets, student.logits, known, *weights) / len(student.exits)
            for number, logits in enumerate(student.exits, 1)
        }
