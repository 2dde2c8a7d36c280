import statistics

import pytest
import torch

from bantam.nets.output import Output
from bantam.objectives.dist import DIST, dist_relations


def reference(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> tuple[float, float]:
    q, p = ((logits / temperature).softmax(1).tolist() for logits in (student, teacher))
    rows = [statistics.correlation(a, b) for a, b in zip(q, p, strict=True)]
    columns = [statistics.correlation(a, b) for a, b in zip(zip(*q, strict=True), zip(*p, strict=True), strict=True)]
    return temperature**2 * (1 - statistics.fmean(rows)), temperature**2 * (1 - statistics.fmean(columns))


def batch(n: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(n, 4, dtype=torch.float64), 3 * torch.randn(n, 4, dtype=torch.float64)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_matches_pythons_own_correlation(temperature: float) -> None:
    parts = [part.item() for part in dist_relations(*batch(), temperature)]
    assert parts == pytest.approx(reference(*batch(), temperature), abs=1e-12)


def test_golden_values() -> None:
    # Each row against its mirror image. The middle column is constant: correlation 0; the outer columns run
    # against each other: -1.
    student = torch.tensor([[0.2, 0.3, 0.5], [0.5, 0.3, 0.2]], dtype=torch.float64)
    teacher = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5]], dtype=torch.float64)
    inter, intra = dist_relations(student.log(), teacher.log(), 1.0)
    centred = [(-2 / 15, -1 / 30, 1 / 6), (1 / 6, -1 / 30, -2 / 15)]
    product = sum(a * b for a, b in zip(*centred, strict=True))
    assert inter.item() == pytest.approx(1 - product / sum(a * a for a in centred[0]), abs=1e-14)
    assert intra.item() == pytest.approx(1 - (-1 + 0 - 1) / 3, abs=1e-14)


def test_gradient_against_finite_differences() -> None:
    student, teacher = batch()
    assert torch.autograd.gradcheck(lambda logits: dist_relations(logits, teacher, 2.0), student.requires_grad_())


def test_order_and_equality() -> None:
    student, teacher = batch()
    plain = dist_relations(student, teacher, 1.0)
    order = [5, 0, 4, 1, 3, 2]
    torch.testing.assert_close(dist_relations(student[order], teacher[order], 1.0), plain)
    torch.testing.assert_close(dist_relations(student[:, [2, 0, 3, 1]], teacher[:, [2, 0, 3, 1]], 1.0), plain)
    torch.testing.assert_close(dist_relations(student + 9, teacher, 1.0), plain)
    assert [part.item() for part in dist_relations(student, student, 1.0)] == pytest.approx([0, 0], abs=1e-12)


@pytest.mark.parametrize("logits", [torch.zeros(4, 11), torch.tensor([[1e4, 0.0, -1e4]] * 4), torch.randn(1, 5)])
def test_constant_predictions_and_batches_of_one_stay_finite(logits: torch.Tensor) -> None:
    student = logits.clone().requires_grad_()
    inter, intra = dist_relations(student, torch.randn_like(logits), 1.0)
    (inter + intra).backward()
    assert student.grad is not None
    assert intra.item() == 1.0
    assert inter.isfinite()
    assert student.grad.isfinite().all()
    assert student.grad.abs().max() < 10


def test_class_weighs_the_relations() -> None:
    student, teacher = batch()
    nets = [Output(logits, torch.zeros(6, 2), ()) for logits in (student, teacher)]
    terms = DIST(beta=2.0, gamma=0.5, temperature=3.0)(*nets, torch.eye(6, 4), 0.0)
    inter, intra = dist_relations(student, teacher, 3.0)
    torch.testing.assert_close(terms, {"dist_inter": 2 * inter, "dist_intra": 0.5 * intra})
