import math

import pytest
import torch

from bantam.nets.output import Output
from bantam.objectives.dml import DML, mutual_divergence


def reference(student: torch.Tensor, peers: torch.Tensor) -> float:
    total = 0.0
    for peer in peers.tolist():
        for z, t in zip(student.tolist(), peer, strict=True):
            q = [math.exp(value) / sum(map(math.exp, z)) for value in z]
            p = [math.exp(value) / sum(map(math.exp, t)) for value in t]
            total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return total / (len(peers) * len(student))


def cohort(peers: int = 3, n: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(n, 5, dtype=torch.float64), torch.randn(peers, n, 5, dtype=torch.float64)


def test_matches_the_hand_calculation() -> None:
    student, peers = cohort()
    assert mutual_divergence(student, peers).item() == pytest.approx(reference(student, peers), abs=1e-14)
    assert mutual_divergence(student, peers[0]).item() == pytest.approx(reference(student, peers[:1]), abs=1e-14)


def test_golden_value_and_direction() -> None:
    # Peer (3/4, 1/4), student (1/2, 1/2): KL(peer || student) = 3/4 log(3/2) + 1/4 log(1/2).
    student, peer = (
        torch.zeros(1, 2, dtype=torch.float64),
        torch.tensor([[3.0, 1.0]], dtype=torch.float64).log(),
    )
    assert mutual_divergence(student, peer).item() == pytest.approx(0.13081203594113697, abs=1e-15)
    assert mutual_divergence(peer, student).item() == pytest.approx(0.14384103622589042, abs=1e-15)


def test_gradient_against_finite_differences() -> None:
    student, peers = cohort()
    assert torch.autograd.gradcheck(lambda logits: mutual_divergence(logits, peers), student.requires_grad_())


def test_order_of_images_and_peers_does_not_matter() -> None:
    student, peers = cohort()
    plain = mutual_divergence(student, peers)
    torch.testing.assert_close(mutual_divergence(student, peers[[2, 0, 1]]), plain)
    order = [3, 1, 0, 2]
    torch.testing.assert_close(mutual_divergence(student[order], peers[:, order]), plain)
    torch.testing.assert_close(mutual_divergence(student, peers.repeat(2, 1, 1)), plain)


def test_extreme_logits_stay_finite() -> None:
    student = torch.tensor([[1e4, -1e4]], requires_grad=True)
    loss = mutual_divergence(student, torch.tensor([[-1e4, 1e4]]))
    loss.backward()
    assert loss.item() == pytest.approx(2e4)
    assert student.grad is not None
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("peers", [1, 3])
def test_class_takes_the_peers_as_teacher(peers: int) -> None:
    student, logits = cohort(peers)
    term = DML()(
        Output(student, torch.zeros(4, 2), ()),
        Output(logits, torch.zeros(peers, 4, 2), ()),
        torch.eye(4, 5),
        0.0,
    )["dml"]
    torch.testing.assert_close(term, mutual_divergence(student, logits))
