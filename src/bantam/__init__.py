"""The most accurate image classifier that fits a hard budget: 60,000 parameters by default.

    import bantam

    metrics = bantam.run(bantam.load_recipe("medium"), Path("photographs"), Path("runs/medium"))
    net, shipped = bantam.open_run(Path("runs/medium")).at_switch()

What is named here stays; everything else may move. The names are imported when they are first used, because the command
line starts without torch.
"""

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bantam.deliver.grade import grade
    from bantam.deliver.package.write import package
    from bantam.deliver.verify.verify import verify
    from bantam.errors import BantamError
    from bantam.nets.budget import weigh
    from bantam.nets.students import STUDENTS
    from bantam.nets.teachers import TEACHERS
    from bantam.objectives import OBJECTIVES
    from bantam.pipeline.run import run
    from bantam.pipeline.stages import STAGES
    from bantam.recipes.recipe import Recipe
    from bantam.recipes.recipe import load as load_recipe
    from bantam.runs.finished import load_shipped, open_run

__all__ = [
    "OBJECTIVES",
    "STAGES",
    "STUDENTS",
    "TEACHERS",
    "BantamError",
    "Recipe",
    "grade",
    "load_recipe",
    "load_shipped",
    "open_run",
    "package",
    "run",
    "verify",
    "weigh",
]

SPINS = 10_000
"""Turns, some hundred microseconds in all, for which a thread waits awake where nobody else wants its core."""


def waiting(load: str) -> dict[str, str]:
    """How threads shall wait for one another, as the OpenMP runtime is told; `load` is the text of /proc/loadavg.

    A thread that spins takes a core from whoever computes: where a neighbour is at work, two threads that spin for long
    are many times slower than one. But to fall asleep and be woken takes as long as a small layer does. So threads spin
    for a moment before they sleep, unless somebody else is computing right now. No result depends on it.
    """
    running = load.split()[3:4] or [""]
    alone = running[0].partition("/")[0] == "1"  # this process
    return {"OMP_WAIT_POLICY": "passive"} | ({"GOMP_SPINCOUNT": str(SPINS)} if alone else {})


def tell_threads() -> None:
    """Set what `waiting` says, unless the user has; the runtime reads it once, as torch loads it."""
    if "torch" in sys.modules or "OMP_WAIT_POLICY" in os.environ:
        return
    try:
        with open("/proc/loadavg") as file:
            load = file.read()
    except OSError:
        load = ""
    for name, value in waiting(load).items():
        os.environ.setdefault(name, value)


tell_threads()

HOMES = {
    "OBJECTIVES": "objectives.OBJECTIVES",
    "STAGES": "pipeline.stages.STAGES",
    "STUDENTS": "nets.students.STUDENTS",
    "TEACHERS": "nets.teachers.TEACHERS",
    "BantamError": "errors.BantamError",
    "Recipe": "recipes.recipe.Recipe",
    "grade": "deliver.grade.grade",
    "load_recipe": "recipes.recipe.load",
    "load_shipped": "runs.finished.load_shipped",
    "open_run": "runs.finished.open_run",
    "package": "deliver.package.write.package",
    "run": "pipeline.run.run",
    "verify": "deliver.verify.verify.verify",
    "weigh": "nets.budget.weigh",
}
"""Where each public name is defined."""


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module 'bantam' has no attribute {name!r}")
    module, _, attribute = HOMES[name].rpartition(".")
    return getattr(import_module(f"bantam.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
