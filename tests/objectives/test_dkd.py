import math

import pytest
import torch

from bantam.nets.output import Output
from bantam.objectives.dkd import DKD, dkd_divergences
from bantam.objectives.kd import kd_divergence
from bantam.objectives.standardization import standardized


def softmax(z: list[float], temperature: float) -> list[float]:
    powers = [math.exp(value / temperature) for value in z]
    return [power / sum(powers) for power in powers]


def kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def reference(
    student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, temperature: float
) -> tuple[float, float]:
    tckd = nckd = 0.0
    for z, t, y in zip(student.tolist(), teacher.tolist(), labels.tolist(), strict=True):
        q, p = softmax(z, temperature), softmax(t, temperature)
        tckd += kl([p[y], 1 - p[y]], [q[y], 1 - q[y]])
        others = [k for k in range(len(p)) if k != y]
        nckd += kl([p[k] / (1 - p[y]) for k in others], [q[k] / (1 - q[y]) for k in others])
    scale = temperature**2 / len(labels)
    return tckd * scale, nckd * scale


def batch(n: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return (
        2 * torch.randn(n, 5, dtype=torch.float64),
        3 * torch.randn(n, 5, dtype=torch.float64),
        torch.arange(n) % 5,
    )


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_matches_the_hand_calculation(temperature: float) -> None:
    parts = [part.mean().item() for part in dkd_divergences(*batch(), temperature)]
    assert parts == pytest.approx(reference(*batch(), temperature), abs=1e-13)


def test_golden_values() -> None:
    # Teacher (1/2, 3/8, 1/8), student (1/3, 1/3, 1/3), target 0.
    teacher = torch.tensor([[0.5, 0.375, 0.125]], dtype=torch.float64).log()
    tckd, nckd = dkd_divergences(torch.zeros(1, 3, dtype=torch.float64), teacher, torch.tensor([0]), 1.0)
    assert tckd.item() == pytest.approx(0.5 * math.log(1.5) + 0.5 * math.log(0.75), abs=1e-15)
    assert nckd.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), abs=1e-15)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_parts_make_up_plain_distillation(temperature: float) -> None:
    student, teacher, labels = batch()
    total = 0.0
    for n in range(len(labels)):
        one = slice(n, n + 1)
        tckd, nckd = dkd_divergences(student[one], teacher[one], labels[one], temperature)
        rest = 1 - (teacher[n] / temperature).softmax(0)[labels[n]]
        total += (tckd + rest * nckd).item() / len(labels)
    assert total == pytest.approx(kd_divergence(student, teacher, temperature).item(), abs=1e-13)


def test_gradient_against_finite_differences() -> None:
    student, teacher, labels = batch()
    assert torch.autograd.gradcheck(
        lambda logits: dkd_divergences(logits, teacher, labels, 4.0), student.requires_grad_()
    )


def test_order_of_images_and_shift_of_logits_do_not_matter() -> None:
    student, teacher, labels = batch()
    plain = dkd_divergences(student, teacher, labels, 2.0)
    order = [2, 3, 0, 1]
    shuffled = dkd_divergences(student[order], teacher[order], labels[order], 2.0)
    torch.testing.assert_close(shuffled, (plain[0][order], plain[1][order]))
    torch.testing.assert_close(dkd_divergences(student + 5, teacher - 5, labels, 2.0), plain)


def test_extreme_logits_stay_finite() -> None:
    student = torch.tensor([[1e4, -1e4, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    teacher = torch.tensor([[-1e4, 1e4, 0.0], [1e4, -1e4, 0.0]])
    tckd, nckd = dkd_divergences(student, teacher, torch.tensor([0, 0]), 1.0)
    (tckd + nckd).sum().backward()
    assert student.grad is not None
    assert tckd.isfinite().all()
    assert nckd.isfinite().all()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("standardize", [False, True])
def test_class_weighs_the_parts_and_takes_the_larger_share(standardize: bool) -> None:
    student, teacher, labels = batch()
    targets = 0.6 * torch.eye(5)[labels] + 0.4 * torch.eye(5)[labels.flip(0)]
    nets = [Output(logits, torch.zeros(4, 2), ()) for logits in (student, teacher)]
    terms = DKD(alpha=0.5, beta=3.0, temperature=2.0, standardize=standardize)(*nets, targets, 0.0)
    if standardize:
        student, teacher = standardized(student), standardized(teacher)
    tckd, nckd = dkd_divergences(student, teacher, labels, 2.0)
    torch.testing.assert_close(terms, {"dkd_target": 0.5 * tckd.mean(), "dkd_others": 3.0 * nckd.mean()})


def test_an_image_without_a_label_counts_for_the_other_classes_alone() -> None:
    """Against the hand calculation: TCKD over the two labelled images, NCKD over all with the teacher's first class."""
    student, teacher, labels = batch()
    targets = torch.eye(5, dtype=torch.float64)[labels]
    targets[1] = targets[3] = 0
    known, taught = [0, 2], labels.clone()
    taught[[1, 3]] = teacher[[1, 3]].argmax(1)
    nets = [Output(logits, torch.zeros(4, 2), ()) for logits in (student, teacher)]
    terms = DKD(alpha=0.5, beta=3.0, temperature=2.0)(*nets, targets, 0.0)
    tckd, _ = reference(student[known], teacher[known], labels[known], 2.0)
    _, nckd = reference(student, teacher, taught, 2.0)
    assert terms["dkd_target"].item() == pytest.approx(0.5 * tckd, abs=1e-13)
    assert terms["dkd_others"].item() == pytest.approx(3.0 * nckd, abs=1e-13)
    nothing = DKD()(*nets, torch.zeros_like(targets), 0.0)
    assert nothing["dkd_target"].item() == 0
    assert nothing["dkd_others"].item() > 0
