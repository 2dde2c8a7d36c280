"""How long the sample code and Bantam take to the same validation accuracy, on the same machine and photographs.

    python benchmarks/time_to_accuracy.py --data DIR [--target A] [--recipe medium] [--set key=value] [--out FILE]

The sample code (sample_code.py) trains in its own way for its 10 epochs; Bantam runs a recipe from nothing: its time
includes decoding the photographs and asking the teacher. The two take turns, an epoch at a time, whoever has used less
time so far, so a machine that is slow for a while is slow for both. They share a process, and so what Bantam does for
speed at its start (keeping freed memory) serves both. The target is what the sample code reaches, unless
one is given; then either stops when it is there.
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
from bantam import pipeline, recipe
from bantam.files import explained
from bantam.recipe import Recipe
from bantam.train.runlog import Row, Watcher
from evidence import RESULTS, write
from sample_code import SampleCode

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


class Turns(Watcher):
    """Looks on while Bantam trains, and lets the sample code have its turn after an epoch; keeps both times."""

    def __init__(self, opponent: Opponent, shipped: str) -> None:
        self.opponent, self.shipped = opponent, shipped
        self.started, self.others = time.monotonic(), 0.0
        self.phases: dict[str, float] = {}
        self.phase, self.phase_began = "", 0.0
        self.history: list[Reached] = []

    @property
    def seconds(self) -> float:
        """What Bantam has used: all the time but the sample code's."""
        return time.monotonic() - self.started - self.others

    def begin(self, name: str, total: int, done: int) -> None:
        self.phase, self.phase_began = name, self.seconds

    def end(self) -> None:
        self.phases[self.phase] = self.phases.get(self.phase, 0.0) + self.seconds - self.phase_began

    def epoch(self, row: Row) -> None:
        if self.phase != self.shipped:
            return
        accuracy = row["validation"]["accuracy"]
        self.history.append((self.seconds, accuracy))
        print(f"bantam       {self.seconds:7.1f} s  {accuracy:.4f}", flush=True)
        opponent = self.opponent
        while not opponent.finished and opponent.seconds < self.history[-1][0]:
            began = time.monotonic()
            opponent.epoch()
            self.others += time.monotonic() - began
        target = opponent.target if opponent.target is not None else opponent.best if opponent.finished else None
        if target is not None and first_at(self.history, target) is not None:
            raise Arrived


def race(plan: Recipe, root: Path, epochs: int, target: float | None, folder: Path) -> dict[str, Any]:
    """Run both on the photographs in `root`; gives both histories, and both times to the target."""
    opponent = Opponent(root, epochs, target)
    turns = Turns(opponent, plan.shipped.name)
    pipeline.open_data(plan, root, Watcher())
    turns.phases["photographs"] = turns.seconds
    with contextlib.suppress(Arrived):
        pipeline.run(plan, root, folder / "run", turns)
    while not opponent.finished:
        opponent.epoch()
    goal = opponent.best if target is None else target
    theirs, ours = first_at(opponent.history, goal), first_at(turns.history, goal)
    before = {name: seconds for name, seconds in turns.phases.items() if name != plan.shipped.name}
    prepared = sum(before.values())
    return {
        "recipe": plan.name,
        "target": goal,
        "sample_code": {"seconds": theirs, "epochs": len(opponent.history), "history": opponent.history},
        "bantam": {"seconds": ours, "epochs": len(turns.history), "history": turns.history, "preparation": before},
        "ratio": theirs / ours if theirs is not None and ours is not None else None,
        "ratio_when_prepared": theirs / (ours - prepared) if theirs is not None and ours is not None else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--target", type=float, help="validation accuracy; by default what the sample code reaches")
    parser.add_argument("--epochs", type=int, default=sample_code.EPOCHS, help="epochs of the sample code")
    parser.add_argument("--recipe", default="medium")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a change to the recipe")
    parser.add_argument("--out", type=Path, default=RESULTS / "benchmarks" / "time_to_accuracy.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, explained(Path(temporary)):
        # A cache of its own: nothing that an earlier run has prepared may help.
        os.environ["BANTAM_CACHE"] = str(Path(temporary) / "cache")
        plan = recipe.load(options.recipe, options.set)
        result = race(plan, options.data, options.epochs, options.target, Path(temporary))
    theirs, ours = result["sample_code"]["seconds"], result["bantam"]["seconds"]
    if result["ratio"] is None:
        print(f"to {result['target']:.4f}: sample code {theirs} s, bantam {ours} s: not both have reached it")
    else:
        print(
            f"to {result['target']:.4f}: sample code {theirs:.0f} s, bantam {ours:.0f} s, ratio {result['ratio']:.1f} "
            f"({result['ratio_when_prepared']:.1f} where the photographs and answers are cached)"
        )
    write(options.out, {**result, "settings": options.set})


if __name__ == "__main__":
    main()
