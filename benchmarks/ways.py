"""The way of a student through the stages that trained it: how good it was after how many minutes."""

import math
import statistics
from collections.abc import Mapping
from typing import Any


def way(study: Mapping[str, Any]) -> list[tuple[float, dict[str, Any]]]:
    """The student stages of stages.json, each with the minutes that the run had taken by then, teachers included."""
    minutes, found = 0.0, list[tuple[float, dict[str, Any]]]()
    for row in study["rows"]:
        minutes += row.get("seconds", 0.0) / 60
        if row["kind"] == "student":
            found.append((minutes, row))
    return found


def doubling(study: Mapping[str, Any]) -> float:
    """What each doubling of the minutes brought in accuracy, over all stages of the way: a least-squares line."""
    steps = [(math.log2(minutes), row["accuracy"]) for minutes, row in way(study)]
    return statistics.linear_regression([step for step, _ in steps], [value for _, value in steps]).slope
