import math

import pytest
import torch
from torch import Tensor

from bantam.nets.output import Output
from bantam.objectives.kd import KD, kd_divergence, loss_fn_kd
from bantam.objectives.standardization import standardized

STUDENT = [[1.0, 2.0, -0.5], [0.0, 0.3, 0.9]]
TEACHER = [[3.0, 1.0, -2.0], [-1.0, 0.5, 2.5]]
LABELS = [0, 2]


def softmax(z: list[float], temperature: float) -> list[float]:
    powers = [math.exp(value / temperature) for value in z]
    return [power / sum(powers) for power in powers]


def reference_kl(student: list[list[float]], teacher: list[list[float]], temperature: float) -> float:
    total = 0.0
    for z, t in zip(student, teacher, strict=True):
        q, p = softmax(z, temperature), softmax(t, temperature)
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return temperature**2 * total / len(student)


def reference_ce(student: list[list[float]], labels: list[int]) -> float:
    return -sum(math.log(softmax(z, 1.0)[y]) for z, y in zip(student, labels, strict=True)) / len(student)


def f64(values: list[list[float]]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.9, 1.0])
def test_loss_matches_the_hand_calculation(alpha: float, temperature: float) -> None:
    expected = alpha * reference_kl(STUDENT, TEACHER, temperature) + (1 - alpha) * reference_ce(STUDENT, LABELS)
    value = loss_fn_kd(f64(STUDENT), torch.tensor(LABELS), f64(TEACHER), alpha, temperature)
    assert value.shape == ()
    assert value.item() == pytest.approx(expected, abs=1e-13)


def test_golden_value_of_two_classes() -> None:
    # Teacher (3/4, 1/4), student (1/2, 1/2): KL = 3/4 log(3/2) + 1/4 log(1/2) = 0.130812...
    teacher, student = f64([[math.log(3.0), 0.0]]), f64([[0.0, 0.0]])
    kl = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert kl == pytest.approx(0.13081203594113697, abs=1e-16)
    assert kd_divergence(student, teacher, 1.0).item() == pytest.approx(kl, abs=1e-15)
    # The other direction: 1/2 log(2/3) + 1/2 log 2.
    swapped = 0.5 * math.log(2 / 3) + 0.5 * math.log(2.0)
    assert kd_divergence(teacher, student, 1.0).item() == pytest.approx(swapped, abs=1e-15)
    assert abs(swapped - kl) > 0.01
    # Logits twice as large at twice the temperature are the same distributions; T^2 remains.
    assert kd_divergence(2 * student, 2 * teacher, 2.0).item() == pytest.approx(4 * kl, abs=1e-15)


def test_defaults_are_the_briefs() -> None:
    by_default = loss_fn_kd(f64(STUDENT), torch.tensor(LABELS), f64(TEACHER))
    assert by_default.item() == pytest.approx(
        0.5 * reference_kl(STUDENT, TEACHER, 1.0) + 0.5 * reference_ce(STUDENT, LABELS), abs=1e-14
    )


def test_probabilities_and_labels_agree() -> None:
    one_hot = torch.nn.functional.one_hot(torch.tensor(LABELS), 3)
    by_label = loss_fn_kd(f64(STUDENT), torch.tensor(LABELS), f64(TEACHER), 0.3, 2.0)
    by_probability = loss_fn_kd(f64(STUDENT), one_hot.float(), f64(TEACHER), 0.3, 2.0)
    torch.testing.assert_close(by_label, by_probability)


def test_batch_mean_is_unchanged_by_duplication() -> None:
    once = loss_fn_kd(f64(STUDENT), torch.tensor(LABELS), f64(TEACHER), 0.5, 4.0)
    twice = loss_fn_kd(f64(STUDENT * 2), torch.tensor(LABELS * 2), f64(TEACHER * 2), 0.5, 4.0)
    torch.testing.assert_close(once, twice)


def test_gradient_hardly_depends_on_a_high_temperature() -> None:
    student, teacher = f64(STUDENT), f64(TEACHER)
    gradients = []
    for temperature in (1e3, 1e4):
        leaf = student.clone().requires_grad_()
        kd_divergence(leaf, teacher, temperature).backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0.02, atol=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_gradient_against_finite_differences(temperature: float) -> None:
    student = f64(STUDENT).requires_grad_()
    labels, teacher = torch.tensor(LABELS), f64(TEACHER)
    assert torch.autograd.gradcheck(lambda z: loss_fn_kd(z, labels, teacher, 0.7, temperature), student)


def test_same_logits_up_to_a_shift_cost_nothing() -> None:
    assert kd_divergence(f64(STUDENT) + 7.0, f64(STUDENT), 3.0).item() == pytest.approx(0, abs=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_logits_stay_finite(dtype: torch.dtype) -> None:
    student = torch.tensor([[1e4, -1e4, 0.0], [0.0, 0.0, 0.0]], dtype=dtype, requires_grad=True)
    teacher = torch.tensor([[-1e4, 1e4, 0.0], [1e4, -1e4, 0.0]], dtype=dtype)
    loss = loss_fn_kd(student, torch.tensor([1, 0]), teacher, 0.5, 1.0)
    loss.backward()
    assert loss.item() == pytest.approx(0.5 * (2e4 + math.log(3)) / 2 + 0.5 * (2e4 + math.log(3)) / 2)
    assert student.grad is not None
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_raised_first(dtype: torch.dtype) -> None:
    student, teacher = torch.tensor(STUDENT).to(dtype), torch.tensor(TEACHER).to(dtype)
    value = loss_fn_kd(student, torch.tensor(LABELS), teacher, 0.5, 20.0)
    assert value.dtype == torch.float32
    assert torch.equal(value, loss_fn_kd(student.float(), torch.tensor(LABELS), teacher.float(), 0.5, 20.0))


def test_no_gradient_reaches_the_teacher() -> None:
    student, teacher = f64(STUDENT).requires_grad_(), f64(TEACHER).requires_grad_()
    loss_fn_kd(student, torch.tensor(LABELS), teacher, 0.5, 4.0).backward()
    assert student.grad is not None
    assert teacher.grad is None


@pytest.mark.parametrize("standardize", [False, True])
def test_class_gives_the_divergence(standardize: bool) -> None:
    student = Output(f64(STUDENT), torch.zeros(2, 4), ())
    teacher = Output(f64(TEACHER), torch.zeros(2, 5), ())
    terms = KD(temperature=3.0, standardize=standardize)(student, teacher, torch.eye(3)[LABELS], 0.0)
    prepared = standardized if standardize else lambda logits: logits
    assert list(terms) == ["kd"]
    torch.testing.assert_close(terms["kd"], kd_divergence(prepared(f64(STUDENT)), prepared(f64(TEACHER)), 3.0))


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_temperature_must_be_positive(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        KD(temperature=temperature)
