import math

import pytest
import torch

from bantam.nets.output import Output
from bantam.objectives.attention import Attention, attention_loss


def reference(student: torch.Tensor, teacher: torch.Tensor) -> float:
    def attention(features: torch.Tensor) -> list[float]:
        channels, height, width = features.shape
        energies = [
            sum(features[c, y, x].item() ** 2 for c in range(channels)) / channels
            for y in range(height)
            for x in range(width)
        ]
        length = math.hypot(*energies)
        return [energy / length for energy in energies]

    total = 0.0
    for ours, theirs in zip(student, teacher, strict=True):
        total += math.dist(attention(ours), attention(theirs)) ** 2
    return total / len(student)


def features(n: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(n, 4, 3, 5, dtype=torch.float64), torch.randn(n, 6, 3, 5, dtype=torch.float64)


def test_matches_the_hand_calculation() -> None:
    student, teacher = features()
    assert attention_loss(student, teacher).item() == pytest.approx(reference(student, teacher), abs=1e-14)


def test_it_is_the_authors_code_times_the_number_of_positions() -> None:
    student, teacher = features()
    ours, theirs = (torch.nn.functional.normalize(maps.pow(2).mean(1).flatten(1)) for maps in (student, teacher))
    mean = (ours - theirs).pow(2).mean().item()
    assert attention_loss(student, teacher).item() == pytest.approx(3 * 5 * mean, abs=1e-14)


def test_golden_values() -> None:
    # Energies (1, 0) and (0, 4) look at different places; (9, 16) / sqrt(337) is at right angles to nothing.
    left, right = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.0, -2.0]]]])
    both = torch.tensor([[[[3.0, 4.0]]]])
    assert attention_loss(left, right).item() == pytest.approx(2.0)
    assert attention_loss(left, both).item() == pytest.approx(2 - 2 * 9 / math.sqrt(337), abs=1e-6)


def test_the_larger_map_is_pooled_as_energy() -> None:
    student = torch.tensor([[[[1.0, 2.0]]]])
    # Energies of the teacher: ((1 + 1) / 2, (4 + 4) / 2), although its own means are zero.
    teacher = torch.tensor([[[[1.0, -1.0, 2.0, -2.0]]]])
    assert attention_loss(student, teacher).item() == pytest.approx(0, abs=1e-7)


def test_gradient_against_finite_differences() -> None:
    student, teacher = (maps[:2, :2] for maps in features())
    assert torch.autograd.gradcheck(lambda maps: attention_loss(maps, teacher), student.requires_grad_())


def test_order_and_scale_do_not_matter() -> None:
    student, teacher = features()
    plain = attention_loss(student, teacher)
    torch.testing.assert_close(attention_loss(student[[2, 0, 1]], teacher[[2, 0, 1]]), plain)
    torch.testing.assert_close(attention_loss(student[:, [3, 1, 0, 2]], teacher), plain)
    for scale in (1e-3, 1e3):
        torch.testing.assert_close(attention_loss(scale * student, teacher), plain)
    assert attention_loss(student, -7 * student).item() == pytest.approx(0, abs=1e-14)


def test_dead_maps_stay_finite() -> None:
    student = torch.zeros(1, 4, 3, 3, requires_grad=True)
    loss = attention_loss(student, torch.ones(1, 2, 3, 3))
    loss.backward()
    assert loss.item() == pytest.approx(1.0)
    assert student.grad is not None
    assert torch.equal(student.grad, torch.zeros_like(student))


def test_class_averages_the_last_stages() -> None:
    torch.manual_seed(1)
    student = Output(torch.zeros(2, 3), torch.zeros(2, 4), tuple(torch.randn(2, c, 4, 4) for c in (3, 5, 7)))
    teacher = Output(torch.zeros(2, 3), torch.zeros(2, 4), tuple(torch.randn(2, c, 8, 8) for c in (2, 4, 6, 8)))
    term = Attention(stages=2)(student, teacher, torch.eye(3)[:2], 0.0)["attention"]
    pairs = [(student.features[2], teacher.features[3]), (student.features[1], teacher.features[2])]
    torch.testing.assert_close(term, sum(attention_loss(a, b) for a, b in pairs) / torch.tensor(2.0))
