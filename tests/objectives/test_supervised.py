import math

import pytest
import torch

from bantam.nets.output import Output
from bantam.objectives.objective import labelled_mean
from bantam.objectives.supervised import Supervised, cross_entropy

LOGITS = [[2.0, -1.0, 0.5], [0.1, 0.2, 3.0]]
TARGETS = [[0.7, 0.3, 0.0], [0.0, 0.25, 0.75]]


def reference(logits: list[list[float]], targets: list[list[float]], smoothing: float) -> float:
    total = 0.0
    for z, t in zip(logits, targets, strict=True):
        log_total = math.log(sum(math.exp(value) for value in z))
        total -= sum(
            ((1 - smoothing) * share + smoothing / len(z)) * (value - log_total)
            for value, share in zip(z, t, strict=True)
        )
    return total / len(logits)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_soft_targets_match_the_hand_calculation(smoothing: float) -> None:
    logits = torch.tensor(LOGITS, dtype=torch.float64)
    targets = torch.tensor(TARGETS, dtype=torch.float64)
    value = cross_entropy(logits, targets, smoothing).item()
    assert value == pytest.approx(reference(LOGITS, TARGETS, smoothing), abs=1e-14)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_mean_is_over_the_labelled_images_alone(smoothing: float) -> None:
    logits = torch.tensor([*LOGITS, [9.0, -9.0, 1.0], [0.3, 0.2, 0.1]], dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([*TARGETS, [0.0] * 3, [0.0] * 3], dtype=torch.float64)
    value = cross_entropy(logits, targets, smoothing)
    assert value.item() == pytest.approx(reference(LOGITS, TARGETS, smoothing), abs=1e-14)
    value.backward()
    assert logits.grad is not None
    assert bool(logits.grad[:2].abs().sum() > 0)
    assert not logits.grad[2:].any()
    assert torch.autograd.gradcheck(lambda given: cross_entropy(given, targets, smoothing), logits)


def test_a_batch_without_labels_gives_zero() -> None:
    logits = torch.tensor(LOGITS, requires_grad=True)
    value = cross_entropy(logits, torch.zeros(2, 3), 0.1)
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_golden_value() -> None:
    # log(e^2 + e^-1 + e^0.5) = 2.2413... written out by hand, label 0: minus 2.
    expected = math.log(math.exp(2.0) + math.exp(-1.0) + math.exp(0.5)) - 2.0
    assert expected == pytest.approx(0.2413, abs=1e-4)
    value = cross_entropy(torch.tensor(LOGITS[:1]), torch.tensor([0]))
    assert value.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.uint8])
def test_integer_labels_are_one_hot_targets(dtype: torch.dtype) -> None:
    logits = torch.tensor(LOGITS)
    one_hot = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    by_label = cross_entropy(logits, torch.tensor([1, 0], dtype=dtype), 0.1)
    torch.testing.assert_close(by_label, cross_entropy(logits, one_hot, 0.1))


def test_half_precision_is_raised_first() -> None:
    logits = torch.tensor(LOGITS).bfloat16()
    value = cross_entropy(logits, torch.tensor(TARGETS))
    assert value.dtype == torch.float32
    assert torch.equal(value, cross_entropy(logits.float(), torch.tensor(TARGETS)))


def test_class_names_its_term_and_ignores_a_teacher() -> None:
    student = Output(torch.tensor(LOGITS), torch.zeros(2, 4), ())
    objective = Supervised(label_smoothing=0.2)
    terms = objective(student, None, torch.tensor(TARGETS), 0.5)
    assert list(terms) == ["cross_entropy"]
    assert terms["cross_entropy"].item() == pytest.approx(reference(LOGITS, TARGETS, 0.2), abs=1e-6)
    assert torch.equal(terms["cross_entropy"], objective(student, student, torch.tensor(TARGETS), 0.5)["cross_entropy"])


@pytest.mark.parametrize("smoothing", [-0.1, 1.1, float("nan")])
def test_smoothing_outside_its_range_is_refused(smoothing: float) -> None:
    with pytest.raises(ValueError, match="label_smoothing"):
        Supervised(label_smoothing=smoothing)


def test_the_mean_over_one_labelled_image_is_its_value() -> None:
    values, targets = torch.tensor([2.0, 5.0, 7.0]), torch.zeros(3, 4)
    assert labelled_mean(values, targets) == 0
    targets[1, 2] = 1
    assert labelled_mean(values, targets) == 5
    targets[0] = 0.25
    assert labelled_mean(values, targets) == 3.5
