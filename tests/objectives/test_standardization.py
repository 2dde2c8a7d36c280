import math

import pytest
import torch

from bantam.objectives.kd import kd_divergence
from bantam.objectives.standardization import standardized


def reference(row: list[float]) -> list[float]:
    mean = sum(row) / len(row)
    std = math.sqrt(sum((value - mean) ** 2 for value in row) / len(row))
    return [(value - mean) / std for value in row]


def test_matches_the_hand_calculation() -> None:
    rows = [[1.0, 2.0, 3.0, 10.0], [-5.0, 0.25, 0.5, 1e3]]
    value = standardized(torch.tensor(rows, dtype=torch.float64))
    torch.testing.assert_close(value, torch.tensor([reference(row) for row in rows], dtype=torch.float64))


def test_golden_value() -> None:
    # mean 2, population variance 2/3
    value = standardized(torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64))
    torch.testing.assert_close(value, torch.tensor([[-math.sqrt(1.5), 0.0, math.sqrt(1.5)]], dtype=torch.float64))


def test_the_authors_standard_deviation_is_another_temperature_and_weight() -> None:
    torch.manual_seed(0)
    classes, temperature = 11, 2.0
    student, teacher = torch.randn(2, 4, classes, dtype=torch.float64)

    def theirs(logits: torch.Tensor) -> torch.Tensor:
        return (logits - logits.mean(1, keepdim=True)) / logits.std(1, keepdim=True)

    share = (classes - 1) / classes
    ours = kd_divergence(standardized(student), standardized(teacher), temperature / math.sqrt(share))
    torch.testing.assert_close(kd_divergence(theirs(student), theirs(teacher), temperature), share * ours)


def test_shift_and_scale_of_the_logits_do_not_matter() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(4, 11, dtype=torch.float64), torch.randn(4, 11, dtype=torch.float64)
    scale = torch.tensor([[0.01], [1.0], [30.0], [1e4]], dtype=torch.float64)
    plain = kd_divergence(standardized(student), standardized(teacher), 2.0)
    torch.testing.assert_close(kd_divergence(standardized(student * scale - 9), standardized(teacher), 2.0), plain)


def test_gradient_against_finite_differences() -> None:
    torch.manual_seed(1)
    logits = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(standardized, logits)


@pytest.mark.parametrize("level", [0.0, 0.1, 1e4])
def test_equal_logits_give_zeros_and_no_gradient(level: float) -> None:
    logits = torch.full((2, 11), level, requires_grad=True)
    value = standardized(logits)
    value.pow(3).sum().backward()
    assert torch.equal(value, torch.zeros(2, 11))
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_a_small_spread_that_is_no_rounding_is_a_spread() -> None:
    logits = torch.tensor([[1.0, 1.0 + 1e-9, 1.0 - 1e-9]], dtype=torch.float64)
    found = standardized(logits)
    assert found.std(dim=1, correction=0).item() == pytest.approx(1, rel=1e-6)
    assert not standardized(torch.ones(1, 3, dtype=torch.float64)).any()
