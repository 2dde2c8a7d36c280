"""`bantam prune` and stages of kind prune, on small real folders."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from bantam.cli import main as cli
from bantam.compress.pruning_curve import METHODS
from bantam.errors import BadRecipe
from bantam.nets.budget import weigh
from bantam.nets.students import describe
from bantam.nets.teachers import build_teacher
from bantam.pipeline import run as pipeline
from bantam.recipes.recipe import dump, parse
from bantam.runs.finished import load_shipped
from bantam.studies.prune import Source
from tiny_run import RECIPE

PRUNED = (
    RECIPE
    + """
[[stage]]
name = "small"
kind = "prune"
of = "student"
to_params = 2500
importance = "magnitude"
size = 32
epochs = 1
batch_size = 10
ema = 0.9
precision = "fp32"
[stage.objectives.supervised]
weight = 1.0
"""
)


@pytest.fixture(scope="module")
def big(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("big") / "run"
    pipeline.run(parse(RECIPE, settings=["student.epochs=1"]), photographs, out)
    return out


def called(*words: Any, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["bantam", "prune", *map(str, words)])
    try:
        cli.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def files_in(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_a_stage_prunes_and_ships_and_goes_on_where_it_was(photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    recipe = parse(PRUNED, settings=["student.epochs=1"])
    assert parse(dump(recipe)) == recipe
    metrics = pipeline.run(recipe, photographs, out)
    assert metrics["budget"] == 2500
    assert 2475 <= metrics["parameters"]["unique"] <= 2500
    net, shipped = load_shipped(out)
    assert shipped.student.pruned
    assert weigh(net, 32).counted == metrics["parameters"]["unique"]

    # The same bits, whether in one go or from the pruned net that a killed run had kept.
    weights = torch.load(out / "student_best.ckpt", weights_only=True)
    for name in ("done.json", "best.ckpt"):
        (out / "stages" / "small" / name).unlink()
    shutil.rmtree(out / "stages" / "student")
    (out / "metrics.json").unlink()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("bantam.pipeline.kinds.pruning.prune_to", None)
        pipeline.run(recipe, photographs, out)
    again = torch.load(out / "student_best.ckpt", weights_only=True)
    assert all(torch.equal(again[name], value) for name, value in weights.items())


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('of = "student"', 'of = "studnt"', 'did you mean "student"'),
        ("to_params = 2500", "to_params = 5001", "above the budget"),
        ("to_params = 2500", "to_params = 0", "at least 1"),
        ('of = "student"', 'of = "student"\nnet = "sample"', "must be left out"),
        ('importance = "magnitude"', 'importance = "luck"', "valid"),
    ],
)
def test_a_wrong_stage_is_refused(old: str, new: str, words: str) -> None:
    with pytest.raises(BadRecipe, match=words):
        parse(PRUNED.replace(old, new))


def test_a_teacher_that_is_no_student_is_refused_before_any_work(photographs: Path, tmp_path: Path) -> None:
    given = (
        '[[stage]]\nname = "given"\nkind = "given_teacher"\narchitecture = "densenet121"\ncheckpoint = "x"\nsize = 32\n'
    )
    text = PRUNED.replace("[[stage]]", given + "[[stage]]", 1).replace('of = "student"', 'of = "given"')
    with pytest.raises(BadRecipe, match="densenet121 does not become a student"):
        pipeline.run(parse(text), photographs, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_curve_of_a_run(
    big: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "curve"
    words = ("--ratios", "0,0.4", "--methods", "unstructured-layer,structured-magnitude", "--finetune", 1, "--json")
    assert called(big, "--data", photographs, *words, "--out", out, monkeypatch=monkeypatch) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["ratio"] for row in rows] == [0, 0.4, 0, 0.4]
    assert all((row["finetuned"] is not None) == (row["ratio"] > 0) for row in rows)
    assert {path.name for path in out.iterdir()} == {"curve.json", "curve.csv", "curve.svg", "curve.png"}


def test_what_shipped_alone_has_a_curve_of_every_method(
    big: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "shipped", tmp_path / "curve"
    shutil.copytree(big, source, ignore=shutil.ignore_patterns("stages"))
    words = ("--ratios", "0,0.5", "--json", "--out", out)
    assert called(source, "--data", photographs, *words, monkeypatch=monkeypatch) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["method"], row["ratio"]) for row in rows] == [(name, ratio) for name in METHODS for ratio in (0, 0.5)]
    plain = json.loads((source / "metrics.json").read_text())["validation"]["plain"]
    for row in rows:
        assert row["reestimated"] is not None
        if not row["ratio"]:
            assert row["before"]["accuracy"] == pytest.approx(plain)


def test_to_an_exact_budget(big: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.read_bytes() for path in files_in(big)}
    out = tmp_path / "small"
    words = ("--to-params", 3000, "--finetune", 1, "--out", out)
    assert called(big, "--data", photographs, *words, monkeypatch=monkeypatch) == 0
    net, _ = load_shipped(out)
    assert 2970 <= weigh(net, 32).counted <= 3000
    assert (out / "submission.csv").exists()
    assert {path: path.read_bytes() for path in files_in(big)} == before


def test_what_a_run_shipped_is_enough_to_go_down_to_a_budget(
    big: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = tmp_path / "shipped", tmp_path / "small"
    shutil.copytree(big, source, ignore=shutil.ignore_patterns("stages"))
    before = files_in(source)
    words = ("--to-params", 3000, "--finetune", 1, "--out", out)
    assert called(source, "--data", photographs, *words, monkeypatch=monkeypatch) == 0
    net, _ = load_shipped(out)
    assert 2970 <= weigh(net, 32).counted <= 3000
    assert files_in(source) == before


def test_a_pruned_net_loads_without_the_pruning_library(
    big: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "small"
    called(big, "--data", photographs, "--to-params", 3000, "--finetune", 1, "--out", out, monkeypatch=monkeypatch)
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    net, _ = load_shipped(out)
    assert net(torch.randn(1, 3, 32, 32)).shape == (1, 3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--ratios", "0:1.5:0.5"), "must lie in 0..1"),
        (("--ratios", "0.999"), "would empt"),
        (("--ratios", "half"), "not understood"),
        (("--methods", "random"), "takes no"),
        (("--to-params", 30), "a layer would be emptied"),
        (("--to-params", 4999), "need not be pruned"),
        (("--to-params", 3000, "--importance", "luck"), "luck"),
    ],
)
def test_a_wrong_call_is_one_line_and_writes_nothing(
    words: tuple[Any, ...],
    said: str,
    big: Path,
    photographs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    assert called(big, "--data", photographs, *words, "--out", out, monkeypatch=monkeypatch) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert said in lines[-1]
    assert lines[-1].startswith("bantam: ")
    assert "Traceback" not in "".join(lines)
    assert not out.exists()


def test_a_checkpoint_of_another_family_is_refused(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "teacher.ckpt", tmp_path / "out"
    torch.save(build_teacher("resnet18", 3).state_dict(), path)
    for words, said in (
        (("--architecture", "resnet34"), "another architecture"),
        (("--architecture", "resnet18", "--to-params", 100), "a layer would be emptied"),
        (("--architecture", "vgg16"), "no architecture"),
    ):
        words = (path, "--data", photographs, "--size", 32, *words, "--out", out)
        assert called(*words, monkeypatch=monkeypatch) == 1
        assert said in capsys.readouterr().err
        assert not out.exists()
    assert called(tmp_path / "none", "--data", photographs, monkeypatch=monkeypatch) == 1
    assert "does not exist" in capsys.readouterr().err


def test_a_run_with_weights_of_another_family_or_without_photographs_is_refused(
    big: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other, empty, out = tmp_path / "other", tmp_path / "empty", tmp_path / "out"
    for split in ("training", "validation"):
        (empty / split).mkdir(parents=True)
    weights = describe("largekernel", 5_000, 3, 32).build().state_dict()
    shutil.copytree(big, other)
    torch.save(weights, other / "stages" / "student" / "best.ckpt")
    for run, root, said in (
        (other, photographs, "not the file that was written here"),
        (big, empty, "holds no labelled image"),
    ):
        assert called(run, "--data", root, "--out", out, monkeypatch=monkeypatch) == 1
        lines = capsys.readouterr().err.strip().splitlines()
        assert lines[-1].startswith("bantam: ")
        assert said in lines[-1]
        assert not out.exists()


@pytest.mark.slow
@pytest.mark.parametrize(("size", "stored"), [(32, 32), (96, 48)])
def test_photographs_are_not_enlarged_before_a_net_sees_them(size: int, stored: int, tmp_path: Path) -> None:
    weights = tmp_path / "teacher.ckpt"
    weights.touch()
    for number in range(40):
        path = tmp_path / "data" / "training" / f"{number % 2}_{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (60, 48) if number % 4 else (300, 200)).save(path)
    recipe = Source(weights, "resnet18", size).recipe(tmp_path / "data")
    assert recipe.data.size == stored
    assert recipe.shipped.size == size


def test_a_teacher_goes_down_to_a_budget(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, out = tmp_path / "teacher.ckpt", tmp_path / "out"
    torch.save(build_teacher("resnet18", 3).state_dict(), path)
    words = ("--size", 32, "--to-params", 60_000, "--finetune", 1, "--out", out)
    assert called(path, "--data", photographs, *words, monkeypatch=monkeypatch) == 0
    net, shipped = load_shipped(out)
    assert shipped.student.family == "resnet18"
    assert 59_400 <= weigh(net, 32).counted <= 60_000
