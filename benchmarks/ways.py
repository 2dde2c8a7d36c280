"""The way of a student through the stages that trained it: how good it was after how many minutes."""

import math
import statistics
from collections.abc import Mapping
from typing import Any


def way(study: Mapping[str, Any]) -> list[tuple[float, dict[str, Any]]]:
    """The stages of stages.json that trained the shipped student, each with the minutes that had gone into it by then.

    Those are the minutes of its students so far and of the teachers that were trained for them.
    """
    rows, minutes, found = {row["stage"]: row for row in study["rows"]}, 0.0, list[tuple[float, dict[str, Any]]]()
    for row in rows.values():
        minutes += row.get("seconds", 0.0) / 60
        if row["kind"] == "student":
            found.append((minutes, row))
    return found


def doubling(study: Mapping[str, Any]) -> float:
    """What each doubling of the minutes brought in accuracy, over all stages of the way: a least-squares line."""
    steps = [(math.log2(minutes), row["accuracy"]) for minutes, row in way(study)]
    return statistics.linear_regression([step for step, _ in steps], [value for _, value in steps]).slope
