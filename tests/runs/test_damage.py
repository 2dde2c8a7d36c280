"""Damaged files of a run: whatever reads them says so in one line, or gives the right answer all the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bantam.errors import BadCheckpoint
from bantam.pipeline import run as pipeline
from bantam.recipes.recipe import parse
from bantam.runs import checkpoint, runfolder
from bantam.runs.finished import load_shipped
from bantam.runs.runfolder import Row
from bantam.runs.watcher import Watcher
from bantam.train import loop
from damage import Command, Damage, copied, damages, flipped, outcome, tried
from run_readers import READERS, commands_on, told
from tiny_run import RECIPE


@pytest.fixture
def commands(photographs: Path, tmp_path: Path) -> dict[str, Command]:
    return commands_on(photographs, tmp_path)


def assert_held(cases: Any, least: int) -> None:
    found = list(cases)
    assert len(found) >= least
    assert [case for case in found if case.outcome] == []


def a_sample(damage: Damage) -> bool:
    return damage.name in ("half", "{}", "other keys", "other weights", "a folder") or "flipped" in damage.name


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["a sample", "every damage"])
@pytest.mark.parametrize("file", READERS)
def test_a_damaged_file_of_a_finished_run_is_one_line_or_no_matter(
    file: str, every: bool, finished_run: Path, commands: dict[str, Command], tmp_path: Path
) -> None:
    """`make faults` tries every damage too, and counts."""
    quick = {name: commands[name] for name in READERS[file]}
    chosen = (lambda damage: True) if every else a_sample
    assert_held(tried(finished_run, [file], quick, tmp_path, chosen=chosen), 9 if every else 4)


@pytest.mark.parametrize("file", [name for name in READERS if name != "submission.csv"])
def test_the_run_and_the_report_of_a_damaged_run(
    file: str, finished_run: Path, commands: dict[str, Command], tmp_path: Path
) -> None:
    dear = {name: commands[name] for name in ("run", "report")}
    assert_held(tried(finished_run, [file], dear, tmp_path, 1, a_sample), 2)


class Kill(Exception):
    """Stands for a kill: nothing in the library catches it."""


class KilledInTheThirdEpoch(Watcher):
    def epoch(self, row: Row) -> None:
        if row["epoch"] == 3:
            raise Kill


@pytest.fixture(scope="module")
def interrupted(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("interrupted") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "SAVE_EVERY", 0.0)
        with pytest.raises(Kill):
            pipeline.run(parse(RECIPE), photographs, out, KilledInTheThirdEpoch())
    assert (out / "stages/student/last.ckpt").exists()
    return out


@pytest.mark.parametrize(
    "file",
    [
        "recipe.toml", "environment.json", "stages/student/probe.json", "stages/student/metrics.jsonl",
        "stages/student/last.ckpt",
    ],
)  # fmt: skip
def test_a_damaged_file_of_an_interrupted_run_is_one_line_or_the_same_bits(
    file: str, interrupted: Path, finished_run: Path, commands: dict[str, Command], tmp_path: Path
) -> None:
    right = told(finished_run)
    assert commands["run"](copied(interrupted, tmp_path / "run")) == right
    every = damages(interrupted / file, 2)
    for damage in every if file.endswith("last.ckpt") else filter(a_sample, every):
        run = copied(interrupted, tmp_path / "run")
        damage.apply(run / file)
        assert outcome(lambda: commands["run"](run), right) == "", damage.name  # noqa: B023


def test_what_is_said_of_a_damaged_checkpoint_helps(
    interrupted: Path, finished_run: Path, photographs: Path, tmp_path: Path
) -> None:
    """After deleting it the run ends with the same bits, from the beginning of the stage."""
    run = copied(interrupted, tmp_path / "run")
    last = run / "stages/student/last.ckpt"
    last.write_bytes(flipped(last.read_bytes(), 8 * 30_000))
    with pytest.raises(BadCheckpoint, match=r"last\.ckpt.*CRC-32.*delete it and run again"):
        pipeline.run(parse(RECIPE), photographs, run)
    last.unlink()
    pipeline.run(parse(RECIPE), photographs, run)
    assert told(run) == told(finished_run)


def test_a_checkpoint_of_another_training_of_the_same_net_is_told_apart(
    interrupted: Path, photographs: Path, tmp_path: Path
) -> None:
    other = parse(RECIPE, settings=["student.optimizer.lr=1e-3"])
    out = tmp_path / "other"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "SAVE_EVERY", 0.0)
        with pytest.raises(Kill):
            pipeline.run(other, photographs, out, KilledInTheThirdEpoch())
    run = copied(interrupted, tmp_path / "run")
    (out / "stages/student/last.ckpt").replace(run / "stages/student/last.ckpt")
    with pytest.raises(BadCheckpoint, match="of another training"):
        pipeline.run(parse(RECIPE), photographs, run)


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "of an older run"])
def test_every_flipped_bit_of_the_weights_is_found_or_does_nothing(recorded: bool, own_run: Path) -> None:
    """All over the file, and every byte of its end, which is the archive's table."""
    path = own_run / "student_best.ckpt"
    known = runfolder.student(own_run)["weights"] if recorded else None
    data = path.read_bytes()

    def weights() -> dict[str, Any]:
        return {name: value.tolist() for name, value in checkpoint.weights(path, sha256=known).items()}

    right = weights()
    places = [*range(0, len(data), len(data) // 60), *range(len(data) - 100, len(data))]
    found = 0
    for number, place in enumerate(places):
        path.write_bytes(flipped(data, 8 * place + number % 8))
        try:
            assert weights() == right
        except BadCheckpoint:
            found += 1
    assert found == len(places) if recorded else found > 50


@pytest.mark.parametrize("change", [lambda value: value + 1, lambda value: value * float("nan")], ids=["other", "NaN"])
def test_whole_weights_that_are_not_this_run_s_are_refused(
    change: Callable[[torch.Tensor], torch.Tensor], own_run: Path, photographs: Path
) -> None:
    for path, use in (
        (own_run / "student_best.ckpt", lambda: load_shipped(own_run)),
        (own_run / "stages/student/best.ckpt", lambda: pipeline.run(parse(RECIPE), photographs, own_run)),
    ):
        state = {
            name: change(value) if value.is_floating_point() else value for name, value in checkpoint.load(path).items()
        }
        checkpoint.save(path, state)
        with pytest.raises(BadCheckpoint, match="SHA-256 is another"):
            use()
