"""The study of distillation at a tiny size: every variant is a valid recipe, and the report says what the runs say."""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import distillation  # noqa: E402
import tables  # noqa: E402
from bantam.nets.teachers import build_teacher  # noqa: E402
from bantam.pipeline import run as pipeline  # noqa: E402
from bantam.recipes.recipe import dump, parse  # noqa: E402
from bantam.runs.runfolder import rows as read_rows  # noqa: E402
from tiny_run import RECIPE, write_photographs  # noqa: E402

TINY = RECIPE.replace(
    "[[stage]]",
    '[[stage]]\nname = "t"\nkind = "given_teacher"\ncheckpoint = "t.ckpt"\nsize = 32\n[[stage]]',
    1,
).replace('kind = "student"', 'kind = "student"\nteacher = "t"')


def options(**changes: Any) -> argparse.Namespace:
    return argparse.Namespace(**({"recipe": "medium", "set": [], "epochs": 30, "views": 4} | changes))


@pytest.mark.parametrize("name", distillation.variants())
def test_every_variant_is_a_recipe_that_differs_in_what_is_studied_alone(name: str) -> None:
    variant = distillation.variants()[name]
    recipe = distillation.recipe_of(name, variant, options())
    pipeline.check(recipe)
    assert parse(dump(recipe)) == recipe
    plain = distillation.recipe_of("x", distillation.Variant("", distillation.kd()), options()).shipped
    studied: dict[str, Any] = {"objectives": distillation.kd(), "teacher": "", "peers": 1}
    assert replace(recipe.shipped, **studied) == replace(plain, **studied)


def test_a_run_that_stands_in_several_grids_is_one_run() -> None:
    shared = [name for name, variant in distillation.variants().items() if len(variant.studies) == 3]
    assert shared == ["kd-a0.9-t2-96px"]
    for study, count in (("temperature", 5), ("alpha", 6), ("teacher", 5)):
        assert sum(study in variant.studies for variant in distillation.variants().values()) == count


def test_the_comparison_is_paired_seed_by_seed() -> None:
    one = {0: torch.tensor([True, True, False, True]), 1: torch.tensor([True, False, False, False])}
    other = {0: torch.tensor([True, False, True, False]), 1: torch.zeros(4).bool(), 2: torch.ones(4).bool()}
    said = distillation.compared(one, other)
    assert (said["seeds"], said["only_a"], said["only_b"], said["difference"]) == ([0, 1], 3, 1, 0.25)
    assert said["p"] == pytest.approx(2 * (1 + 4) / 2**4)
    assert said["by_seed"] == pytest.approx([0.25, 0.25])
    assert distillation.compared(one, {5: torch.ones(4)}) == {}
    none, all_ = torch.zeros(4).bool(), torch.ones(4).bool()
    unlike = distillation.compared({0: all_, 1: none}, {0: none, 1: one[1]})
    assert unlike["by_seed"] == [1.0, -0.25]


def test_the_reference_is_the_best_of_those_run_most_often() -> None:
    lucky = {"name": "lucky", "accuracy": 0.9, "accuracies": {"0": 0.9}}
    twice = [
        {"name": name, "accuracy": mean, "accuracies": {"0": 0, "1": 0}} for name, mean in (("a", 0.5), ("b", 0.6))
    ]
    assert distillation.well_tuned([lucky, *twice]) == "b"
    assert distillation.well_tuned([]) is None


@pytest.fixture(scope="module")
def taught_photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_photographs(tmp_path_factory.mktemp("study") / "photos", training=20, validation=6, evaluation=0)
    torch.manual_seed(0)
    torch.save(build_teacher("resnet18", 3).state_dict(), root / "t.ckpt")
    return root


@pytest.mark.parametrize(
    "name", [name for name, found in distillation.variants().items() if "methods" in found.studies]
)
def test_every_method_trains(name: str, taught_photographs: Path, tmp_path: Path) -> None:
    variant = replace(distillation.variants()[name], teacher_size=32)
    (tmp_path / "tiny.toml").write_text(TINY)
    given = options(recipe=str(tmp_path / "tiny.toml"), epochs=1, views=1)
    pipeline.run(distillation.recipe_of(name, variant, given), taught_photographs, tmp_path / "run")
    [row] = read_rows(tmp_path / "run" / "stages" / "student" / "metrics.jsonl")
    assert len(row["training"]) > len(variant.objectives)
    assert all(0 <= value < float("inf") for value in row["training"].values())


def test_the_study_runs_collects_and_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_photographs(tmp_path / "photos")
    torch.manual_seed(0)
    torch.save(build_teacher("resnet18", 3).state_dict(), root / "t.ckpt")
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(TINY)
    only = ["cross-entropy", "dml", "kd-a0.9-t2-96px", "kd-a0.9-t2-64px"]
    begun: list[str] = []

    def here(name: str, seed: int, given: argparse.Namespace) -> None:
        if not (given.runs / f"{name}-{seed}" / "metrics.json").exists():
            begun.append(name)
            plan = replace(distillation.recipe_of(name, distillation.variants()[name], given), seed=seed)
            pipeline.run(plan, given.data, given.runs / f"{name}-{seed}")

    monkeypatch.setattr(distillation, "run_one", here)
    results = tmp_path / "results"
    words = ["--data", root, "--runs", tmp_path / "runs", "--recipe", recipe, "--epochs", 1, "--views", 1]
    words += ["--out", results / "benchmarks" / "distillation.json", "--plot", tmp_path / "plot.svg", "--only", *only]
    monkeypatch.setattr(sys, "argv", ["distillation.py", *map(str, words)])
    distillation.main()
    distillation.main()
    assert begun == only
    said = json.loads((results / "benchmarks" / "distillation.json").read_text())
    rows = {row["name"]: row for row in said["rows"]}
    assert set(rows) == set(only)
    for name, row in rows.items():
        metrics = json.loads((tmp_path / "runs" / f"{name}-0" / "metrics.json").read_text())
        assert row["accuracy"] == pytest.approx(metrics["validation"]["plain"])
        assert ("against_reference" in row) == (name != said["reference"])
    assert said["reference"] == "kd-a0.9-t2-96px"
    assert set(said["teacher"]) == {"64", "96"}
    assert said["seeds"] == [0]
    assert "<svg" in (tmp_path / "plot.svg").read_text()
    assert str(tmp_path) not in json.dumps(said)
    assert "| dml |" in tables.distillation(results)
    assert "| labels alone |" in tables.headline(results)
    assert tables.headline(results).count("\n| ") == 4
    assert tables.grid(results, "teacher").count(" px |") == 2
    assert tables.grid(results, "alpha").count("| 0.9 |") == 1
