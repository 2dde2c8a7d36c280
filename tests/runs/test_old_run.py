"""Runs of an older version: one that was killed goes on, one that was finished serves every command."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from bantam.cli.main import app

OLD = Path(__file__).parents[1] / "fixtures" / "old_run"
PHOTOGRAPHS = OLD / "photographs"


@pytest.fixture
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy of the run that the test names."""
    return Path(shutil.copytree(OLD / request.param, tmp_path / "run"))


def call(*words: object) -> str:
    """What a command prints; it ends well."""
    ended = CliRunner().invoke(app, [*map(str, words)])
    assert ended.exit_code == 0, (ended.output, ended.exception)
    return ended.stdout


def test_they_are_of_another_version() -> None:
    """Not made again by whoever found this test failing."""
    commits = {
        json.loads((OLD / run / "environment.json").read_text())["commit"] for run in ("finished", "interrupted")
    }
    assert commits == {"c259c339b6de4cf39aa082c398477f6a3011dc54"}
    assert "sha256" not in (OLD / "finished" / "recipe.toml").read_text()  # from before there were seals
    assert "weights" not in json.loads((OLD / "finished" / "student.json").read_text())


def uncalibrated(run: Path) -> dict[str, torch.Tensor]:
    """The shipped weights, with logits as they were before what ships was calibrated."""
    temperature = json.loads((run / "metrics.json").read_text())["validation"]["calibration"]["temperature"]
    weights = torch.load(run / "student_best.ckpt", weights_only=True)
    return {name: value * (temperature if name.startswith("head.") else 1) for name, value in weights.items()}


@pytest.mark.parametrize("old", ["interrupted"], indirect=True)
def test_an_interrupted_one_goes_on_and_comes_to_what_the_old_version_came_to(old: Path) -> None:
    before = (old / "stages" / "student" / "metrics.jsonl").read_text().splitlines()
    assistant = (old / "stages" / "assistant" / "best.ckpt").read_bytes()

    call("run", OLD / "recipe.toml", "--data", PHOTOGRAPHS, "--out", old)

    rows = list(map(json.loads, (old / "stages" / "student" / "metrics.jsonl").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert rows[0].items() >= json.loads(before[0]).items()  # the first epoch was not trained again
    assert (old / "stages" / "assistant" / "best.ckpt").read_bytes() == assistant
    assert not (old / "stages" / "student" / "last.ckpt").exists()

    metrics, theirs = (json.loads((run / "metrics.json").read_text()) for run in (old, OLD / "finished"))
    assert metrics["validation"].items() >= theirs["validation"].items()
    mine = uncalibrated(old)
    for name, value in torch.load(OLD / "finished" / "student_best.ckpt", weights_only=True).items():
        torch.testing.assert_close(mine[name], value, rtol=1e-3, atol=1e-3)  # another processor rounds otherwise
    assert (old / "submission.csv").read_bytes() == (OLD / "finished" / "submission.csv").read_bytes()


@pytest.mark.parametrize("old", ["finished"], indirect=True)
def test_a_finished_one_is_not_trained_again(old: Path) -> None:
    kept = digests(old, "student_best.ckpt", "metrics.json", "stages/student/best.ckpt", "stages/student/done.json")
    call("run", OLD / "recipe.toml", "--data", PHOTOGRAPHS, "--out", old)
    assert {**kept, **digests(old, "stages/student/best.ckpt", "stages/student/done.json")} == kept
    mine = uncalibrated(old)
    for name, value in torch.load(OLD / "finished" / "student_best.ckpt", weights_only=True).items():
        torch.testing.assert_close(mine[name], value, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("old", ["finished"], indirect=True)
def test_a_finished_one_predicts_packages_verifies_and_reports(old: Path, tmp_path: Path) -> None:
    answers = tmp_path / "answers.csv"
    call("predict", old, "--data", PHOTOGRAPHS, "--out", answers)
    assert answers.read_bytes() == (OLD / "finished" / "submission.csv").read_bytes()
    photograph = PHOTOGRAPHS / "evaluation" / "0000.png"
    said = json.loads(call("predict", photograph, "--run", old, "--json"))
    best = max(said[str(photograph)].items(), key=lambda item: item[1])[0]
    assert answers.read_text().splitlines()[1] == f"0000,{best}"

    call("package", old)
    verdict = json.loads(call("verify", old / "hw13.zip", "--data", PHOTOGRAPHS, "--budget", 4000, "--json"))
    assert verdict["passed"]

    measured = json.loads(call("report", old, "--data", PHOTOGRAPHS, "--json"))
    text = Path(measured["markdown"]).read_text()
    assert "3,983" in text
    assert {"accuracy-assistant.svg", "accuracy-student.svg", "reliability.svg"} <= {
        Path(plot).name for plot in measured["plots"]
    }

    (row,) = json.loads(call("bench", "cost", old, "--json")).values()
    assert row["validation"]["accuracy"] == pytest.approx(0.75)


def digests(run: Path, *names: str) -> dict[str, str]:
    """The SHA-256 of files of a run, by name."""
    return {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in names}
