"""DIST: the student's predictions need only correlate with the teacher's, by image and by class."""

from typing import ClassVar

from torch import Tensor

from bantam.nets.output import Output
from bantam.objectives.features import unit
from bantam.objectives.hyperparameters import require_not_negative, require_positive
from bantam.objectives.objective import Objective, full_precision

CONSTANT = 1e-6
"""Probabilities whose centred vector is not longer than this are constant up to rounding."""


def dist_relations(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """T^2 (1 - mean_n r(q_n., p_n.)) and T^2 (1 - mean_k r(q_.k, p_.k)), r being Pearson's correlation.

    q and p are the student's and the teacher's softmax at temperature T. The first relation is between the
    classes of one image, the second between the images within one class. A correlation asks for less than
    equality, which suits a teacher that is much stronger than its student. A vector that is constant has
    correlation 0, and no
    gradient: in a batch of one, every class. Source: Huang et al., "Knowledge Distillation from A Stronger
    Teacher", NeurIPS 2022, equations 6 to 9.

    Args:
        student_logits: [N, K].
        teacher_logits: [N, K].
        temperature: T above 0.

    Returns:
        The inter-class and the intra-class relation, each a scalar in 0..2 T^2.
    """
    q = (full_precision(student_logits) / temperature).softmax(dim=1)
    p = (full_precision(teacher_logits) / temperature).softmax(dim=1)
    inter = 1 - correlation(q, p).mean()
    intra = 1 - correlation(q.T, p.T).mean()
    return temperature**2 * inter, temperature**2 * intra


def correlation(first: Tensor, second: Tensor) -> Tensor:
    """Pearson's correlation of each row of two matrices [R, C]: [R]."""
    first = first - first.mean(dim=1, keepdim=True)
    second = second - second.mean(dim=1, keepdim=True)
    return (unit(first, CONSTANT) * unit(second, CONSTANT)).sum(dim=1)


class DIST(Objective):
    """`beta` times the inter-class and `gamma` times the intra-class relation."""

    paper: ClassVar[str] = "Huang et al., Knowledge Distillation from A Stronger Teacher, NeurIPS 2022"

    def __init__(self, beta: float = 1.0, gamma: float = 1.0, temperature: float = 1.0) -> None:
        super().__init__()
        require_not_negative(beta=beta, gamma=gamma)
        require_positive(temperature=temperature)
        self.beta = beta
        self.gamma = gamma
        self.temperature = temperature

    def terms(
        self, student: Output, teacher: Output | None, targets: Tensor, progress: float | Tensor
    ) -> dict[str, Tensor]:
        inter, intra = dist_relations(student.logits, self.taught_by(teacher).logits, self.temperature)
        return {"dist_inter": self.beta * inter, "dist_intra": self.gamma * intra}
