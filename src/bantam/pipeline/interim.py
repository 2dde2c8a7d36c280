"""The best student so far of a run that goes on: whoever stops it has one that answers."""

import time
from pathlib import Path
from typing import Any

from torch import Tensor

from bantam.errors import BadRunFile
from bantam.runs import runfolder
from bantam.runs.runfolder import Row
from bantam.runs.shipped import Shipped, ship

SELDOM = 20.0
"""Least seconds between two of them."""


class Interim:
    """Ships the student of a stage, in the folder `out`, whenever it is better than what is shipped there."""

    def __init__(self, out: Path, shipped: Shipped) -> None:
        self.out, self.shipped = out, shipped
        self.best, self.at = accuracy_of(out), -SELDOM

    def __call__(self, row: Row, weights: dict[str, Tensor]) -> None:
        """Ship `weights`, in the form that trained, with the metrics `row` of their epoch. Raises CannotWrite."""
        accuracy, now = row["validation"]["accuracy"], time.monotonic()
        if accuracy <= self.best or now - self.at < SELDOM:
            return
        # Killed in between there is no student, never one with the weights of another.
        (self.out / runfolder.STUDENT).unlink(missing_ok=True)
        ship(self.out, self.shipped, weights, {runfolder.INTERIM: {"validation": row["validation"]}})
        self.best, self.at = accuracy, now


def accuracy_of(out: Path) -> float:
    """The accuracy of the student so far in `out`; -1 where there is none."""
    try:
        told: dict[str, Any] = runfolder.student(out) if (out / runfolder.STUDENT).exists() else {}
        return float(told[runfolder.INTERIM]["validation"]["accuracy"])
    except (BadRunFile, KeyError, TypeError, ValueError):
        return -1.0
