import math

import pytest
import torch
from torch import Tensor

from bantam.nets.output import Output
from bantam.objectives.self_distillation import SelfDistillation, exit_loss, labels_loss


def softmax(row: list[float], temperature: float) -> list[float]:
    powers = [math.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def reference(leaves: Tensor, targets: Tensor, deepest: Tensor, teacher: Tensor | None, t: float, w: tuple[float, ...]):
    """Image by image and class by class, in Python's float64."""
    total = 0.0
    for n in range(len(leaves)):
        q1, q = softmax(leaves[n].tolist(), 1.0), softmax(leaves[n].tolist(), t)
        total -= w[0] * sum(p * math.log(a) for p, a in zip(targets[n].tolist(), q1, strict=True))
        for weight, other in ((w[1], deepest), (w[2], teacher)):
            if other is not None:
                p = softmax(other[n].tolist(), t)
                total += weight * t * t * sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return total / len(leaves)


def logits(seed: int) -> Tensor:
    return 2 * torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


TARGETS = logits(9).softmax(1)


@pytest.mark.parametrize("with_teacher", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("weights", [(0.2, 0.4, 0.4), (1.0, 0.0, 0.0), (0.0, 1.0, 0.5)])
def test_matches_the_plain_calculation(weights: tuple[float, float, float], temperature: float, with_teacher: bool):
    teacher = logits(3) if with_teacher else None
    found = exit_loss(logits(1), logits(2), teacher, temperature, *weights[1:])
    found = found + weights[0] * labels_loss([logits(1)], TARGETS)
    expected = reference(logits(1), TARGETS, logits(2), teacher, temperature, weights)
    assert found.item() == pytest.approx(expected, abs=1e-12)


def test_golden_value():
    # Exit (1/2, 1/2), end (3/4, 1/4), T = 1: 0.2 log 2 + 0.4 (3/4 log 3/2 + 1/4 log 1/2).
    leaves, end = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([[math.log(3.0), 0.0]], dtype=torch.float64)
    found = exit_loss(leaves, end, None, 1.0, 0.4, 0.4) + 0.2 * labels_loss([leaves], torch.tensor([0]))
    assert found.item() == pytest.approx(0.19095425048844383, abs=1e-14)


def test_terms_are_the_exits_shares_of_the_mean():
    exits = (logits(1), logits(4), logits(5))
    student = Output(logits(2), torch.zeros(6, 3), (), exits)
    teacher = Output(logits(3), torch.zeros(6, 3), ())
    terms = SelfDistillation(temperature=3.0, labels=0.1, deepest=0.7, teacher=0.2)(student, teacher, TARGETS, 0.0)
    assert list(terms) == ["exit_1", "exit_2", "exit_3", "exits_labels"]
    for number, leaves in enumerate(exits, 1):
        expected = reference(leaves, TARGETS, logits(2), logits(3), 3.0, (0.0, 0.7, 0.2)) / 3
        assert terms[f"exit_{number}"].item() == pytest.approx(expected, abs=1e-12)
    whole = sum(reference(leaves, TARGETS, logits(2), logits(3), 3.0, (0.1, 0.7, 0.2)) for leaves in exits) / 3
    assert sum(term.item() for term in terms.values()) == pytest.approx(whole, abs=1e-12)
    assert SelfDistillation()(student._replace(exits=()), teacher, TARGETS, 0.0) == {}


def test_images_without_a_label_count_in_the_divergences_alone():
    exits, end, known = (logits(1), logits(4)), logits(2), logits(3)
    some = TARGETS.clone()
    some[1::2] = 0
    student, teacher = Output(end, torch.zeros(6, 3), (), exits), Output(known, torch.zeros(6, 3), ())
    objective = SelfDistillation()
    found, all_known = (objective(student, teacher, targets, 0.0) for targets in (some, TARGETS))
    known_alone = Output(end[::2], torch.zeros(3, 3), (), tuple(leaves[::2] for leaves in exits))
    expected = objective(known_alone, None, TARGETS[::2], 0.0)["exits_labels"]
    assert found["exits_labels"].item() == pytest.approx(expected.item(), abs=1e-12)
    assert {name for name in found if not torch.equal(found[name], all_known[name])} == objective.of_labels


def test_without_a_weight_the_teacher_is_not_followed():
    assert SelfDistillation().follows()
    assert not SelfDistillation(teacher=0.0).follows()


def test_no_gradient_reaches_the_end_or_the_teacher():
    end, known, leaves = (logits(seed).requires_grad_() for seed in (2, 3, 1))
    student = Output(end, torch.zeros(6, 3), (), (leaves,))
    SelfDistillation()(student, Output(known, torch.zeros(6, 3), ()), TARGETS, 0.0)["exit_1"].backward()
    assert end.grad is None
    assert known.grad is None
    assert leaves.grad is not None
    assert leaves.grad.abs().sum() > 0


def test_gradient_against_finite_differences():
    def loss(leaves: Tensor) -> Tensor:
        return exit_loss(leaves, logits(2), logits(3), 2.0, 0.4, 0.4) + 0.2 * labels_loss([leaves], TARGETS)

    assert torch.autograd.gradcheck(loss, logits(1).requires_grad_())


def test_half_precision_is_raised_first():
    half = [logits(seed).to(torch.bfloat16) for seed in (1, 2, 3)]
    raised = [leaves.float() for leaves in half]
    found = exit_loss(*half, 2.0, 0.4, 0.4), labels_loss(half, TARGETS.float())
    again = exit_loss(*raised, 2.0, 0.4, 0.4), labels_loss(raised, TARGETS.float())
    for one, other in zip(found, again, strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, other)


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"labels": -0.1}, {"deepest": float("nan")}])
def test_wrong_keys_are_named(wrong: dict[str, float]):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SelfDistillation(**wrong)


def test_who_teaches_an_exit_gets_no_gradient() -> None:
    exits, deepest, teacher = (torch.randn(4, 3, dtype=torch.float64, requires_grad=True) for _ in range(3))
    exit_loss(exits, deepest, teacher, 2.0, 0.4, 0.4).backward()
    assert exits.grad is not None
    assert exits.grad.abs().sum() > 0
    assert deepest.grad is None
    assert teacher.grad is None
