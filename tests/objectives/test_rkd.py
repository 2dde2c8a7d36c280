import itertools
import math

import pytest
import torch

from bantam.nets.output import Output
from bantam.objectives.rkd import COINCIDENT, RKD, angle_loss, distance_loss, pairwise_differences

LOSSES = {"distance": distance_loss, "angle": angle_loss}


def huber(difference: float) -> float:
    return difference**2 / 2 if abs(difference) < 1 else abs(difference) - 0.5


def reference_distances(rows: list[list[float]]) -> dict[tuple[int, int], float]:
    indices = range(len(rows))
    distances = {(i, j): math.dist(rows[i], rows[j]) for i in indices for j in indices}
    mean = sum(distances.values()) / (len(rows) * (len(rows) - 1))
    return {pair: distance / mean for pair, distance in distances.items()}


def reference_cosine(rows: list[list[float]], i: int, j: int, k: int) -> float:
    a = [x - y for x, y in zip(rows[i], rows[j], strict=True)]
    b = [x - y for x, y in zip(rows[k], rows[j], strict=True)]
    if not any(a) or not any(b):
        return 0.0
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))


def embeddings(n: int = 5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    return torch.randn(n, 3, dtype=torch.float64), torch.randn(n, 7, dtype=torch.float64).exp()


def test_distances_match_the_hand_calculation() -> None:
    student, teacher = embeddings()
    ours, theirs = reference_distances(student.tolist()), reference_distances(teacher.tolist())
    expected = sum(huber(ours[pair] - theirs[pair]) for pair in ours) / 25
    assert distance_loss(student, teacher).item() == pytest.approx(expected, abs=1e-14)


def test_angles_match_the_hand_calculation() -> None:
    student, teacher = embeddings()
    rows, known = student.tolist(), teacher.tolist()
    triples = list(itertools.product(range(5), repeat=3))
    expected = sum(huber(reference_cosine(rows, *t) - reference_cosine(known, *t)) for t in triples) / 125
    assert angle_loss(student, teacher).item() == pytest.approx(expected, abs=1e-14)


def test_golden_values() -> None:
    # Student: points 0, 1, 2 on a line; teacher: an equilateral triangle.
    student = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]], dtype=torch.float64)
    teacher = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(0.75)]], dtype=torch.float64)
    # Distances 1, 1, 2 have mean 4/3: 3/4, 3/4, 3/2 against 1, 1, 1; each pair stands twice among 9.
    distance = 2 * (0.25**2 + 0.25**2 + 0.5**2) / 2 / 9
    assert distance_loss(student, teacher).item() == pytest.approx(distance, abs=1e-14)
    # Cosines 1, -1, 1 at the three corners against 1/2: each angle stands twice among 27.
    angle = 2 * (0.5**2 / 2 + (1.5 - 0.5) + 0.5**2 / 2) / 27
    assert angle_loss(student, teacher).item() == pytest.approx(angle, abs=1e-14)


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_against_finite_differences(name: str) -> None:
    student, teacher = embeddings()
    assert torch.autograd.gradcheck(lambda rows: LOSSES[name](rows, teacher), student.requires_grad_())


@pytest.mark.parametrize("name", LOSSES)
def test_order_scale_shift_and_rotation_do_not_matter(name: str) -> None:
    student, teacher = embeddings()
    plain = LOSSES[name](student, teacher)
    order = [3, 1, 4, 0, 2]
    torch.testing.assert_close(LOSSES[name](student[order], teacher[order]), plain)
    rotation = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    for scale in (1e-6, 1.0, 1e6):
        torch.testing.assert_close(LOSSES[name](scale * (student @ rotation + 2), teacher), plain)
    assert LOSSES[name](student, 5 * student - 1).item() == pytest.approx(0, abs=1e-14)
    assert plain.item() > 0


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_coincident_embeddings_and_batches_of_one(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    twins = torch.randn(4, 3, dtype=dtype)
    twins[1] = twins[0]
    near = twins + torch.tensor([0.0, 1e-6, 0.0, 0.0], dtype=dtype).unsqueeze(1)
    same = torch.ones(4, 3, dtype=dtype)
    cases = {"one": torch.randn(1, 3, dtype=dtype), "same": same, "twins": twins, "near": near}
    for case, rows in cases.items():
        student = rows.clone().requires_grad_()
        loss = LOSSES[name](student, torch.randn(len(rows), 5, dtype=dtype))
        loss.backward()
        assert student.grad is not None
        assert loss.isfinite(), case
        assert student.grad.isfinite().all(), case
        assert student.grad.abs().max() < 100, case
        if case == "one":
            assert loss.item() == 0


def test_class_keeps_the_proportion() -> None:
    student, teacher = embeddings()
    nets = [Output(torch.zeros(5, 3), rows, ()) for rows in (student, teacher)]
    terms = RKD(distance=0.5, angle=3.0)(*nets, torch.eye(5, 3), 0.0)
    torch.testing.assert_close(terms["rkd_distance"], 0.5 * distance_loss(student, teacher))
    torch.testing.assert_close(terms["rkd_angle"], 3.0 * angle_loss(student, teacher))


def test_points_count_as_one_below_a_share_of_the_root_mean_square_distance() -> None:
    points = torch.tensor([[0.0, 0.0, 0.0], [3.0, 4.0, 0.0]], dtype=torch.float64)
    differences, floor = pairwise_differences(points)
    assert differences[0, 1].tolist() == [3, 4, 0]
    # Squared distances 0, 25, 25, 0.
    assert float(floor) == pytest.approx(COINCIDENT * 12.5**0.5)
