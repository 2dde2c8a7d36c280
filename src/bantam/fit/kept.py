"""plan.json: what a fit was asked, what it found, and what it planned; written before the first step, and kept to."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from bantam.errors import RunMismatch
from bantam.fit.asked import Asked
from bantam.fit.known import Known
from bantam.fit.planning import Machine, Plan, Row
from bantam.recipes import recipe as recipes
from bantam.runs import runfolder
from bantam.runs.schema import Checked

PLAN, CLOCK, PAGE = runfolder.PLAN, "clock.json", "fit.json"
"""What a fit has in its run beside what every run has."""


class _Row(Checked):
    what: str
    how: str
    seconds: Annotated[float, Field(ge=0)]


class Planned(Checked):
    """plan.json."""

    asked: dict[str, Any]
    data: str
    recipe: str
    ends: dict[str, float]
    rows: list[_Row]
    notes: list[str]


def write_plan(folder: Path, plan: Plan, asked: Asked, known: Known, machine: Machine, data: str) -> None:
    """Write plan.json, and recipe.toml after it; `data` is the fingerprint of the photographs. Raises CannotWrite."""
    told = {
        "asked": asked.to_json(),
        "data": data,
        "known": asdict(known),
        "machine": asdict(machine),
        "recipe": recipes.dump(plan.recipe),
        "ends": plan.ends,
        "rows": [asdict(row) for row in plan.rows],
        "notes": list(plan.notes),
    }
    runfolder.write(folder / PLAN, told)
    runfolder.write_recipe(folder, plan.recipe)


def read_plan(folder: Path, asked: Asked) -> Plan | None:
    """The plan that `folder` holds, made for the same wishes; None where there is none.

    Raises BadRunFile where it is damaged, RunMismatch where it was made for other wishes.
    """
    kept = read(folder)
    if kept is None:
        return None
    if other := asked.unlike(kept.asked):
        raise RunMismatch(f"{folder} holds a fit that was asked for {other}; choose another --out, or ask for the same")
    recipe = recipes.parse(kept.recipe, str(folder / PLAN))
    if not (folder / runfolder.RECIPE).exists():  # killed between the two
        runfolder.write_recipe(folder, recipe)
    return Plan(recipe, kept.ends, tuple(Row(row.what, row.how, row.seconds) for row in kept.rows), tuple(kept.notes))


def require_planned_for(data: str, folder: Path) -> None:
    """Raise RunMismatch where the plan in `folder` is for photographs with another fingerprint than `data`."""
    kept = read(folder)
    if kept is not None and kept.data != data:
        raise RunMismatch(f"{folder} holds a fit on other photographs; choose another --out, or delete the folder")


def seconds_in(folder: Path) -> float | None:
    """For how long the fit in `folder` was asked; None where there is none. Raises BadRunFile."""
    kept = read(folder)
    return None if kept is None else float(kept.asked["seconds"])


def read(folder: Path) -> Planned | None:
    """What plan.json holds; None where there is none. Raises BadRunFile."""
    path = folder / PLAN
    if not path.exists():
        return None
    advice = f"delete the folder {folder}, and the fit begins anew"
    return runfolder.checked(Planned, path, runfolder.table(path, advice), advice)
