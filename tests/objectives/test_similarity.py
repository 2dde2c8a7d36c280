import math

import pytest
import torch

from bantam.nets.output import Output
from bantam.objectives.similarity import Similarity, similarity_loss


def reference(student: torch.Tensor, teacher: torch.Tensor) -> float:
    def similarities(features: torch.Tensor) -> list[list[float]]:
        rows = features.flatten(1).tolist()
        products = [[sum(x * y for x, y in zip(a, b, strict=True)) for b in rows] for a in rows]
        return [[value / math.hypot(*row) for value in row] for row in products]

    ours, theirs = similarities(student), similarities(teacher)
    n = len(ours)
    return sum((ours[i][j] - theirs[i][j]) ** 2 for i in range(n) for j in range(n)) / n**2


def features(n: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(n, 4, 3, 3, dtype=torch.float64), torch.randn(n, 6, 2, 2, dtype=torch.float64)


def test_matches_the_hand_calculation() -> None:
    student, teacher = features()
    assert similarity_loss(student, teacher).item() == pytest.approx(reference(student, teacher), abs=1e-14)


def test_golden_value() -> None:
    # Student: two equal images, rows (1, 1) / sqrt 2. Teacher: two at right angles, rows (1, 0) and (0, 1).
    student = torch.ones(2, 1, 1, 2)
    teacher = torch.tensor([[[[3.0, 0.0]]], [[[0.0, 5.0]]]])
    expected = 2 * ((1 - math.sqrt(0.5)) ** 2 + 0.5) / 4
    assert similarity_loss(student, teacher).item() == pytest.approx(expected, abs=1e-6)


def test_gradient_against_finite_differences() -> None:
    student, teacher = (maps[:3, :2, :2, :2].contiguous() for maps in features())
    assert torch.autograd.gradcheck(lambda maps: similarity_loss(maps, teacher), student.requires_grad_())


def test_order_and_scale_do_not_matter() -> None:
    student, teacher = features()
    plain = similarity_loss(student, teacher)
    order = [3, 0, 2, 1]
    torch.testing.assert_close(similarity_loss(student[order], teacher[order]), plain)
    for scale in (1e-2, 1e4):
        torch.testing.assert_close(similarity_loss(scale * student, teacher), plain)
    assert similarity_loss(student, 3 * student).item() == pytest.approx(0, abs=1e-14)


def test_batch_of_one_and_dead_images_stay_finite() -> None:
    student, teacher = features(1)
    assert similarity_loss(student, teacher).item() == pytest.approx(0, abs=1e-14)
    dead = torch.randn(3, 4, 2, 2)
    dead[1] = 0
    dead.requires_grad_()
    loss = similarity_loss(dead, torch.randn(3, 6, 2, 2))
    loss.backward()
    assert dead.grad is not None
    assert loss.isfinite()
    assert dead.grad.isfinite().all()
    assert dead.grad.abs().max() < 100


def test_class_averages_the_last_stages() -> None:
    torch.manual_seed(1)
    student = Output(torch.zeros(3, 3), torch.zeros(3, 4), tuple(torch.randn(3, c, 4, 4) for c in (3, 5)))
    teacher = Output(torch.zeros(3, 3), torch.zeros(3, 4), tuple(torch.randn(3, c, 6, 6) for c in (2, 4)))
    last = Similarity()(student, teacher, torch.eye(3), 0.0)["similarity"]
    torch.testing.assert_close(last, similarity_loss(student.features[1], teacher.features[1]))
    both = Similarity(stages=2)(student, teacher, torch.eye(3), 0.0)["similarity"]
    torch.testing.assert_close(both, (last + similarity_loss(student.features[0], teacher.features[0])) / 2)
