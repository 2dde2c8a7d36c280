import math
from collections.abc import Callable

import pytest
import torch
from scipy import stats

from bantam.errors import NotFinite
from bantam.measure.accuracy import (
    Accuracy,
    accuracy,
    calibration,
    confusion,
    hits,
    mcnemar,
    per_class,
    soft_label_facts,
)


def random_case(n: int = 200, classes: int = 11, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(n, classes, generator=generator) * 3,
        torch.randint(classes, (n,), generator=generator),
    )


def test_value_standard_error_and_text() -> None:
    measured = Accuracy(3342, 4432)
    assert measured.value == 3342 / 4432
    assert measured.standard_error == pytest.approx(math.sqrt(0.754061 * 0.245939 / 4432), rel=1e-5)
    assert str(measured) == "0.754 ± 0.006"


@pytest.mark.parametrize(("correct", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(correct: int, n: int) -> None:
    with pytest.raises(ValueError):
        Accuracy(correct, n)


@pytest.mark.parametrize(("correct", "n"), [(0, 1), (1, 1), (0, 20), (20, 20), (7, 20), (3342, 4432)])
def test_wilson_interval_matches_scipy(correct: int, n: int) -> None:
    expected = stats.binomtest(correct, n).proportion_ci(0.95, method="wilson")
    assert Accuracy(correct, n).interval == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_accuracy_and_hits() -> None:
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [5.0, 1.0], [0.0, 0.1]])
    labels = torch.tensor([0, 1, 1, 1])
    assert hits(logits, labels).tolist() == [True, True, False, True]
    assert accuracy(logits, labels) == Accuracy(3, 4)


def test_confusion_and_per_class_match_counting_one_by_one() -> None:
    logits, labels = random_case()
    labels[labels == 4] = 5
    expected = torch.zeros(11, 11, dtype=torch.long)
    for row, label in zip(logits, labels, strict=True):
        expected[label, row.argmax()] += 1
    assert torch.equal(confusion(logits, labels), expected)
    each = per_class(logits, labels)
    assert each[4] is None
    for label, measured in enumerate(each):
        if measured is not None:
            chosen = labels == label
            assert measured == accuracy(logits[chosen], labels[chosen])


@pytest.mark.parametrize("shape", [(3,), (3, 1), (2,), (4, 11)])
def test_shapes_that_would_broadcast_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        accuracy(torch.zeros(4, 11), torch.zeros(shape, dtype=torch.long))


@pytest.mark.parametrize(
    ("only_a", "only_b", "both"), [(0, 0, 5), (1, 0, 0), (6, 1, 3), (5, 5, 0), (40, 61, 9), (700, 800, 2900)]
)
def test_mcnemar_matches_scipys_binomial_test(only_a: int, only_b: int, both: int) -> None:
    a = torch.tensor([True] * only_a + [False] * only_b + [True] * both + [False] * 3)
    b = torch.tensor([False] * only_a + [True] * only_b + [True] * both + [False] * 3)
    expected = stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    measured = mcnemar(a, b)
    assert measured[:2] == (only_a, only_b)
    assert measured.p == pytest.approx(expected, rel=1e-9)
    assert mcnemar(b, a) == (only_b, only_a, measured.p)


def test_mcnemar_golden_value_and_underflow() -> None:
    # 6 against 1: 2 * (1 + 7) / 2^7 = 1/8
    assert mcnemar(torch.tensor([True] * 6 + [False]), torch.tensor([False] * 6 + [True])).p == 0.125
    assert mcnemar(torch.ones(3000, dtype=torch.bool), torch.zeros(3000, dtype=torch.bool)).p == 0.0


def test_mcnemar_needs_pairs() -> None:
    with pytest.raises(ValueError, match="paired"):
        mcnemar(torch.ones(3, dtype=torch.bool), torch.ones(1, dtype=torch.bool))


def test_calibration_matches_a_plain_loop() -> None:
    logits, labels = random_case(300, 5, seed=3)
    bins: list[list[tuple[float, float]]] = [[] for _ in range(15)]
    nll = brier = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        total = sum(math.exp(z) for z in row)
        p = [math.exp(z) / total for z in row]
        confidence = max(p)
        index = next(b for b in range(15) if confidence <= (b + 1) / 15 or b == 14)
        bins[index].append((confidence, float(p.index(confidence) == label)))
        nll -= math.log(p[label]) / len(labels)
        brier += sum((value - (k == label)) ** 2 for k, value in enumerate(p)) / len(labels)
    ece = 0.0
    for members in filter(None, bins):
        mean_confidence = sum(c for c, _ in members) / len(members)
        mean_accuracy = sum(right for _, right in members) / len(members)
        ece += len(members) / len(labels) * abs(mean_accuracy - mean_confidence)
    assert calibration(logits, labels) == pytest.approx((ece, nll, brier), abs=1e-10)


def test_a_confidence_on_the_edge_belongs_to_the_lower_bin() -> None:
    # Confidence 1/2, right; confidence 3/4, wrong: gaps of 1/2 and 3/4 in two bins, of 1/4 were they one.
    logits = torch.tensor([[0.0, 0.0], [math.log(3.0), 0.0]], dtype=torch.float64)
    assert calibration(logits, torch.tensor([0, 1]), bins=2).ece == pytest.approx((0.5 + 0.75) / 2)


def test_calibration_golden_values() -> None:
    # Both images get (1/2, 1/2) and one is right: perfectly calibrated.
    measured = calibration(torch.zeros(2, 2), torch.tensor([0, 1]))
    assert measured == pytest.approx((0.0, math.log(2), 0.5))
    # Certain and wrong.
    measured = calibration(torch.tensor([[1e3, 0.0]]), torch.tensor([1]))
    assert measured == pytest.approx((1.0, 1e3, 2.0))


@pytest.mark.parametrize("temperature", [1.0, 2.0, 8.0])
def test_soft_label_facts_match_the_hand_calculation(temperature: float) -> None:
    logits, labels = random_case(50, 6, seed=7)
    entropy = off_class = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        total = sum(math.exp(z / temperature) for z in row)
        p = [math.exp(z / temperature) / total for z in row]
        entropy -= sum(value * math.log(value) for value in p) / len(labels)
        off_class += (1 - p[label]) / len(labels)
    facts = soft_label_facts(logits, labels, temperature)
    assert facts[:2] == pytest.approx((entropy, off_class), abs=1e-10)
    assert facts.accuracy == accuracy(logits, labels)


def test_soft_label_facts_of_uniform_certain_and_mixed() -> None:
    assert soft_label_facts(torch.zeros(3, 4), torch.tensor([0, 1, 2]), 1.0)[:2] == pytest.approx((math.log(4), 0.75))
    assert soft_label_facts(torch.tensor([[1e4, 0.0]]), torch.tensor([0]), 1.0)[:2] == (0.0, 0.0)
    mixed = soft_label_facts(torch.zeros(1, 4), torch.tensor([[0.4, 0.6, 0.0, 0.0]]), 1.0)
    assert mixed.off_class == pytest.approx(0.5)
    assert mixed.accuracy == Accuracy(0, 1)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("measure", [accuracy, hits, confusion, per_class, calibration], ids=lambda one: one.__name__)
def test_answers_that_are_not_finite_are_no_class(measure: Callable[..., object], number: float) -> None:
    logits, labels = random_case()
    logits[7, 3] = logits[9, 3] = number
    with pytest.raises(NotFinite, match="answers to 2 of 200 images are not finite"):
        measure(logits, labels)
    with pytest.raises(NotFinite):
        soft_label_facts(logits, labels, 4.0)
