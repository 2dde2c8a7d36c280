"""Deep mutual learning: students of one cohort teach one another while they train."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from bantam.nets.output import Output
from bantam.objectives.objective import Objective, full_precision


def mutual_divergence(student_logits: Tensor, peer_logits: Tensor) -> Tensor:
    """1 / (N P) * sum_n sum_p KL(softmax(peer_pn) || softmax(student_n)), without temperature.

    Source: Zhang et al., "Deep Mutual Learning", CVPR 2018, equations 4 to 6 for one peer and 8 for a cohort
    of P + 1 students.

    Args:
        student_logits: [N, K].
        peer_logits: [N, K] of one peer, or [P, N, K] of several, for the same views and in the same step.

    Returns:
        A scalar of at least 0, in nats.
    """
    log_q = F.log_softmax(full_precision(student_logits), dim=-1)
    log_p = F.log_softmax(full_precision(peer_logits), dim=-1)
    divergence = F.kl_div(log_q.expand_as(log_p), log_p, reduction="none", log_target=True)  # [..., N, K]
    return divergence.sum(dim=-1).mean()


class DML(Objective):
    """One student's view of its cohort: `teacher.logits` are its peers', [N, K] or [P, N, K].

    The peers' logits count as constants, so each student follows its own loss, as in the paper's algorithm 1.
    """

    paper: ClassVar[str] = "Zhang et al., Deep Mutual Learning, CVPR 2018"
    needs_peers: ClassVar[bool] = True

    def terms(
        self, student: Output, teacher: Output | None, targets: Tensor, progress: float | Tensor
    ) -> dict[str, Tensor]:
        return {"dml": mutual_divergence(student.logits, self.taught_by(teacher).logits)}
