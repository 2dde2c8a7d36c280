"""The loop: resuming after a kill, refusing what it must not see, stopping when something is wrong."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bantam.data import cache
from bantam.data.splits import IMAGENET
from bantam.errors import SplitLeak, TrainingStopped
from bantam.nets.output import Output
from bantam.nets.students import describe
from bantam.pipeline import run as pipeline
from bantam.recipes.recipe import (
    Recipe,
    dump,
    override,
    parse,
)
from bantam.runs.runfolder import Row
from bantam.runs.runfolder import rows as read_rows
from bantam.runs.watcher import Watcher
from bantam.train import loop
from bantam.train.loop import train
from bantam.train.place import Place
from bantam.train.plan import Plan
from bantam.train.step import Step
from children import bound_to_parent
from killed_run import assert_same, run_process
from tiny_run import RECIPE


@pytest.fixture(scope="module")
def uninterrupted(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    assert run_process(RECIPE, photographs, out) == 0
    return out


@pytest.mark.parametrize(
    ("place", "at"),
    [("step", 1), ("step", 9), ("save", 1), ("save", 8), ("log", 2)],
    ids=[
        "first step",
        "within an epoch",
        "first checkpoint half-written",
        "a later one half-written",
        "after a log line",
    ],
)
def test_killed_and_run_again_ends_with_the_same_bits(
    place: str, at: int, photographs: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert run_process(RECIPE, photographs, out, place, at) == -signal.SIGKILL
    assert not (out / "student_best.ckpt").exists()
    assert run_process(RECIPE, photographs, out) == 0
    assert_same(out, uninterrupted)
    assert not list(out.rglob("*.tmp"))


def test_the_command_line_killed_from_outside_goes_on(photographs: Path, uninterrupted: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(RECIPE)
    out = tmp_path / "run"
    command = [sys.executable, "-m", "bantam", "run", str(recipe), "--data", str(photographs), "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet, preexec_fn=bound_to_parent())
    log = out / "stages" / "student" / "metrics.jsonl"
    while process.poll() is None and not (log.exists() and log.read_text()):
        time.sleep(0.005)
    process.kill()
    process.wait()
    finished = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert_same(out, uninterrupted)


def test_another_recipe_in_the_same_folder_is_refused(photographs: Path, uninterrupted: Path) -> None:
    from bantam.errors import RunMismatch

    with pytest.raises(RunMismatch, match="seed = 1"):
        pipeline.run(parse(RECIPE, settings=["seed=1"]), photographs, uninterrupted)


def test_a_finished_run_does_nothing_again(photographs: Path, uninterrupted: Path) -> None:
    before = (uninterrupted / "stages" / "student" / "best.ckpt").stat().st_mtime_ns
    metrics = pipeline.run(parse(RECIPE), photographs, uninterrupted)
    assert (uninterrupted / "stages" / "student" / "best.ckpt").stat().st_mtime_ns == before
    assert metrics == json.loads((uninterrupted / "metrics.json").read_text())


def trained(recipe: Recipe, photographs: Path, folder: Path, **changes: Any) -> loop.Trained:
    """Train the recipe's student in this process."""
    splits = cache.open_splits(photographs, recipe.data.size)
    torch.manual_seed(0)
    stage = recipe.shipped
    net = changes.pop("net", None) or describe(stage.net, recipe.budget, 3, stage.size).build()
    validation = changes.pop("validation", splits.validation)
    place = Place(folder, changes.pop("watcher", Watcher()), left=changes.pop("left", None))
    plan = Plan(stage, splits.training, IMAGENET, pipeline.goals_of(stage))
    return train(net, replace(plan, **changes), validation, place)


