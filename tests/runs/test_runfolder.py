"""The lock of a run's folder, and the readers of its files; what damage does to them is in test_damage."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bantam.errors import BadData, BadRunFile, RunBusy
from bantam.pipeline import run as pipeline
from bantam.recipes.recipe import dump, parse
from bantam.runs import runfolder
from bantam.runs.finished import open_run
from bantam.runs.runlog import RunLog
from bantam.runs.watcher import Watcher
from bantam.studies.quantize import quantize
from tiny_run import RECIPE

HOLDS = """
import sys, time
from pathlib import Path
from bantam.runs.runfolder import alone_in
with alone_in(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_process_is_told_at_once_and_a_killed_one_leaves_no_lock(
    finished_run: Path, own_run: Path, photographs: Path, tmp_path: Path
) -> None:
    held = subprocess.Popen([sys.executable, "-c", HOLDS, str(own_run)], stdout=subprocess.PIPE, text=True)
    assert held.stdout is not None
    try:
        assert held.stdout.readline() == "held\n"
        for call in (
            lambda: pipeline.run(parse(RECIPE), photographs, own_run),
            lambda: quantize(open_run(own_run), photographs, 0, Watcher()),
        ):
            with pytest.raises(RunBusy, match=f"another process is working in {own_run}") as said:
                call()
            assert "\n" not in str(said.value)
        assert not (own_run / "quantized").exists()
    finally:
        held.kill()
        held.wait()
        held.stdout.close()
    pipeline.run(parse(RECIPE), photographs, own_run)
    assert not (own_run / runfolder.LOCK).exists()


def test_a_new_run_holds_the_lock_until_its_end(photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    told: list[str] = []

    class Second(Watcher):
        def explain(self, text: str) -> None:
            if (out / "stages").exists():
                with pytest.raises(RunBusy):
                    pipeline.run(parse(RECIPE), photographs, out)
                told.append(text)

    pipeline.run(parse(RECIPE), photographs, out, Second())
    assert told
    assert not (out / runfolder.LOCK).exists()


def test_a_folder_in_which_nothing_was_written_is_gone_again(tmp_path: Path) -> None:
    with runfolder.alone_in(tmp_path / "new"):
        assert (tmp_path / "new").is_dir()
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    with runfolder.alone_in(tmp_path / "old"):
        pass
    assert (tmp_path / "old").is_dir()


def test_an_error_gives_the_lock_back(tmp_path: Path) -> None:
    with pytest.raises(KeyError), runfolder.alone_in(tmp_path):
        raise KeyError
    with runfolder.alone_in(tmp_path):
        assert os.listdir(tmp_path) == [runfolder.LOCK]


# --- readers


@pytest.mark.parametrize("name", ["simple", "quick", "strong", "slim", "sizes", "exits"])
def test_runs_from_before_there_were_seals_are_read(name: str) -> None:
    run = Path(__file__).parents[2] / "results" / "food-11" / name
    assert runfolder.result(run)["budget"] == 60_000
    assert runfolder.recipe(run).budget == 60_000
    assert runfolder.environment(run)
    assert "weights" not in runfolder.student(run)


def test_a_recipe_comes_back_and_can_be_run_elsewhere(tmp_path: Path) -> None:
    recipe = parse(RECIPE)
    runfolder.write_recipe(tmp_path, recipe)
    assert runfolder.recipe(tmp_path) == recipe
    text = (tmp_path / "recipe.toml").read_text()
    assert parse(text) == recipe
    (tmp_path / "recipe.toml").write_text(text.replace("size = 32", "size = 33", 1))
    with pytest.raises(BadRunFile, match="sha256 does not fit"):
        runfolder.recipe(tmp_path)
    (tmp_path / "recipe.toml").write_text(dump(recipe))
    assert runfolder.recipe(tmp_path) == recipe


def test_a_damaged_line_in_the_middle_is_an_error_and_half_a_line_at_the_end_is_not(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = RunLog(path, 0)
    for epoch in (1, 2, 3):
        log.append({"epoch": epoch, "seconds": 1.5})
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[0][:20]]))
    assert [row["epoch"] for row in runfolder.rows(path)] == [1, 2, 3]
    path.write_text("\n".join([lines[0], lines[1].replace("1.5", "2.5"), lines[2], ""]))
    with pytest.raises(BadRunFile, match="line 2"):
        runfolder.rows(path)
    path.write_text(lines[0] + "\n")
    with pytest.raises(BadRunFile, match="lacks epoch 2"):
        RunLog(path, 2)
    path.unlink()
    RunLog(path, 2).append({"epoch": 3})
    assert [row["epoch"] for row in runfolder.rows(path)] == [3]


@pytest.mark.parametrize("started", [True, False])
def test_a_damaged_choice_says_what_to_delete(started: bool, tmp_path: Path) -> None:
    (tmp_path / "probe.json").write_text("{}")
    if started:
        (tmp_path / "last.ckpt").write_bytes(b"x")
    with pytest.raises(BadRunFile, match="last.ckpt beside it" if started else "delete it and run"):
        runfolder.probe(tmp_path)


def test_the_model_that_comes_along_has_its_weights_recorded() -> None:
    run = Path(runfolder.__file__).parents[1] / "models" / "food11"
    table = json.loads((run / "student.json").read_text())
    assert len(table["weights"]) == len(table["sha256"]) == 64


def test_a_stopped_fit_goes_on_as_a_fit_and_a_stopped_run_as_a_run(tmp_path: Path) -> None:
    folder = tmp_path / "my fit"
    folder.mkdir()
    with pytest.raises(BadData, match=r"not finished; `bantam run '.*my fit/recipe.toml' --data DIR --out '.*my fit'`"):
        runfolder.result(folder)
    (folder / runfolder.PLAN).write_text("{}")
    with pytest.raises(BadData, match=r"not finished; `bantam fit DIR --out '.*my fit'` goes on with it"):
        runfolder.result(folder)
