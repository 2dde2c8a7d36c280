import pytest
import torch

from bantam.errors import BadRecipe
from bantam.nets.output import Output
from bantam.objectives.features import feature_map, last_stages, to_common_size, unit


def net_of(*sizes: int) -> Output:
    return Output(torch.zeros(2, 3), torch.zeros(2, 4), tuple(torch.zeros(2, 4, size, size) for size in sizes))


def test_unit_vectors() -> None:
    vectors = torch.tensor(
        [[3.0, 4.0], [0.0, -2.0], [1e20, 0.0], [0.0, 0.0], [9e-9, 0.0], [1.1e-8, 0.0]], dtype=torch.float64
    )
    expected = [[0.6, 0.8], [0.0, -1.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0], [1.0, 0.0]]
    torch.testing.assert_close(unit(vectors), torch.tensor(expected, dtype=torch.float64))


def test_short_vectors_pass_no_gradient_on() -> None:
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-9, 0.0]], requires_grad=True)
    (unit(vectors) * torch.tensor([1.0, 2.0])).sum().backward()
    assert vectors.grad is not None
    assert vectors.grad.isfinite().all()
    assert vectors.grad[0].abs().sum() > 0
    assert torch.equal(vectors.grad[1:], torch.zeros(2, 2))


def test_unit_gradient_against_finite_differences() -> None:
    torch.manual_seed(0)
    assert torch.autograd.gradcheck(unit, torch.randn(4, 5, dtype=torch.float64, requires_grad=True))


def test_stages_are_paired_from_the_classifier() -> None:
    student, teacher = net_of(16, 8, 4), net_of(30, 20, 10, 5)
    pairs = last_stages("attention", student, teacher, 3)
    assert [(a.shape[-1], b.shape[-1]) for a, b in pairs] == [(4, 5), (8, 10), (16, 20)]
    assert feature_map("fitnet", "student", student, 0).shape[-1] == 16


@pytest.mark.parametrize("stage", [3, -4])
def test_missing_stages_are_explained(stage: int) -> None:
    with pytest.raises(BadRecipe, match=f"fitnet: the student has 3 stages .* no stage {stage}"):
        feature_map("fitnet", "student", net_of(16, 8, 4), stage)
    with pytest.raises(BadRecipe, match="teacher has 0 stages"):
        last_stages("attention", net_of(4), net_of(), 1)


def test_the_larger_map_is_averaged() -> None:
    small = torch.arange(4.0).reshape(1, 2, 2)
    large = torch.arange(16.0).reshape(1, 4, 4)
    kept, pooled = to_common_size(small, large)
    assert kept is small
    assert pooled.tolist() == [[[2.5, 4.5], [10.5, 12.5]]]
    wide, high = to_common_size(torch.ones(1, 2, 6), torch.ones(1, 4, 3))
    assert wide.shape == high.shape == (1, 2, 3)
    more, less = to_common_size(torch.ones(5, 7, 9, 8), torch.ones(5, 2, 6, 3))
    assert more.shape == (5, 7, 6, 3)
    assert less.shape == (5, 2, 6, 3)
