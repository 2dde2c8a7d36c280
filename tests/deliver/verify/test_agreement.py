"""Answers agree with a net's but for ties, by whatever mean over the views, and hold or do not hold."""

import pytest
import torch

from bantam.deliver.verify import agreement

LOGITS = 4 * torch.randn(4, 500, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("mean", agreement.MEANS)
def test_the_mean_over_the_views_is_found(mean: str) -> None:
    answers = agreement.MEANS[mean](LOGITS).mean(0).argmax(1)
    agreed = agreement.compare(LOGITS, answers, [])
    assert not agreed.differs.any()
    assert agreement.may_differ(agreed, exact=True) == 0
    assert agreement.may_differ(agreed, exact=False) == 10


def test_weights_are_taken_from_the_code_or_fitted() -> None:
    weights = torch.tensor([0.6, 0.2, 0.15, 0.05])
    answers = torch.einsum("v,vnk->nk", weights, LOGITS).argmax(1)
    named = agreement.compare(LOGITS, answers, weights.tolist())
    assert (int(named.differs.sum()), named.fitted) == (0, False)
    fitted = agreement.compare(LOGITS, answers, [])
    assert fitted.fitted
    assert int(fitted.differs.sum()) <= agreement.may_differ(fitted, exact=True) == 10


def test_other_answers_are_not_explained_by_any_mean() -> None:
    answers = torch.randint(0, 5, (500,), generator=torch.Generator().manual_seed(1))
    agreed = agreement.compare(LOGITS, answers, [])
    assert int(agreed.differs.sum()) > 5 * agreement.may_differ(agreed, exact=False)


def test_only_few_classes_that_are_as_good_may_change_places() -> None:
    scores = torch.tensor([[1.0, 1.0 - agreement.TIE / 2], [1.0, 1.0 - 2 * agreement.TIE], [1.0, float("nan")]])
    assert agreement.others(scores, torch.tensor([1, 1, 0])).tolist() == [False, True, True]
    assert agreement.others(scores[:2], torch.tensor([0, 0])).tolist() == [False, False]
    assert agreement.others(scores[:1], torch.tensor([7])).tolist() == [True]


def test_a_net_whose_scores_are_all_the_same_has_not_any_answer() -> None:
    answers = torch.arange(100) % 3
    agreed = agreement.compare(torch.zeros(1, 100, 3), answers, [])
    assert int(agreed.differs.sum()) == 66


HOLD = [(236, 256, True), (140, 256, True), (135, 256, False), (4, 12, True), (3, 12, False), (0, 0, True)]


@pytest.mark.parametrize(("same", "of", "holds"), HOLD)
def test_answers_hold_unless_they_surely_do_not(same: int, of: int, holds: bool) -> None:
    assert agreement.held(same, of) is holds
