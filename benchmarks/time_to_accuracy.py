"""How long the sample code and Bantam take to the same validation accuracy, on the same machine and photographs.

    python benchmarks/time_to_accuracy.py --data DIR [--target A] [--epochs 10] [--recipe quick] [--out FILE]

The sample code (sample_code.py) trains in its own way for its 10 epochs. Bantam runs a recipe three times: twice with a
schedule cut to a few epochs and one view of each image, then as it stands. Each run starts from nothing: its time
includes decoding the photographs and asking the teacher. The sample code's epochs lie between Bantam's runs, none
before the first and all before the last, so a machine that changes its speed does so for both, and the two short runs
tell by how much. All share a process, and so what Bantam does for speed at its start (keeping freed memory) serves
both. The target is what the sample code reaches, unless one is given; whoever knows it and is there stops.
"""

import argparse
import contextlib
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sample_code
from bantam.files import explained
from bantam.pipeline import run as pipeline
from bantam.recipes import recipe
from bantam.recipes.recipe import Recipe
from bantam.runs.photographs import open_data
from bantam.runs.runfolder import Row
from bantam.runs.watcher import Watcher
from evidence import RESULTS, write
from sample_code import SampleCode

SHORT = ("student.epochs=5", "student.views=1")
"""A schedule for whoever wants the sample code's accuracy and no more."""

Reached = tuple[float, float]
"""Seconds since the start, and the validation accuracy then."""


def first_at(history: Sequence[Reached], target: float) -> float | None:
    """The seconds at which `history` first reaches `target`."""
    return next((seconds for seconds, accuracy in history if accuracy >= target), None)


class Opponent:
    """The sample code, an epoch at a time."""

    def __init__(self, root: Path, epochs: int, target: float | None) -> None:
        self.training = SampleCode(root)
        self.epochs, self.target = epochs, target
        self.seconds = 0.0
        self.history: list[Reached] = []

    @property
    def finished(self) -> bool:
        there = self.target is not None and first_at(self.history, self.target) is not None
        return there or len(self.history) >= self.epochs

    @property
    def best(self) -> float:
        return max(accuracy for _, accuracy in self.history)

    def epoch(self) -> None:
        started = time.monotonic()
        for _ in self.training.steps():
            pass
        accuracy = self.training.accuracy()
        self.seconds += time.monotonic() - started
        self.history.append((self.seconds, accuracy))
        print(f"sample code  {self.seconds:7.1f} s  {accuracy:.4f}", flush=True)


class Arrived(Exception):
    """Bantam has reached the target: the rest of its run is of no interest."""


class Clock(Watcher):
    """Looks on while Bantam trains and stops it at the target, if there is one yet."""

    def __init__(self, shipped: str, target: float | None) -> None:
        self.shipped, self.target = shipped, target
        self.started = time.monotonic()
        self.phases: dict[str, float] = {}
        self.under_way: list[str] = []  # the teacher is asked in the midst of the student's training
        self.changed = 0.0
        self.history: list[Reached] = []

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def charge(self) -> None:
        """Put what has passed since the last change down to the innermost phase."""
        now = self.seconds
        if self.under_way:
            name = self.under_way[-1]
            self.phases[name] = self.phases.get(name, 0.0) + now - self.changed
        self.changed = now

    def begin(self, name: str, total: int, done: int) -> None:
        self.charge()
        self.under_way.append(name)

    def end(self) -> None:
        self.charge()
        self.under_way.pop()

    def epoch(self, row: Row) -> None:
        if self.under_way[-1] != self.shipped:
            return
        self.history.append((self.seconds, row["validation"]["accuracy"]))
        print(f"bantam       {self.history[-1][0]:7.1f} s  {self.history[-1][1]:.4f}", flush=True)
        if self.target is not None and first_at(self.history, self.target) is not None:
            raise Arrived


def run_of(plan: Recipe, root: Path, target: float | None, folder: Path) -> Clock:
    """A run of Bantam from nothing, in the new folder `folder`; gives what the clock showed."""
    # A cache of its own: nothing that an earlier run has prepared may help.
    os.environ["BANTAM_CACHE"] = str(folder / "cache")
    clock = Clock(plan.shipped.name, target)
    clock.begin("photographs", 1, 0)
    open_data(plan, root, Watcher())
    clock.end()
    with contextlib.suppress(Arrived):
        pipeline.run(plan, root, folder / "run", clock)
    return clock


def race(plans: Sequence[Recipe], root: Path, epochs: int, target: float | None, folder: Path) -> dict[str, Any]:
    """Run all of `plans`, at least two, between the sample code's epochs; gives all histories and times to the target.

    `folder` gets a folder for each run.
    """
    opponent = Opponent(root, epochs, target)
    clocks: list[Clock] = []
    for number, plan in enumerate(plans):
        while not opponent.finished and len(opponent.history) * (len(plans) - 1) < number * epochs:
            opponent.epoch()
        known = target if target is not None or not opponent.finished else opponent.best
        clocks.append(run_of(plan, root, known, folder / str(number)))
    goal = opponent.best if target is None else target
    theirs = first_at(opponent.history, goal)
    return {
        "target": goal,
        "sample_code": {"seconds": theirs, "epochs": len(opponent.history), "history": opponent.history},
        "bantam": [timed(plan, clock, goal, theirs) for plan, clock in zip(plans, clocks, strict=True)],
    }


def timed(plan: Recipe, clock: Clock, goal: float, theirs: float | None) -> dict[str, Any]:
    """One run's time to `goal`, against the sample code's; None where one of them has not come there.

    What is prepared once for a folder of photographs and a teacher is told apart: "ratio_when_prepared" leaves it out.
    """
    ours = first_at(clock.history, goal)
    before = {name: seconds for name, seconds in clock.phases.items() if name != clock.shipped}
    both = (theirs, ours) if theirs is not None and ours is not None else None
    return {
        "recipe": plan.name,
        "epochs": plan.shipped.epochs,
        "views": plan.shipped.views,
        "seconds": ours,
        "history": clock.history,
        "preparation": before,
        "ratio": both[0] / both[1] if both else None,
        "ratio_when_prepared": both[0] / (both[1] - sum(before.values())) if both else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--target", type=float, help="validation accuracy; by default what the sample code reaches")
    parser.add_argument("--epochs", type=int, default=sample_code.EPOCHS, help="epochs of the sample code")
    parser.add_argument("--recipe", default="quick")
    parser.add_argument("--out", type=Path, default=RESULTS / "benchmarks" / "time_to_accuracy.json")
    options = parser.parse_args()
    short, whole = recipe.load(options.recipe, list(SHORT)), recipe.load(options.recipe, [])
    with tempfile.TemporaryDirectory() as temporary, explained(Path(temporary)):
        result = race([short, short, whole], options.data, options.epochs, options.target, Path(temporary))
    theirs = result["sample_code"]["seconds"]
    print(f"to {result['target']:.4f}: sample code {'not reached' if theirs is None else f'{theirs:.0f} s'}")
    for run in result["bantam"]:
        said = f"{run['recipe']}, {run['epochs']} epochs, {run['views']} view(s)"
        if run["ratio"] is None:
            print(f"  {said}: no ratio, not both have reached it")
        else:
            print(
                f"  {said}: {run['seconds']:.0f} s, ratio {run['ratio']:.1f} "
                f"({run['ratio_when_prepared']:.1f} where the photographs and answers are cached)"
            )
    write(options.out, result)


if __name__ == "__main__":
    main()
