"""The largest net of a family within several limits at once: parameters, MACs, memory, file size, a device's room."""

from dataclasses import dataclass

import torch

from bantam.errors import BudgetExceeded
from bantam.nets.device.needs import Needs, needs
from bantam.nets.footprint import disk_bytes, footprint
from bantam.nets.students import Student, describe

FINEST = 0.005
"""The search ends when the budget is known to this share of itself."""

STEP = 0.95
"""What a budget is multiplied with when its net is slightly over a limit."""

SLACK = 1.5
"""By how much more than its share of the budget a net may cost: a net of half the budget has half of the MACs, or
up to SLACK times as many, because the number of blocks and the proportions change with the budget."""


@dataclass(frozen=True)
class Limits:
    """The most that a shipped net may need, each by its own measure; None where there is no limit.

    `parameters` holds for the larger of the two counts (`bantam.nets.budget`), `macs` and `activation_bytes` for
    one image (`bantam.nets.footprint`), and `disk_bytes` for the file of its state_dict. `ram` and `flash` are what its
    int8 form takes on a small device (`bantam.nets.device.needs`).
    """

    parameters: int
    macs: int | None = None
    activation_bytes: int | None = None
    disk_bytes: int | None = None
    ram: int | None = None
    flash: int | None = None

    @property
    def of_device(self) -> bool:
        """Whether a device limits the net."""
        return not self.ram is self.flash is None


@dataclass(frozen=True)
class _Need:
    """What a net needs by one measure, and the limit of it."""

    needed: int
    limit: int
    unit: str

    @property
    def excess(self) -> float:
        return self.needed / max(self.limit, 1)


def describe_within(name: str, limits: Limits, classes: int, size: int) -> Student:
    """Describe the largest student of a family within all `limits`, for `size` x `size` pixels: `largest_within`."""
    return largest_within(name, limits, classes, size)[1]


def largest_within(name: str, limits: Limits, classes: int, size: int) -> tuple[int, Student]:
    """Find the largest student of a family within all `limits`, and the budget of parameters that describes it.

    A family knows budgets of parameters only, so the budget is lowered until the other limits hold too: in steps
    of at most 5% near the limits, then by bisection to 0.5%. MACs and memory do not always fall with the budget
    (a family changes its depth with it), so a slightly larger net may exist between the budgets that were tried.

    Raises BadRecipe if there is no such family or the input is too small for it, and BudgetExceeded, with what
    the smallest net needs, if there is none within the limits.
    """
    student = describe(name, limits.parameters, classes, size)
    budget = heavy = limits.parameters
    while excess := _excess(student, limits):
        heavy, budget = budget, int(budget * min(STEP, SLACK / excess))
        try:
            student = describe(name, budget, classes, size)
        except BudgetExceeded:
            budget = least_budget(name, classes, size)
            student = describe(name, budget, classes, size)
            if _excess(student, limits):
                raise _impossible(student, limits) from None
    while heavy - budget > FINEST * budget:
        middle = (budget + heavy) // 2
        candidate = describe(name, middle, classes, size)
        if _excess(candidate, limits):
            heavy = middle
        else:
            budget, student = middle, candidate
    return budget, student


def least_budget(name: str, classes: int, size: int) -> int:
    """Return the number of parameters of the smallest net of a family, found by bisection."""

    def possible(budget: int) -> bool:
        try:
            describe(name, budget, classes, size)
        except BudgetExceeded:
            return False
        return True

    too_light, enough = 0, 1
    while not possible(enough):
        too_light, enough = enough, 2 * enough
    while enough - too_light > 1:
        middle = (too_light + enough) // 2
        if possible(middle):
            enough = middle
        else:
            too_light = middle
    return enough


def _excess(student: Student, limits: Limits) -> float:
    """Return by what factor `student` is over the limit it breaks most, 0 if it breaks none."""
    return max((need.excess for need in _broken(student, limits)), default=0.0)


def _broken(student: Student, limits: Limits) -> list[_Need]:
    """List the limits that `student` breaks; that of the parameters it keeps by its description."""
    if limits == Limits(limits.parameters):
        return []
    with torch.random.fork_rng(devices=[]):
        net = student.shipped_net()
    here = footprint(net, student.size)
    device = needs(net, student.size) if limits.of_device else Needs(0, 0)
    found = [
        _Need(needed, limit, unit)
        for needed, limit, unit in (
            (here.macs, limits.macs, "MACs"),
            (here.activation_bytes, limits.activation_bytes, "bytes of activations"),
            (disk_bytes(net), limits.disk_bytes, "bytes on disk"),
            (device.ram, limits.ram, "bytes of RAM on a device"),
            (device.flash, limits.flash, "bytes of flash on a device"),
        )
        if limit is not None
    ]
    return [need for need in found if need.needed > need.limit]


def _impossible(smallest: Student, limits: Limits) -> BudgetExceeded:
    """Say what the smallest net of a family needs by every measure whose limit it breaks."""
    needs = " and ".join(
        f"{need.needed:,} {need.unit} where the limit is {need.limit:,}" for need in _broken(smallest, limits)
    )
    return BudgetExceeded(
        f"the smallest {smallest.family} with this input and these classes needs {needs}: "
        "raise the limit or choose another family"
    )
