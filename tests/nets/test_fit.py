import itertools
import time

import pytest

from bantam.errors import BudgetExceeded
from bantam.nets.fit import fit_widths


def count(widths: tuple[int, ...]) -> int:
    """A three-layer perceptron on 10 inputs with 7 outputs, biases included."""
    layers = (10, *widths, 7)
    return sum((i + 1) * o for i, o in itertools.pairwise(layers))


@pytest.mark.parametrize("budget", [500, 1_000, 5_000, 12_345, 60_000, 500_000, 10_000_000])
def test_the_count_lands_in_the_last_half_percent_of_the_budget(budget: int):
    start = time.perf_counter()
    widths = fit_widths("mlp", count, (1.0, 2.0, 1.5), budget)
    assert time.perf_counter() - start < 1
    assert 0.995 * budget <= count(widths) <= budget


def test_widths_keep_the_proportions():
    first, second, third = fit_widths("mlp", count, (1.0, 2.0, 1.5), 500_000)
    assert second / first == pytest.approx(2.0, rel=0.05)
    assert third / first == pytest.approx(1.5, rel=0.05)


def test_coarse_steps_are_filled_by_moving_two_widths_at_once():
    # Each channel of the first width costs 1,000 and of the second 7; scaling both alone leaves big gaps.
    widths = fit_widths("uneven", lambda w: 1_000 * w[0] + 7 * w[1], (1.0, 1.0), 6_500)
    assert 0.995 * 6_500 <= 1_000 * widths[0] + 7 * widths[1] <= 6_500


@pytest.mark.parametrize(
    ("budget", "widths"), [(500, (8, 17, 10)), (2_000, (19, 35, 25)), (5_000, (29, 59, 43)), (6_000, (32, 64, 49))]
)
def test_of_several_that_fill_the_budget_the_one_nearest_to_the_proportions_is_taken(
    budget: int, widths: tuple[int, ...]
):
    """Golden: a shape that changes silently would make another student of every recipe."""
    assert fit_widths("mlp", count, (1.0, 2.0, 1.5), budget) == widths


def test_the_smallest_net_is_found_and_one_parameter_less_is_refused_with_the_number():
    least = count((4, 4, 4))
    assert fit_widths("mlp", count, (1.0, 2.0, 1.5), least) == (4, 4, 4)
    with pytest.raises(BudgetExceeded, match=rf"smallest mlp .* needs {least} parameters.* {least - 1}"):
        fit_widths("mlp", count, (1.0, 2.0, 1.5), least - 1)


@pytest.mark.parametrize("budget", [0, -1, 100])
def test_impossible_budgets_are_refused(budget: int):
    with pytest.raises(BudgetExceeded):
        fit_widths("mlp", count, (1.0, 2.0, 1.5), budget)
