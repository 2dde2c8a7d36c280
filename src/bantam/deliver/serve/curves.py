"""A run's learning curves, while it trains and afterwards: read from what the training writes."""

import json
import tomllib
from pathlib import Path
from typing import Any


def curves(run: Path) -> list[dict[str, Any]]:
    """For each stage that trains, in the recipe's order: its name, kind, epochs, whether it is done, and its rows.

    A row has `epoch`, `loss` on training, `accuracy` and `standard_error` on validation, and `seconds`.
    """
    stages = tomllib.loads((run / "recipe.toml").read_text(encoding="utf-8"))["stage"]
    finished = (run / "metrics.json").exists()
    return [
        {
            "name": stage["name"],
            "kind": stage["kind"],
            "epochs": stage["epochs"],
            "done": finished or (run / "stages" / stage["name"] / "done.json").exists(),
            "rows": rows(run / "stages" / stage["name"] / "metrics.jsonl"),
        }
        for stage in stages
        if "epochs" in stage
    ]


def rows(path: Path) -> list[dict[str, Any]]:
    """The finished epochs; the training may be in the middle of writing the last line, which is then left out."""
    found: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            break
        judged = row["validation"]
        found.append(
            {
                "epoch": row["epoch"],
                "loss": row["training"]["loss"],
                "accuracy": judged["accuracy"],
                "standard_error": judged["standard_error"],
                "seconds": row["seconds"],
            }
        )
    return found
