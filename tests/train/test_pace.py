"""A training that has to end at a time: it does, comes down to its last rate, and takes the same turns when resumed."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bantam.data import cache
from bantam.data.splits import IMAGENET
from bantam.errors import BadRunFile
from bantam.nets.students import describe
from bantam.pipeline import run as pipeline
from bantam.recipes.recipe import parse
from bantam.runs import runfolder
from bantam.train import loop, pace
from bantam.train.loop import Trained, train
from bantam.train.pace import Schedule, Turn
from bantam.train.place import Place
from bantam.train.plan import Plan
from bantam.train.step import Step
from tiny_run import RECIPE

PER_EPOCH, EPOCHS = 6, 10
LONG = RECIPE.replace("epochs = 4", f"epochs = {EPOCHS}")


def test_without_turns_each_step_stands_for_itself() -> None:
    for planned in (1, 2, 7, 100):
        assert Schedule(planned).places() == list(range(planned))


@pytest.mark.parametrize(
    "turns",
    [
        [Turn(10, 50)],
        [Turn(10, 300)],
        [Turn(10, 50), Turn(20, 200), Turn(199, 201)],
        [Turn(99, 100)],
        [Turn(10, 11)],
        [Turn(10, 10)],
    ],
)
def test_after_turns_the_schedule_goes_on_where_it_was_and_ends_at_its_end(turns: list[Turn]) -> None:
    places = Schedule(100, turns).places()
    assert len(places) == turns[-1].total
    assert places[: turns[0].step] == list(range(turns[0].step))
    assert all(later >= earlier for earlier, later in pairwise(places))
    if turns[-1].total - 1 > turns[-1].step:
        assert places[-1] == pytest.approx(99)


class Machine:
    """A clock that goes on by what a step takes, and nothing else; the step that kills is counted from 1."""

    def __init__(self, patch: pytest.MonkeyPatch, seconds: dict[int, float], end: float, killed: int = 0) -> None:
        self.now, self.steps, self.end = 0.0, 0, end
        learn = Step.learn

        def counted(*args: Any) -> dict[str, Tensor]:
            self.steps += 1
            if self.steps == killed:
                raise KeyboardInterrupt
            self.now += next(seconds[step] for step in sorted(seconds, reverse=True) if step < self.steps)
            return learn(*args)

        patch.setattr(Step, "learn", counted)
        patch.setattr(pace.time, "monotonic", lambda: self.now)

    def left(self) -> float:
        return self.end - self.now


def trained(photographs: Path, folder: Path, machine: Machine | None) -> Trained:
    recipe = parse(LONG)
    splits = cache.open_splits(photographs, 32)
    torch.manual_seed(0)
    net = describe(recipe.shipped.net, recipe.budget, 3, 32).build()
    place = Place(folder)
    if machine is not None:
        place = replace(place, left=machine.left)
    return train(net, Plan(recipe.shipped, splits.training, IMAGENET, pipeline.goals_of(recipe.shipped)), None, place)


def test_a_machine_as_fast_as_planned_changes_no_bit(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = trained(photographs, tmp_path / "free", None)
    held = trained(photographs, tmp_path / "held", Machine(monkeypatch, {0: 1.0}, PER_EPOCH * EPOCHS))
    assert not (tmp_path / "held" / runfolder.PACE).exists()
    assert held.epochs == EPOCHS
    assert all(torch.equal(value, held.weights[name]) for name, value in free.weights.items())


@pytest.mark.parametrize(
    ("seconds", "steps"),
    [({0: 2.0}, 30), ({0: 0.5}, 120), ({0: 1.0, 30: 3.0}, 40), ({0: 0.1}, 60 * pace.LONGEST)],
    ids=["twice as slow", "twice as fast", "slower from the middle on", "as long as it may be"],
)
def test_it_ends_in_time_and_at_its_last_rate(
    seconds: dict[int, float], steps: int, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, seconds, PER_EPOCH * EPOCHS)
    ended = trained(photographs, tmp_path, machine)
    assert machine.now <= 1.05 * machine.end
    assert abs(machine.steps - steps) <= 0.05 * steps + 1
    assert ended.epochs == -(-machine.steps // PER_EPOCH)
    rows = runfolder.rows(tmp_path / "metrics.jsonl")
    assert rows[-1]["lr"] < 0.01 * max(row["lr"] for row in rows)


def test_who_resumes_takes_the_same_turns(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = {0: 2.0}
    whole = trained(photographs, tmp_path / "whole", Machine(monkeypatch, slow, 60.0))
    monkeypatch.undo()
    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)
    killed = Machine(monkeypatch, slow, 60.0, killed=20)
    with pytest.raises(KeyboardInterrupt):
        trained(photographs, tmp_path / "killed", killed)
    turned = (tmp_path / "killed" / runfolder.PACE).read_text()
    monkeypatch.undo()
    resumed = trained(photographs, tmp_path / "killed", None)  # and no clock: what is written down is enough
    assert (tmp_path / "killed" / runfolder.PACE).read_text() == turned
    assert resumed.epochs == whole.epochs < EPOCHS
    assert all(torch.equal(value, resumed.weights[name]) for name, value in whole.weights.items())


def test_a_training_whose_time_is_over_ends_with_what_it_has(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = Machine(monkeypatch, {0: 100.0}, 1.0)
    assert trained(photographs, tmp_path, machine).epochs == 1
    assert machine.steps <= 2


@pytest.mark.parametrize("planned", [59, 61])
def test_the_turns_of_another_training_are_refused(planned: int, photographs: Path, tmp_path: Path) -> None:
    pace.write_turns(tmp_path / runfolder.PACE, Schedule(planned, [Turn(5, 20)]))
    with pytest.raises(BadRunFile, match="not of a training of 60 steps"):
        trained(photographs, tmp_path, None)
