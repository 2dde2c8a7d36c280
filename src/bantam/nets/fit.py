"""The largest net of a family that makes the weight.

A family turns a list of channel widths into a number of parameters; the search here scales all widths
together as far as the budget allows, then spends what is left by moving single widths by a few channels.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bantam.errors import BadRecipe, BudgetExceeded

Shape = dict[str, Any]
"""The JSON-able description of a net's layers; each family has its own keys."""

Widths = tuple[int, ...]

FULL = 0.995
"""The share of the budget from which a net counts as filling it."""

REACHES = (3, 8)
"""By how many channels one step of the search moves a width: first the near steps, then the far ones."""

STRIDE_ORDER = (4, 3, 0, 2, 1)
"""Which place halves the map first, second, ...: 0 is the stem, 1 to 4 are the stages."""


def late_strides(size: int) -> list[int]:
    """Return the strides of a stem and four stages that bring `size` pixels to a map of about 8 x 8.

    The budget is of parameters and not of time, so the map shrinks late: large maps cost nothing and show more.
    Raises BadRecipe for a size below 1 pixel.
    """
    return [2 if place in STRIDE_ORDER[: _halvings(size)] else 1 for place in range(len(STRIDE_ORDER))]


def early_strides(size: int) -> list[int]:
    """Return strides that bring `size` pixels to the same map at once: the usual way, where time is what counts."""
    return [2 if place < _halvings(size) else 1 for place in range(len(STRIDE_ORDER))]


def _halvings(size: int) -> int:
    if size < 1:
        raise BadRecipe(f"an input of {size} px is too small: give it at least 1 px")
    return min(max(round(math.log2(size / 8)), 0), len(STRIDE_ORDER))


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

    def distortion(widths: Widths) -> float:
        wished = (max(smallest, light * proportion) for proportion in proportions)
        return sum(math.log(width / wish) ** 2 for width, wish in zip(widths, wished, strict=True))

    widths = scaled(light)
    for reach in REACHES:
        while count(widths) < FULL * budget:
            counts = {near: count(near) for near in _neighbours(widths, smallest, reach)}
            fitting = [near for near in counts if count(widths) < counts[near] <= budget]
            if not fitting:
                break
            full = [near for near in fitting if counts[near] >= FULL * budget]
            widths = min(full, key=distortion) if full else max(fitting, key=counts.__getitem__)
    return widths


def _neighbours(widths: Widths, smallest: int, reach: int) -> Iterator[Widths]:
    """Widen one place by up to `reach` channels and, for a finer step, narrow another by up to as many."""
    for wider, narrower in itertools.product(range(len(widths)), repeat=2):
        for more, less in itertools.product(range(1, reach + 1), range(reach + 1)):
            near = list(widths)
            near[wider] += more
            near[narrower] -= less
            if near[narrower] >= smallest:
                yield tuple(near)
