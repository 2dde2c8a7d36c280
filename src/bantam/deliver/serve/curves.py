"""A run's learning curves, while it trains and afterwards: read from what the training writes."""

import json
import math
import tomllib
from pathlib import Path
from typing import Any

from bantam.errors import BadData


def curves(run: Path) -> list[dict[str, Any]]:
    """For each stage that trains, in the recipe's order: its name, kind, epochs, whether it is done, and its rows.

    A row has `epoch`, `loss` on training, `accuracy` and `standard_error` on validation, and `seconds`. Raises BadData
    where the run is no longer there, or its files do not hold what a run writes.
    """
    path = run / "recipe.toml"
    try:
        stages = tomllib.loads(path.read_text(encoding="utf-8"))["stage"]
        trained = [{key: stage[key] for key in ("name", "kind", "epochs")} for stage in stages if "epochs" in stage]
        if not all(isinstance(one["name"], str) and isinstance(one["epochs"], int) for one in trained):
            raise TypeError("a stage without a name or a number of epochs")
    except OSError as error:
        raise BadData(f"{run.name} has no recipe.toml ({error.strerror}): bring the run's folder back") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadData(f"{path} does not hold a run's recipe ({_line(error)}); run the recipe again") from error
    finished = (run / "metrics.json").exists()
    return [
        stage
        | {
            "done": finished or (run / "stages" / stage["name"] / "done.json").exists(),
            "rows": rows(run / "stages" / stage["name"] / "metrics.jsonl"),
        }
        for stage in trained
    ]


def rows(path: Path) -> list[dict[str, Any]]:
    """The finished epochs; the training may be in the middle of writing the last line, which is then left out.

    Raises BadData where a line is no row.
    """
    try:
        lines = path.read_bytes().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise BadData(f"{path} cannot be read: {error.strerror}; correct its permissions") from error
    found: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                break
            raise BadData(f"{path} is damaged in line {number} ({_line(error)}); run the recipe again") from error
        try:
            judged = row["validation"]
            numbers = {
                "epoch": row["epoch"],
                "loss": row["training"]["loss"],
                "accuracy": judged["accuracy"],
                "standard_error": judged["standard_error"],
                "seconds": row["seconds"],
            }
            if not all(math.isfinite(value) for value in numbers.values()):
                raise ValueError("a number that is not finite")
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise BadData(f"{path} holds no epoch in line {number} ({_line(error)}); run the recipe again") from error
        found.append(numbers)
    return found


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:100] or type(error).__name__
