"""A whole search on tiny photographs: two processes of which one is killed, the winner's recipe, and bad input."""

import json
import multiprocessing
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from optuna.pruners import NopPruner

from bantam.cli import main as cli
from bantam.errors import BudgetExceeded, TrainingStopped
from bantam.pipeline import run as pipeline
from bantam.recipes import recipe as recipes
from bantam.recipes.recipe import parse
from bantam.runs import runfolder
from bantam.runs.runfolder import Row
from bantam.runs.watcher import Watcher
from bantam.search.queue import Queue, open_storage
from bantam.search.result import pareto_front
from bantam.search.search import Reporter, planned, search
from bantam.train import loop
from bantam.train.distributed import ALONE
from private_server import Server
from tiny_run import RECIPE

TRIALS = 3


class Killer(Watcher):
    """Kills one of two workers as soon as the first trial is finished."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)
        if text.startswith("search 1/"):
            victim = next(child for child in multiprocessing.active_children() if child.name.startswith("worker"))
            assert victim.pid is not None
            os.kill(victim.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def searched(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], list[str]]:
    out = tmp_path_factory.mktemp("searched") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BANTAM_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        killer = Killer()
        result = search(parse(RECIPE), photographs, out, TRIALS, workers=2, watcher=killer, heartbeat=1)
    return out, result, killer.said


def test_a_search_survives_a_killed_worker(searched: tuple[Path, dict[str, Any], list[str]]) -> None:
    out, result, said = searched
    assert any("has ended: exit status -9" in text for text in said)
    assert [row["slot"] for row in result["candidates"]] == list(range(TRIALS))
    assert sum(result["trials"].values()) == TRIALS
    assert result["trials"]["given_up"] == 0
    storage = open_storage(f"sqlite:///{out / 'search.db'}")
    study = Queue(storage, result["study"], [{}] * TRIALS, {}, NopPruner()).study
    finished = [trial.user_attrs["slot"] for trial in study.trials if trial.state.name in ("COMPLETE", "PRUNED")]
    assert sorted(finished) == list(range(TRIALS))
    assert sum(text.startswith("search ") for text in said) == TRIALS


def test_a_candidate_over_the_budget_is_rejected_before_training(
    searched: tuple[Path, dict[str, Any], list[str]],
) -> None:
    out, result, said = searched
    (row,) = [row for row in result["candidates"] if row["params"]["family"] == "sample"]
    assert row["state"] == "rejected"
    assert row["epochs"] is row["folder"] is None
    assert not list((out / "trials").glob("*-sample-*"))
    assert any("rejected: " in text and "budget is 5,000" in text for text in said)
    for row in result["candidates"]:
        if row["state"] != "rejected":
            assert 4000 < row["parameters"] <= 5000
            assert row["macs"] > 10_000
            assert (out / row["folder"] / "recipe.toml").exists()


def test_the_winners_recipe_runs(
    searched: tuple[Path, dict[str, Any], list[str]], photographs: Path, tmp_path: Path
) -> None:
    out, result, _ = searched
    recipe = recipes.load(str(out / "winner.toml"))
    assert recipe.budget == 5000
    assert recipe.shipped.epochs == 4
    text = (out / "winner.toml").read_text()
    assert text.startswith(f"# The best of {TRIALS} students within 5,000 parameters")
    metrics = pipeline.run(recipe, photographs, tmp_path / "run")
    winner = result["winner"]
    judged = metrics["stages"]["student"]["validation"]
    assert (judged["accuracy"], judged["n"]) == (winner["accuracy"], winner["n"])
    # The finalist's own folder is a finished run of that recipe.
    assert (out / winner["folder"] / "student_best.ckpt").exists()
    assert runfolder.recipe(out / winner["folder"]) == recipe


def test_the_same_search_again_has_nothing_to_do(
    searched: tuple[Path, dict[str, Any], list[str]], photographs: Path
) -> None:
    out, result, _ = searched
    before = (out / "pareto.svg").read_bytes()
    assert search(parse(RECIPE), photographs, out, TRIALS) == result
    assert (out / "pareto.svg").read_bytes() == before
    assert json.loads((out / "search.json").read_text()) == result
    assert b"million multiply-accumulates" in before


def test_a_recipe_that_trains_its_teacher_trains_it_once(photographs: Path, tmp_path: Path) -> None:
    teacher = (
        'name = "big"\nkind = "teacher"\nnet = "mobilenetv3_small_050"\nsize = 32\nepochs = 1\nprecision = "fp32"\n'
    )
    objectives = "objectives.supervised.weight = 1.0"
    text = RECIPE.replace("[[stage]]", f"[[stage]]\n{teacher}{objectives}\n[[stage]]\nteacher = 'big'", 1)
    text += "[stage.objectives.kd]\nweight = 1.0\n"
    work = planned(parse(text), photographs, tmp_path / "out", 1, None, Watcher(), 1)
    work.prepare_stages(Watcher())
    trained = tmp_path / "out" / "before" / "stages" / "big" / "best.ckpt"
    stamp = trained.stat().st_mtime_ns
    work.screening().work(lambda trial: work.train(trial, "trials", ALONE))
    (folder,) = (tmp_path / "out" / "trials").iterdir()
    assert os.path.samefile(folder / "stages" / "big" / "best.ckpt", trained)
    assert trained.stat().st_mtime_ns == stamp
    assert json.loads((folder / "metrics.json").read_text())["stages"]["student"]["epochs"] == 3


def test_an_interrupted_candidate_goes_on_at_its_last_epoch(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = planned(parse(RECIPE), photographs, tmp_path / "out", 1, None, Watcher(), 1)
    queue = work.screening()
    epoch = Reporter.epoch

    def interrupted(self: Reporter, row: Row) -> None:
        epoch(self, row)
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(Reporter, "epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        queue.work(lambda trial: work.train(trial, "trials", ALONE))
    monkeypatch.setattr(Reporter, "epoch", epoch)
    (checkpoint,) = (tmp_path / "out" / "trials").glob("*/stages/student/last.ckpt")
    assert checkpoint.stat().st_size > 0
    began: list[int] = []
    monkeypatch.setattr(Reporter, "begin", lambda self, name, total, done: began.append(done))
    queue.work(lambda trial: work.train(trial, "trials", ALONE))
    (finished,) = queue.finished()
    assert began == [11]  # the checkpoint before the last of the twelve steps of two epochs
    assert list(finished.intermediate_values) == [1, 2, 3]


def test_a_diverging_candidate_is_pruned_and_not_tried_again(photographs: Path, tmp_path: Path) -> None:
    recipe = parse(RECIPE, settings=["student.optimizer.lr=1e30", "student.optimizer.clip=0"])
    planned(recipe, photographs, tmp_path / "out", 1, None, Watcher(), 1).work()
    with pytest.raises(TrainingStopped, match=r"none of the 1 candidates could be trained: .*not finite"):
        search(recipe, photographs, tmp_path / "out", 1)


def test_an_impossible_budget_says_what_the_smallest_net_needs(photographs: Path, tmp_path: Path) -> None:
    with pytest.raises(BudgetExceeded, match="smallest mobilenet_v1 .* needs"):
        search(parse(RECIPE.replace("5000", "100")), photographs, tmp_path / "out", 2)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--budget", "0"], "--budget must be a whole number above 0"),
        (["--budget", "-5"], "--budget must be a whole number above 0"),
        (["--storage", "postgresql://me:secret@127.0.0.1:1/study"], "cannot use the storage postgresql://me:***@"),
        (["--storage", "study.db"], "not a database's address"),
        (["--recipe", "mediun"], 'did you mean "medium"'),
    ],
)
def test_bad_input_is_one_line(
    words: list[str],
    message: str,
    photographs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = ["bantam", "search", "--data", str(photographs), "--out", str(tmp_path / "out"), *words]
    monkeypatch.setattr(sys, "argv", given)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    said = capsys.readouterr().err
    assert stopped.value.code == 1
    assert message in said
    assert said.count("\n") == 1
    assert "secret" not in said


def test_the_front_keeps_what_no_cheaper_candidate_beats() -> None:
    points = [(3, 0.5), (1, 0.4), (2, 0.3), (1, 0.2), (4, 0.5), (5, 0.9)]
    front = pareto_front([{"macs": macs, "accuracy": accuracy} for macs, accuracy in points])
    assert [(row["macs"], row["accuracy"]) for row in front] == [(1, 0.4), (3, 0.5), (5, 0.9)]


@pytest.mark.slow
def test_two_searches_share_one_postgresql_study(photographs: Path, postgresql: Server, tmp_path: Path) -> None:
    url = postgresql.database("shared")
    context = multiprocessing.get_context("spawn")
    elsewhere = context.Process(
        target=search, args=(parse(RECIPE), photographs, tmp_path / "elsewhere", TRIALS, url, 1, None, 1)
    )
    elsewhere.start()
    here = search(parse(RECIPE), photographs, tmp_path / "here", TRIALS, url, heartbeat=1)
    elsewhere.join(60)
    assert elsewhere.exitcode == 0
    assert json.loads((tmp_path / "elsewhere" / "search.json").read_text()) == here
    folders = [path.name for place in ("here", "elsewhere") for path in (tmp_path / place).glob("trials/*")]
    assert len(folders) == len(set(folders)) == sum(row["state"] != "rejected" for row in here["candidates"])
    assert (tmp_path / "here" / "winner.toml").read_text() == (tmp_path / "elsewhere" / "winner.toml").read_text()
