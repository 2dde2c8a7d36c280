"""The curve of accuracy over time: each fit is asked for once, and one that fails is a row that says why."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import fit as over_time  # noqa: E402
import fit_tables  # noqa: E402
import pictures  # noqa: E402

ROW = {"taught": False, "accuracy": 0.5, "standard_error": 0.01}


def test_a_fit_that_fails_is_a_row_that_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command[3:])
        return subprocess.CompletedProcess(command, 1, "", "loading\nbantam: 2 min are too short\n")

    monkeypatch.setattr(over_time.subprocess, "run", run)
    row = over_time.fitted(tmp_path / "DIR", "2m", tmp_path / "t.ckpt", tmp_path / "2m-taught")
    assert row == {"time": "2m", "taught": True, "failed": "bantam: 2 min are too short"}
    words = ["fit", str(tmp_path / "DIR"), "--time", "2m", "--out", str(tmp_path / "2m-taught"), "--json"]
    assert asked == [[*words, "--teacher", str(tmp_path / "t.ckpt")]]


def test_a_finished_fit_is_taken_as_it_is(own_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = {"student": "s", "size": 32, "accuracy": 0.7, "standard_error": 0.1, "n": 30, "tta": "flip", "parameters": 9}
    (own_run / "fit.json").write_text(json.dumps(page))
    own_run.with_name(f"{own_run.name}.seconds.json").write_text('{"seconds": 118.0}')
    monkeypatch.setattr(over_time.subprocess, "run", lambda *_, **__: pytest.fail("asked for again"))
    row = over_time.fitted(Path("DIR"), "2m", None, own_run)
    assert (row["asked_seconds"], row["seconds"], row["accuracy"], row["stages"]) == (120, 118.0, 0.7, ["student"])
    assert over_time.of_recipe(own_run)["recipe"] == "tiny"


def test_the_curve_has_a_line_for_the_fits_and_a_point_for_each_recipe(tmp_path: Path) -> None:
    rows = [{**ROW, "seconds": 120.0 * n} for n in (1, 3)] + [{"taught": True, "failed": "why"}]
    study = {"rows": rows, "recipes": [{**ROW, "recipe": "simple", "seconds": 300.0}]}
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "fit.json").write_text(json.dumps(study))
    pictures.draw_fits(tmp_path, tmp_path / "fit.svg")
    svg = (tmp_path / "fit.svg").read_text()
    assert "simple" in svg
    assert ">fit<" in svg
    assert "given teacher" not in svg


def test_the_table_has_a_row_for_each_fit_and_each_recipe(tmp_path: Path) -> None:
    made = {"command": ["python", "benchmarks/fit.py"], "commit": "0" * 40, "processor": "x", "cores": 2}
    environment = {**made, "versions": {"torch": "2"}}
    fit = {**ROW, "time": "2m", "seconds": 90.0, "student": "sample", "size": 32, "epochs": 3, "tta": "flip", "n": 9}
    failed = {"time": "5m", "taught": True, "failed": "too short"}
    recipe = {**ROW, "recipe": "medium", "seconds": 300.0, "epochs": 4, "n": 9}
    (tmp_path / "benchmarks").mkdir()
    study = {"rows": [fit, failed], "recipes": [recipe], "environment": environment}
    (tmp_path / "benchmarks" / "fit.json").write_text(json.dumps(study))
    lines = fit_tables.fits(tmp_path).splitlines()
    assert lines[2:5] == [
        "| `--time 2m` | no | 1.5 | sample, 32 px | 3 | 0.500 ± 0.010, flip |",
        "| `--time 5m` | yes | - | - | - | too short |",
        "| medium | yes | 5.0 | - | 4 | 0.500 ± 0.010 |",
    ]
    assert lines[6].startswith("n = 9, one seed.")
