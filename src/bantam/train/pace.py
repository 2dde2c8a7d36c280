"""A training that has to end at a time: the rest of its schedule is shortened or stretched, and that is written down.

How many steps a training has is planned before it begins. Where the machine turns slower than it was, the rest of the
schedule is gone through in fewer steps, where it turns faster in more, so the learning rate still comes down to its
end. The clock decides that, so each turn is written to the stage's folder before it is taken: whoever resumes takes
the same turns at the same steps.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, NamedTuple

import torch
from pydantic import Field

from bantam.errors import BadRunFile
from bantam.runs import runfolder
from bantam.runs.schema import Checked
from bantam.train.optim import averaging_decay, learning_rate
from bantam.train.step import Step

LONGEST = 4
"""Times the planned steps that a schedule is stretched to at most."""

LOOKS = 40
"""How often, about, a training looks at the clock."""

SELDOM, OFTEN = 20.0, 0.2
"""Most and least seconds between two looks."""

OFF, OFF_AT_THE_END = 0.1, 0.02
"""A training turns where it would miss its end by this share of what is left, and by this share of all its time."""


class Turn(NamedTuple):
    """From the step `step` on, counted from 0, the training is one of `total` steps."""

    step: int
    total: int


class Turned(Checked):
    """pace.json of a stage: the steps that were planned, and the turns since, each its step and its total."""

    planned: Annotated[int, Field(ge=1)]
    turns: list[Annotated[list[int], Field(min_length=2, max_length=2)]]


class Schedule:
    """Which step of the `planned` ones each step stands for, after some `turns`."""

    def __init__(self, planned: int, turns: Sequence[Turn] = ()) -> None:
        self.planned, self.turns = planned, (Turn(0, planned), *turns)

    @property
    def total(self) -> int:
        """The steps that there are, as of now."""
        return self.turns[-1].total

    def places(self) -> list[float]:
        """For each step its place in 0..planned - 1; between two turns they are evenly apart, and the last is the end.

        Without turns each step stands for itself, to the bit.
        """
        places: list[float] = []
        start = 0.0
        for turn, following in pairwise((*self.turns, Turn(self.total, self.total))):
            steps = max(1, turn.total - 1 - turn.step)
            rest = self.planned - 1 - start
            places += [start + number * rest / steps for number in range(following.step - turn.step)]
            start += (following.step - turn.step) * rest / steps
        return places


class Pace:
    """Holds the training of `step`, `planned` steps in epochs of `per_epoch`, to the seconds that it has `left`.

    `path` is its pace.json. `asked` gives the seconds that went into asking a teacher about views, and how many views
    were asked about; `views` is how many there are. Without `left` the schedule is as it was planned.
    Raises BadRunFile where pace.json is damaged, or of another training.
    """

    def __init__(
        self,
        step: Step,
        planned: int,
        per_epoch: int,
        path: Path,
        left: Callable[[], float] | None = None,
        answers_seconds: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.step, self.per_epoch, self.path, self.left = step, per_epoch, path, left
        self.answers_seconds = answers_seconds
        self.schedule = Schedule(planned, read_turns(path, planned))
        self.views = step.stage.views if step.answers else 0
        if left is not None:
            self.room(planned * LONGEST)
            self.whole = max(left(), 0.0)
            self.every = min(max(self.whole / LOOKS, OFTEN), SELDOM)
            self.marks: deque[tuple[float, int, float]] = deque()  # seconds, steps done, seconds of answers
        if len(self.schedule.turns) > 1:
            self.room(max(self.schedule.total, planned))
            self.follow()

    @property
    def total(self) -> int:
        """The steps of the training, as of now."""
        return self.schedule.total

    def room(self, steps: int) -> None:
        """Have the step's tables of rates in memory for so many steps, before a captured step reads them there."""
        for name in ("rates", "decays", "progress"):
            table = getattr(self.step, name)
            larger = table[-1:].expand(max(steps, len(table))).clone()
            larger[: len(table)] = table
            setattr(self.step, name, larger)

    def follow(self) -> None:
        """Write the rates of the schedule, and whatever else goes with the steps, to the step's tables, in place."""
        planned, of = self.schedule.planned, self.step.stage.optimizer
        places = self.schedule.places()
        rates = [learning_rate(place, planned, of.lr, of.warmup, of.final_lr) for place in places]
        decays = [averaging_decay(number, self.step.stage.ema) for number in range(len(places))]
        progress = [place / max(1, planned - 1) for place in places]
        for table, values in ((self.step.rates, rates), (self.step.decays, decays), (self.step.progress, progress)):
            table[: len(values)] = torch.tensor(values, dtype=table.dtype)

    def look(self, done: int) -> None:
        """Turn, if with `done` steps taken the clock says so and no turn that is written down lies ahead."""
        if self.left is None or done >= self.total:
            return
        now = time.monotonic()
        if not self.marks:
            self.marks.append((now, done, self.answers_seconds()))
            return
        if now - self.marks[-1][0] < self.every or done <= self.schedule.turns[-1].step:
            return
        self.marks.append((now, done, self.answers_seconds()))
        # What the recent steps took, validation in its share: of some looks, and of a whole epoch.
        while len(self.marks) > 4 and self.marks[-1][1] - self.marks[1][1] >= self.per_epoch:
            self.marks.popleft()
        (began, at, asked), (_, here, by_now) = self.marks[0], self.marks[-1]
        a_step = max(now - began - (by_now - asked), 1e-9) / max(1, here - at)
        left = self.left()
        total = max(done, min(done + self.affordable(done, left, a_step, by_now), LONGEST * self.schedule.planned))
        missed = abs(self.total - total) * a_step
        if total != self.total and missed > OFF * max(left, 0) and missed > OFF_AT_THE_END * self.whole:
            self.turn(Turn(done, total))

    def affordable(self, done: int, left: float, a_step: float, asked: float) -> int:
        """How many more steps there is time for, with what the teacher has yet to say about views."""
        begun = done // self.per_epoch + (done % self.per_epoch > 0)
        a_view = asked / min(begun, self.views) if self.views else 0.0
        to_ask = max(0, self.views - begun)
        steps = (left - to_ask * a_view) / a_step
        if steps < to_ask * self.per_epoch:  # not all views will be shown
            steps = left / (a_step + a_view / self.per_epoch)
        return max(0, int(steps))

    def turn(self, turn: Turn) -> None:
        """Go through the rest of the schedule in another number of steps, from here on and for good."""
        self.schedule = Schedule(self.schedule.planned, (*self.schedule.turns[1:], turn))
        write_turns(self.path, self.schedule)
        self.follow()


def read_turns(path: Path, planned: int) -> tuple[Turn, ...]:
    """The turns in a pace.json; none where there is none. Raises BadRunFile, also where `planned` is another number."""
    if not path.exists():
        return ()
    advice = f"delete it and {runfolder.LAST} beside it: the stage starts from its beginning"
    kept = runfolder.checked(Turned, path, runfolder.table(path, advice), advice)
    turns = tuple(Turn(step, total) for step, total in kept.turns)
    steps = [turn.step for turn in turns]
    if kept.planned != planned or steps != sorted(set(steps)) or any(turn.total < turn.step for turn in turns):
        raise BadRunFile(f"{path} is damaged, it is not of a training of {planned:,} steps; {advice}")
    return turns


def write_turns(path: Path, schedule: Schedule) -> None:
    """Write pace.json. Raises CannotWrite."""
    runfolder.write(path, {"planned": schedule.planned, "turns": [list(turn) for turn in schedule.turns[1:]]})
