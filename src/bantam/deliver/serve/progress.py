"""A run's learning curves, while it trains and afterwards: read from what the training writes."""

from pathlib import Path
from typing import Any

from bantam.recipes.kinds.training import Training
from bantam.runs import runfolder
from bantam.runs.finished import FinishedRun


def curves(run: FinishedRun) -> list[dict[str, Any]]:
    """For each stage that trains, in the recipe's order: its name, kind, epochs, whether it is done, and its rows.

    A row has `epoch`, `loss` on training, `accuracy` and `standard_error` on validation, and `seconds`. Raises BadData
    where the run is no longer there, or its files do not hold what a run writes.
    """
    finished = run.is_finished
    return [
        {
            "name": stage.name,
            "kind": stage.kind,
            "epochs": stage.epochs,
            "done": finished or (run.stage(stage.name) / runfolder.DONE).exists(),
            "rows": rows(run.stage(stage.name) / runfolder.ROWS),
        }
        for stage in runfolder.recipe(run.folder).stage  # each time, for the folder may be gone by now
        if isinstance(stage, Training)
    ]


def rows(path: Path) -> list[dict[str, Any]]:
    """The finished epochs; the training may be in the middle of writing the last line, which is then left out."""
    return [
        {
            "epoch": row["epoch"],
            "loss": row["training"]["loss"],
            "accuracy": row["validation"]["accuracy"],
            "standard_error": row["validation"]["standard_error"],
            "seconds": row["seconds"],
        }
        for row in runfolder.rows(path)
        if {"training", "validation", "seconds"} <= row.keys() and "loss" in row["training"]
    ]
