"""Which students come into question: for each input size that the photographs bear, the best families that fit."""

from collections.abc import Sequence
from dataclasses import dataclass

from bantam.errors import BadData, BadRecipe, BantamError, BudgetExceeded
from bantam.fit.asked import Asked
from bantam.fit.stopwatch import Speed
from bantam.nets.limits import largest_within, least_budget
from bantam.recipes.keys import LARGEST

FAMILIES = (
    *("largekernel", "mobilenet_v1", "shufflenet_v1", "ghostnet", "reparam", "mobilenet_v3", "recurrent"),
    *("shufflenet_v2", "depthwise_resnet", "mobilenet_v2", "squeezenet", "densenet", "sample"),
)
"""The best for much time, the best for little, and then the others by their place in docs/students.md."""

AT_A_SIZE = 2
"""Families of which a size has a candidate: the first that fit."""

BORNE = 1.15
"""Times their own side that photographs are enlarged at most."""

STORED = 1.5
"""Times the input at which photographs are stored at most: so much detail is there for crops."""


@dataclass(frozen=True)
class Student:
    """A family at an input size, and the most parameters of its net within all limits."""

    net: str
    size: int
    budget: int


@dataclass(frozen=True)
class Candidate:
    """A student that comes into question, and how fast it trains and answers here."""

    student: Student
    speed: Speed


def sizes_for(side: int, asked: int | None) -> tuple[int, ...]:
    """The input sizes for photographs with `side` pixels a side, the smallest first; the one that was `asked` for.

    96 px cost the students that are considered no more than 64: their maps are halved once more.
    """
    if asked is not None:
        return (asked,)
    borne = [size for size in (32, 48, 64, 96, 128) if size <= BORNE * side] or [32]
    if borne[-1] > 32:
        borne.remove(32)  # dearer than 48, whose maps are halved once more
    if 96 in borne:
        borne.remove(64)
    return tuple(borne)


def stored_for(side: int, size: int) -> int:
    """The side at which photographs of `side` pixels are stored for an input of `size`."""
    return min(max(size, min(side, round(STORED * size))), LARGEST)


def students(asked: Asked, classes: int, sizes: Sequence[int]) -> list[Student]:
    """The students that come into question.

    Raises BudgetExceeded, BadRecipe for a size, or BadData for a board, where there is none.
    """
    found: list[Student] = []
    refused: dict[str, BantamError] = {}  # of the smallest size
    for size in sizes:
        here: list[Student] = []
        for net in FAMILIES:
            if len(here) == AT_A_SIZE:
                break
            try:
                here.append(Student(net, size, largest_within(net, asked.limits(size), classes, size)[0]))
            except (BudgetExceeded, BadRecipe, BadData) as error:
                refused.setdefault(net, error)
        found += here
    if not found:
        heavy = [net for net, error in refused.items() if isinstance(error, BudgetExceeded)]
        if not heavy:
            raise next(iter(refused.values()))
        lightest = min(heavy, key=lambda net: least_budget(net, classes, sizes[0]))
        raise BudgetExceeded(f"no family of students is so small; {refused[lightest]}")
    return found
