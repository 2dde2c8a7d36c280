"""What each stage of a run brought: its accuracy is the run's own, its difference that of the images one by one."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from bantam.pipeline import run as pipeline
from bantam.recipes.recipe import parse
from bantam.runs.finished import open_run
from tiny_run import RECIPE

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import pictures  # noqa: E402
import stages  # noqa: E402
import tables  # noqa: E402
import ways  # noqa: E402

FIRST = RECIPE.replace("epochs = 4", "epochs = 2")
AGAIN = FIRST[FIRST.index("[[stage]]") :].replace(
    'name = "student"', 'name = "again"\nstart = "student"\nteacher = "student"\nviews = 1'
)
REFIT = '[[stage]]\nname = "refit"\nkind = "refit"\nof = "again"\n'


def test_each_net_has_the_accuracy_of_its_run_and_stands_against_its_start(photographs: Path, tmp_path: Path) -> None:
    text = FIRST + AGAIN + "[stage.objectives.kd]\nweight = 1.0\n" + REFIT
    metrics = pipeline.run(parse(text), photographs, tmp_path / "run")
    first, again = stages.rows_of(open_run(tmp_path / "run"), photographs)
    for row in (first, again):
        assert row["accuracy"] == metrics["stages"][row["stage"]]["validation"]["accuracy"]
        assert (row["n"], row["epochs"], row["size"]) == (30, 2, 32)
    assert "against_start" not in first
    paired = again["against_start"]
    assert paired["only_this"] - paired["only_other"] == round(30 * (again["accuracy"] - first["accuracy"]))
    assert again["taught_by"]["accuracy"] == first["accuracy"]


def test_a_pair_counts_the_images_that_only_one_has_right() -> None:
    ours, theirs = (torch.tensor(list(map(bool, bits))) for bits in ([1, 1, 1, 0, 0], [1, 0, 0, 1, 0]))
    found = stages.against(ours, theirs)
    assert (found["only_this"], found["only_other"], found["difference"]) == (2, 1, pytest.approx(0.2))
    assert found["p"] == 1


def study() -> dict[str, Any]:
    """Three stages, each twice as long a way as the one before and two points better; a teacher in between."""
    judged = {"standard_error": 0.01, "n": 100, "net": "x", "size": 32, "epochs": 3}
    paired = {"difference": 0.02, "only_this": 3, "only_other": 1, "p": 0.6}
    taught = {"kind": "student", "teacher": "t", "taught_by": {"accuracy": 0.7}}
    given = {"given": "g", **paired}
    on = {"start": "one", "against_start": paired}
    return {
        "recipe": "r",
        "rows": [
            {"stage": "one", "accuracy": 0.5, "seconds": 600.0, **judged, **taught},
            {"stage": "t", "accuracy": 0.7, "kind": "teacher", "seconds": 300.0, **judged},
            {"stage": "two", "accuracy": 0.52, "seconds": 300.0, **judged, **taught, **on},
            {"stage": "three", "accuracy": 0.54, "seconds": 1200.0, **judged, **taught, "against_given": given},
        ],
        "environment": {
            "command": ["python", "benchmarks/stages.py"],
            "commit": "0" * 40,
            "processor": "x",
            "cores": 2,
            "versions": {"torch": "2"},
        },
    }  # fmt: skip


def test_the_way_counts_the_minutes_of_teachers_too() -> None:
    assert [minutes for minutes, _ in ways.way(study())] == [10, 20, 40]
    assert ways.doubling(study()) == pytest.approx(0.02)


def test_the_stages_are_a_table_and_a_picture(tmp_path: Path) -> None:
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "stages.json").write_text(json.dumps(study()))
    text = tables.stages(tmp_path)
    assert "| two | x, 32 px | t: 0.700 | 3 | 5 | 0.520 ± 0.010 | +2.0 points, one | 0.6 |" in text
    assert "The student is +2.0 points from `g` (p 0.6)." in text
    assert "each doubling of the minutes that went into it brought 2.0 points" in text
    pictures.draw_stages(tmp_path, tmp_path / "stages.svg")
    svg = (tmp_path / "stages.svg").read_text()
    assert "three, 32 px" in svg
    assert "t, 32 px" not in svg, "a teacher is no point of the student's way"
