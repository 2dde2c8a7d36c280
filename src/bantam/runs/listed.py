"""The runs below a folder, each in a line: what `bantam runs list` shows. Reads files alone."""

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bantam.errors import BantamError
from bantam.runs import runfolder
from bantam.runs.finished import FinishedRun, open_run

DEEPEST = 4
"""So many folders below each other are looked into."""


@dataclass(frozen=True)
class Listed:
    """A run as a list shows it; `accuracy` is that of what is shipped, None while there is nothing.

    Of one that was `refitted` on training and validation together it is that from before.

    `state` is "finished", "student: epoch 3 of 30", "begun", or what is wrong with it. `changed` is in UTC.
    """

    run: str
    recipe: str
    state: str
    changed: str
    parameters: int | None = None
    accuracy: float | None = None
    standard_error: float | None = None
    refitted: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def listed(folder: Path) -> list[Listed]:
    """The runs in `folder` and in the folders below it, the one that was changed last first."""
    return sorted(map(described, found(folder)), key=lambda run: (run.changed, run.run), reverse=True)


def found(folder: Path, depth: int = DEEPEST) -> Iterator[Path]:
    """The folders that hold a recipe.toml; what lies within one of them belongs to it."""
    if (folder / runfolder.RECIPE).is_file():
        yield folder
    elif depth:
        for inner in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
            if not inner.is_symlink() and os.access(inner, os.R_OK | os.X_OK):
                yield from found(inner, depth - 1)


def described(folder: Path) -> Listed:
    """The run in `folder`; a damaged one is said to be so."""
    run = open_run(folder)
    try:
        return read(run)
    except BantamError as error:
        return Listed(str(folder), "-", str(error), changed(folder))


def read(run: FinishedRun) -> Listed:
    """What the files of `run` say. Raises BadRunFile for a damaged one."""
    name = run.recipe.name
    if not run.is_finished:
        return Listed(str(run), name, progress(run), changed(run.folder))
    judged = run.metrics["validation"]
    return Listed(
        str(run),
        name,
        "finished",
        changed(run.folder),
        max(run.metrics.get("parameters", {}).values(), default=None),
        judged.get("accuracy", judged["plain"]),
        judged.get("standard_error", run.accuracy.standard_error),
        run.refit_of is not None,
    )


def progress(run: FinishedRun) -> str:
    """How far an unfinished run has come: its latest stage that has an epoch."""
    for stage in reversed(run.recipe.stage):
        if rows := runfolder.rows(run.stage(stage.name) / runfolder.ROWS):
            return f"{stage.name}: epoch {rows[-1]['epoch']} of {getattr(stage, 'epochs', rows[-1]['epoch'])}"
    return "begun"


def changed(folder: Path) -> str:
    """When a file of the run, or of one of its stages, was written last."""
    places = [folder, *(folder / runfolder.STAGES).glob("*")]
    return datetime.fromtimestamp(max(place.stat().st_mtime for place in places), UTC).isoformat(timespec="seconds")


def text(runs: list[Listed]) -> str:
    """A line for each run: when, recipe, parameters, accuracy or state; its folder last, which may be long."""
    rows = [("changed (UTC)", "recipe", "parameters", "validation", "run")]
    for run in runs:
        when, count = run.changed[:16].replace("T", " "), f"{run.parameters:,}" if run.parameters else "-"
        judged = run.state if run.accuracy is None else f"{run.accuracy:.3f} ± {run.standard_error or 0:.3f}"
        judged += ", then refitted" if run.refitted else ""
        rows.append((when, run.recipe, count, judged, run.run))
    short = [row for row in rows if len(row[3]) <= 40]  # a damaged file is said at length
    widths = [max(len(row[column]) for row in short) for column in range(4)]
    return "\n".join("  ".join([*map(str.ljust, row[:4], widths), row[4]]) for row in rows)
