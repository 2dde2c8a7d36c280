"""FROM PHOTOGRAPHS TO EVERYTHING, in the time that there is: look, time, plan, run, hand over.

The plan is written before the first step as an ordinary recipe. The run of it is the main path's (`pipeline/run.py`),
held to the plan's ends by the clock. Whoever starts the same fit again goes on where it was.
"""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bantam.data import cache
from bantam.data.check import TOLERATED_OVERLAP
from bantam.data.folder import list_images, usable
from bantam.data.splits import Splits
from bantam.errors import BadCheckpoint, BadData, CannotWrite, RunMismatch
from bantam.files import explained
from bantam.fit import known as knowing
from bantam.fit.asked import Asked
from bantam.fit.candidates import Candidate, Student, sizes_for, stored_for, students
from bantam.fit.clock import Clock, Ends
from bantam.fit.ending import forms, handed_over
from bantam.fit.kept import CLOCK, PLAN, read_plan, require_planned_for, write_plan
from bantam.fit.known import Known
from bantam.fit.lessons import MIXING, student_stage, teacher_stage
from bantam.fit.planning import FIXED, LEAST, Machine, Plan, chosen, planned
from bantam.fit.sight import look_at_given
from bantam.fit.stopwatch import speed_of
from bantam.fit.watching import FitWatcher
from bantam.nets.weights import file_and_name
from bantam.pipeline import run as pipeline
from bantam.runs import runfolder
from bantam.runs.finished import open_run
from bantam.runs.photographs import open_data
from bantam.runs.watcher import Counter, Watcher

TEACHER_FROM = 600.0
"""Seconds from which on it is looked whether a teacher could be trained."""

TIMING = 0.03
"""The share of the time that the stopwatch takes at most, for all candidates."""

LONG_LOOK, SHORT_LOOK = 1.5, 0.2
"""Most and least seconds for one candidate."""


def fit(root: Path, asked: Asked, out: Path, watcher: FitWatcher, started: float | None = None) -> dict[str, Any]:
    """Make the best student for the photographs in `root` in the time asked for, in the run `out`; gives fit.json.

    The time counts from `started` on, a time of time.monotonic(); from now on without it.
    Raises a BantamError for what a user can cause; what cannot be used is said before a folder is made.
    """
    clock = Clock(out / CLOCK, time.monotonic() if started is None else started)
    with explained(out):
        require_ours(out)
    plan = read_plan(out, asked)
    if plan is None:
        plan = made(root, asked, out, clock, watcher)
    elif not (out / runfolder.ENVIRONMENT).exists():  # killed before the run of it was claimed for its photographs
        require_planned_for(open_data(plan.recipe, root, watcher).fingerprint, out)
    watcher.planned(plan, asked, clock)
    pipeline.run(plan.recipe, root, out, watcher, left=Ends(clock, plan.ends))
    watcher.handing_over()
    run = open_run(out)
    splits = open_data(plan.recipe, root, watcher)
    pipeline.require_same(plan.recipe, out, splits.fingerprint)  # photographs may have changed while it trained
    largest = splits.validation.labels.bincount().max() / len(splits.validation)
    return handed_over(run, root, float(largest), forms(asked), watcher)


def require_ours(out: Path) -> None:
    """Raises RunMismatch where `out` holds what no fit has made, CannotWrite where nothing can be written there."""
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if there != out and not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        what = "cannot be written" if there.is_dir() else "is no folder"
        raise CannotWrite(f"cannot make {out}: {there} {what}; choose another --out")
    foreign = out.exists() and not (out / PLAN).exists()
    if foreign and (not out.is_dir() or any(item for item in out.iterdir() if not item.name.startswith("."))):
        raise RunMismatch(f"{out} is not empty and holds no fit; choose another --out")


def made(root: Path, asked: Asked, out: Path, clock: Clock, watcher: Watcher) -> Plan:
    """Look at the photographs and the machine, plan, and write the plan to `out`. Raises BadData, BudgetExceeded."""
    if asked.seconds < FIXED + LEAST:
        raise BadData(
            f"--time is too short: exports and checks alone take about {FIXED:.0f} s; give {FIXED + LEAST:.0f}s or more"
        )
    if asked.teacher is not None and not file_and_name(Path(asked.teacher))[0].is_file():
        raise BadCheckpoint(f"there is no teacher {asked.teacher}; check the path, or leave --teacher out")
    listing = usable(list_images(root), root)
    if len(listing.folder.classes) < 2:
        raise BadData(f"{root} has one class, and a classifier needs two; add photographs of another")
    looked = knowing.sample(listing)
    known = knowing.of_names(listing, looked)
    possible = students(asked, known.classes, sizes_for(looked.side, asked.size))
    watcher.say(f"{known.images:,} photographs of {known.classes} classes; how fast is this machine?")
    machine = Machine(tuple(timed(known, asked, possible, clock)))
    reading = clock.spent() + 2.5 * looked.seconds * known.images  # also hashed, and compared with one another
    best = chosen(known, asked, machine, min(reading, asked.seconds / 2))
    size = best.student.size
    machine = replace(machine, candidates=tuple(one for one in machine.candidates if one.student.size == size))

    progress = Counter(watcher, "decoding")
    splits = cache.open_splits(root, stored_for(looked.side, size), progress=progress, say=watcher.say)
    require_apart(splits, root)
    known = knowing.of_splits(splits, looked)
    machine = with_teacher(machine, known, asked, root, splits, watcher)
    plan = planned(known, asked, machine, clock.spent())
    with runfolder.alone_in(out):
        write_plan(out, plan, asked, known, machine, splits.fingerprint)
    return plan


def require_apart(splits: Splits, root: Path) -> None:
    """Raise BadData where so many training images are validation images that these would measure nothing."""
    if len(splits.overlap) > TOLERATED_OVERLAP * len(splits.validation):
        raise BadData(
            f"{root} has {len(splits.overlap):,} training images that are also validation images, such as "
            f"{splits.overlap[0]}: the accuracy there would be too high; remove them from training, or take the "
            "validation folder away, and validation is split off"
        )


def timed(known: Known, asked: Asked, possible: Sequence[Student], clock: Clock) -> Iterator[Candidate]:
    """Each student that comes into question, with its speed here; the first few where timing alone takes too long."""
    share = TIMING * asked.seconds / len(possible)
    seconds, began = min(max(share, SHORT_LOOK), LONG_LOOK), clock.spent()
    for one in possible:
        stage = student_stage(known, one, "timing", MIXING)
        stored = stored_for(known.side, one.size)
        yield Candidate(one, speed_of(stage, one.budget, known.classes, stored, seconds))
        if clock.spent() - began > asked.seconds / 4:
            break


def with_teacher(machine: Machine, known: Known, asked: Asked, root: Path, splits: Splits, watcher: Watcher) -> Machine:
    """`machine`, with the speed of the given teacher, or of one that might be trained."""
    size = machine.candidates[0].student.size
    if asked.teacher is not None:
        return replace(machine, given=look_at_given(root / asked.teacher, splits.validation, size, watcher))
    if asked.seconds < TEACHER_FROM:
        return machine
    stage = teacher_stage(known, "timing", size, MIXING)
    return replace(machine, teacher=speed_of(stage, 0, known.classes, stored_for(known.side, size), LONG_LOOK))
