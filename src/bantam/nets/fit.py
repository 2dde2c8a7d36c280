"""The largest net of a family that makes the weight.

A family turns a list of channel widths into a number of parameters; the search here scales all widths
together as far as the budget allows, then spends what is left by moving single widths by a few channels.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bantam.errors import BudgetExceeded

Shape = dict[str, Any]
"""The JSON-able description of a net's layers; each family has its own keys."""

Widths = tuple[int, ...]

FULL = 0.995
"""The share of the budget from which a net counts as filling it."""

REACH = 3
"""By how many channels one step of the search moves a width."""


def fit_widths(
    family: str, count: Callable[[Widths], int], proportions: Sequence[float], budget: int, smallest: int = 4
) -> Widths:
    """Return channel widths close to `proportions` with a `count` of 99.5% to 100% of `budget`.

    `count` must grow with every width and be cheap: it is called up to a few thousand times. No width is
    below `smallest`. Close to the smallest net of a family the steps may be too coarse for 99.5%; then the
    fullest net that was found is returned. Raises BudgetExceeded if even the smallest net is too heavy.
    """

    def scaled(multiplier: float) -> Widths:
        return tuple(max(smallest, round(multiplier * proportion)) for proportion in proportions)

    least = count(scaled(0.0))
    if least > budget:
        raise BudgetExceeded(
            f"the smallest {family} with this input and these classes needs {least:,} parameters, "
            f"the budget is {budget:,}: raise the budget or choose another family"
        )
    light, heavy = 0.0, 1.0
    while count(scaled(heavy)) <= budget:
        light, heavy = heavy, 2 * heavy
    while heavy - light > 1e-3:
        middle = (light + heavy) / 2
        if count(scaled(middle)) <= budget:
            light = middle
        else:
            heavy = middle

    widths = scaled(light)
    while count(widths) < FULL * budget:
        fullest = max(
            (near for near in _neighbours(widths, smallest) if count(near) <= budget),
            key=count,
            default=widths,
        )
        if count(fullest) <= count(widths):
            break
        widths = fullest
    return widths


def _neighbours(widths: Widths, smallest: int) -> Iterator[Widths]:
    """Widen one place by up to REACH channels and, for a finer step, narrow another by up to as many."""
    for wider, narrower in itertools.product(range(len(widths)), repeat=2):
        for more, less in itertools.product(range(1, REACH + 1), range(REACH + 1)):
            near = list(widths)
            near[wider] += more
            near[narrower] -= less
            if near[narrower] >= smallest:
                yield tuple(near)
