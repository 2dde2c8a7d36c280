"""Self-distillation: the early exits of a net learn from the labels, from the teacher, and from the net's own end."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from bantam.nets.output import Output
from bantam.objectives.hyperparameters import require_not_negative, require_positive
from bantam.objectives.kd import kd_divergence
from bantam.objectives.objective import Objective
from bantam.objectives.supervised import cross_entropy


def exit_loss(
    exit_logits: Tensor,
    deepest_logits: Tensor,
    teacher_logits: Tensor | None,
    temperature: float,
    deepest: float,
    teacher: float,
) -> Tensor:
    """deepest * T^2 KL(d || e) + teacher * T^2 KL(t || e), of one exit's logits e.

    Source: Zhang et al., "Be Your Own Teacher", ICCV 2019, arXiv:1905.08094, equation 5, without its hints on feature
    maps and with the teacher of the net itself as a further source; its term of the labels is `labels_loss`. The
    deepest classifier's logits d are a constant, as the teacher's t are: the end shall not move towards its weaker
    exits.

    Args:
        exit_logits: [N, K].
        deepest_logits: [N, K] of the net's end, for the same views.
        teacher_logits: [N, K], or None; then its term is left out.
        temperature: T above 0, of both divergences.
        deepest, teacher: weights of at least 0.

    Returns:
        A scalar of at least 0.
    """
    loss = deepest * kd_divergence(exit_logits, deepest_logits.detach(), temperature)
    if teacher_logits is not None:
        loss = loss + teacher * kd_divergence(exit_logits, teacher_logits.detach(), temperature)
    return loss


def labels_loss(exits: Sequence[Tensor], targets: Tensor) -> Tensor:
    """The mean over the exits, each of logits [N, K], of the `cross_entropy` with targets [N, K] or [N]: a scalar.

    A term of its own, because it is a mean over the labelled images alone.
    """
    return torch.stack([cross_entropy(logits, targets) for logits in exits]).mean()


class SelfDistillation(Objective):
    """A term for each early exit, its `exit_loss` over the number of exits, and one for the labels of all of them.

    So the terms add up to the mean over the exits. A net without exits has nothing to learn here, and no term.
    """

    paper: ClassVar[str] = "Zhang et al., Be Your Own Teacher, ICCV 2019, arXiv:1905.08094"
    needs_teacher: ClassVar[bool] = False
    of_labels: ClassVar[frozenset[str]] = frozenset({"exits_labels"})

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
        if not student.exits:
            return {}
        known = None if teacher is None else teacher.logits
        weights = (self.temperature, self.deepest, self.teacher)
        terms = {
            f"exit_{number}": exit_loss(logits, student.logits, known, *weights) / len(student.exits)
            for number, logits in enumerate(student.exits, 1)
        }
        return terms | {"exits_labels": self.labels * labels_loss(student.exits, targets)}

    def follows(self) -> bool:
        return self.teacher > 0
