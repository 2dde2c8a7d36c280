"""The most accurate image classifier that fits a hard budget: 60,000 parameters by default.

    import bantam

    metrics = bantam.run(bantam.load_recipe("medium"), Path("photographs"), Path("runs/medium"))
    net, shipped = bantam.load_shipped(Path("runs/medium"))

What is named here stays; everything else may move. The names are imported when they are first used, because the command
line starts without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bantam.deliver.grade import grade
    from bantam.deliver.package import package
    from bantam.deliver.predict import load_shipped
    from bantam.deliver.verify import verify
    from bantam.errors import BantamError
    from bantam.nets.budget import weigh
    from bantam.nets.students import STUDENTS
    from bantam.nets.teachers import TEACHERS
    from bantam.objectives import OBJECTIVES
    from bantam.pipeline import run
    from bantam.recipe import Recipe
    from bantam.recipe import load as load_recipe
    from bantam.stages import STAGES

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
    "package",
    "run",
    "verify",
    "weigh",
]

HOMES = {
    "OBJECTIVES": "objectives.OBJECTIVES",
    "STAGES": "stages.STAGES",
    "STUDENTS": "nets.students.STUDENTS",
    "TEACHERS": "nets.teachers.TEACHERS",
    "BantamError": "errors.BantamError",
    "Recipe": "recipe.Recipe",
    "grade": "deliver.grade.grade",
    "load_recipe": "recipe.load",
    "load_shipped": "deliver.predict.load_shipped",
    "package": "deliver.package.package",
    "run": "pipeline.run",
    "verify": "deliver.verify.verify",
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
