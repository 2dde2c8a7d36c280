"""How much of a fit's time is gone, over all the processes that worked on it one after the other."""

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field

from bantam.errors import BadRunFile
from bantam.runs import runfolder
from bantam.runs.schema import Checked

KEPT_EVERY = 5.0
"""Seconds between two writings: what a kill can make it forget."""


class Kept(Checked):
    """clock.json: the seconds that are spent."""

    seconds: Annotated[float, Field(ge=0)]


class Clock:
    """Counts from `started`, a time of time.monotonic(), and from what `path` kept of earlier processes."""

    def __init__(self, path: Path, started: float) -> None:
        self.path, self.started, self.kept = path, started, started
        self.earlier = 0.0
        # A damaged clock costs time, not a result.
        with contextlib.suppress(BadRunFile):
            if path.exists():
                self.earlier = runfolder.checked(Kept, path, runfolder.table(path, ""), "").seconds

    def spent(self) -> float:
        """Seconds since the fit began, without those in which nobody worked on it."""
        return self.earlier + time.monotonic() - self.started

    def keep(self) -> None:
        """Write what is spent, if it is time to. Raises CannotWrite."""
        if (now := time.monotonic()) - self.kept >= KEPT_EVERY:
            self.kept = now
            runfolder.write(self.path, {"seconds": round(self.spent(), 2)})


class Ends:
    """The seconds that each stage has left: until the end that the plan gave it."""

    def __init__(self, clock: Clock, ends: Mapping[str, float]) -> None:
        self.clock, self.ends = clock, ends

    def __call__(self, stage: str) -> float:
        """For the stage of this name; keeps the clock."""
        self.clock.keep()
        return self.ends[stage] - self.clock.spent()