class Dropping(nn.Module):
    """A net whose every step draws from the generator."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5)
        )
        self.head = nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.layers(images))


def test_a_resumed_net_with_dropout_ends_with_the_same_bits(
    tiny: Recipe, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    learn, steps = Step.learn, 0

    def dying(*arguments: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == 9:
            raise Killed
        return learn(*arguments)

    torch.manual_seed(1)
    start = Dropping().state_dict()

    def net() -> Dropping:
        fresh = Dropping()
        fresh.load_state_dict(start)
        return fresh

    whole = trained(tiny, photographs, tmp_path / "whole", net=net())
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(Step, "learn", dying)
    with pytest.raises(Killed):
        trained(tiny, photographs, tmp_path / "killed", net=net())
    assert (tmp_path / "killed" / "last.ckpt").exists()
    monkeypatch.setattr(Step, "learn", learn)
    again = trained(tiny, photographs, tmp_path / "killed", net=net())
    assert again.weights.keys() == whole.weights.keys()
    for name, value in whole.weights.items():
        assert torch.equal(again.weights[name], value), name


@pytest.mark.parametrize("place", ["training", "validation"])
def test_the_evaluation_split_is_refused_for_training_and_for_selection(
    place: str, tiny: Recipe, photographs: Path, tmp_path: Path
) -> None:
    evaluation = cache.open_splits(photographs, 32).evaluation
    with pytest.raises(SplitLeak, match="evaluation split"):
        trained(tiny, photographs, tmp_path, **{place: evaluation})
    assert not list(tmp_path.iterdir())


def test_it_learns(tiny: Recipe, photographs: Path, tmp_path: Path) -> None:
    longer = parse(dump(tiny), settings=["student.epochs=16", "student.augment.cutmix=0.0"])
    assert trained(longer, photographs, tmp_path).best["validation"]["accuracy"] > 0.8


def test_a_training_explains_whether_a_second_thread_makes_its_views_and_ends_it(
    tiny: Recipe, photographs: Path, tmp_path: Path
) -> None:
    said: list[str] = []

    class Listener(Watcher):
        def explain(self, text: str) -> None:
            said.append(text)

    longer = parse(dump(tiny), settings=["student.epochs=8"])
    trained(longer, photographs, tmp_path, watcher=Listener())
    assert [line.startswith("student: the next views are made") for line in said] == [True]
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("views")]


def test_the_best_epoch_is_kept_and_the_weights_are_its(tiny: Recipe, photographs: Path, tmp_path: Path) -> None:
    result = trained(parse(dump(tiny), settings=["student.epochs=8"]), photographs, tmp_path)
    rows = read_rows(tmp_path / "metrics.jsonl")
    best = max(row["validation"]["accuracy"] for row in rows)
    first = next(row["epoch"] for row in rows if row["validation"]["accuracy"] == best)
    assert (result.best["epoch"], result.best["validation"]["accuracy"]) == (first, best)
    net = describe("mobilenet_v1", 5000, 3, 32).build()
    net.load_state_dict(result.weights)
    judged = loop.judge(net, cache.open_splits(photographs, 32).validation, 32, IMAGENET)
    assert judged["accuracy"] == best


def test_a_loss_that_is_not_finite_stops_with_one_line(tiny: Recipe, photographs: Path, tmp_path: Path) -> None:
    wild = parse(dump(tiny), settings=["student.optimizer.lr=1e30", "student.optimizer.clip=0.0", "student.ema=0.0"])
    with pytest.raises(TrainingStopped, match=r"loss is not finite .* lower student\.optimizer\.lr") as raised:
        trained(wild, photographs, tmp_path)
    assert "\n" not in str(raised.value)


def test_predictions_of_one_class_stop_the_run(
    tiny: Recipe, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "FIRST_STEPS", 0)
    still = parse(dump(tiny), settings=["student.optimizer.lr=0.0", "student.epochs=9", "student.ema=0.0"])
    net = describe("mobilenet_v1", 5000, 3, 32).build()
    with torch.no_grad():
        net.head.bias.copy_(torch.tensor([50.0, 0.0, 0.0]))
    with pytest.raises(TrainingStopped, match=r"collapsed to one class for 3 epochs \(epoch 3\)"):
        trained(still, photographs, tmp_path / "run", net=net)

    said: list[str] = []

    class Told(Watcher):
        def say(self, text: str) -> None:
            said.append(text)

    result = trained(still, photographs, tmp_path / "fit", net=net, watcher=Told(), left=lambda: 1.0)
    assert result.best["epoch"] == 1
    (warning,) = [line for line in said if "collapsed" in line]
    assert warning.endswith("for 3 epochs (epoch 3); it goes on, and the best epoch is kept")


def test_overriding_a_stage_does_not_touch_the_others() -> None:
    values: dict[str, Any] = {"stage": [{"name": "a", "epochs": 1}, {"name": "b", "epochs": 1}]}
    override(values, "b.epochs=2")
    assert values["stage"] == [{"name": "a", "epochs": 1}, {"name": "b", "epochs": 2}]


class Broken(nn.Module):
    """Trains well and answers validation with NaN from the second epoch on."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.judged = net, 0

    def observe(self, images: torch.Tensor) -> Output:
        return self.net.observe(images)  # pyright: ignore[reportCallIssue]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.judged += 1
        return self.net(images) * (float("nan") if self.judged > 1 else 1.0)


def test_answers_on_validation_that_are_not_finite_end_the_training(
    tiny: Recipe, photographs: Path, tmp_path: Path
) -> None:
    stage = parse(RECIPE, settings=["student.ema=0.0"]).shipped
    net = Broken(describe(stage.net, 5000, 3, 32).build())
    told: list[int] = []

    class Told(Watcher):
        def epoch(self, row: Row) -> None:
            told.append(row["epoch"])

    with pytest.raises(TrainingStopped, match="answers on validation are not finite after epoch 2; lower student"):
        trained(tiny, photographs, tmp_path, net=net, stage=stage, watcher=Told())
    assert told == [1]
    assert [row["epoch"] for row in read_rows(tmp_path / "metrics.jsonl")] == [1]


def test_weights_that_are_not_finite_are_never_kept(
    tiny: Recipe, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without validation nothing else would notice: a refit keeps its last epoch's weights."""
    check = loop.State.check_finite

    def spoilt(state: loop.State) -> None:
        check(state)
        nn.init.constant_(next(state.step.net.parameters()), float("inf"))

    monkeypatch.setattr(loop.State, "check_finite", spoilt)
    stage = parse(RECIPE, settings=["student.ema=0.0"]).shipped
    with pytest.raises(TrainingStopped, match="the weights are not finite after epoch 1"):
        trained(tiny, photographs, tmp_path, stage=stage, validation=None)
