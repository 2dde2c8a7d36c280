"""The main path on small real folders: what it writes, what it refuses, and that it says why."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from bantam.data import cache
from bantam.errors import BadCheckpoint, BadData, BadImage, BadRecipe, BudgetExceeded, RunMismatch
from bantam.measure.accuracy import accuracy
from bantam.measure.tta import logits_of_tta
from bantam.nets import budget
from bantam.nets.teachers import build_teacher
from bantam.pipeline import run as pipeline
from bantam.recipes.recipe import parse
from bantam.runs.finished import load_shipped
from bantam.runs.watcher import Watcher
from tiny_run import RECIPE, write_photographs

GIVEN = RECIPE.replace('kind = "student"', 'kind = "student"\nteacher = "given"').replace(
    "[[stage]]",
    '[[stage]]\nname = "given"\nkind = "given_teacher"\ncheckpoint = "teacher.ckpt"\nsize = 32\n[[stage]]',
    1,
)


class Listener(Watcher):
    def __init__(self) -> None:
        self.said: list[str] = []
        self.begun: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def begin(self, name: str, total: int, done: int) -> None:
        self.begun.append(name)


@pytest.fixture(scope="module")
def finished(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "run"
    pipeline.run(parse(RECIPE), photographs, out)
    return out


def test_a_finished_run_holds_everything_the_contract_names(finished: Path) -> None:
    for name in (
        "recipe.toml",
        "environment.json",
        "student.json",
        "student_best.ckpt",
        "metrics.json",
        "submission.csv",
    ):
        assert (finished / name).stat().st_size > 0, name
    assert {path.name for path in (finished / "stages" / "student").iterdir()} == {
        "best.ckpt", "done.json", "metrics.jsonl", "probe.json",
    }  # fmt: skip
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics["parameters"]["unique"] <= 5000
    judged = metrics["validation"]
    assert judged["accuracy"] > 0.5
    assert judged["standard_error"] == (judged["accuracy"] * (1 - judged["accuracy"]) / 30) ** 0.5
    assert metrics["validation"]["n"] == 30
    lines = (finished / "submission.csv").read_text().splitlines()
    assert lines[0] == "Id,Category"
    assert [line.split(",")[0] for line in lines[1:]] == [f"{number:04d}" for number in range(12)]


def test_the_shipped_weights_are_plain_and_give_the_reported_accuracy(finished: Path, photographs: Path) -> None:
    weights = torch.load(finished / "student_best.ckpt", weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in weights.values())
    net, shipped = load_shipped(finished)
    metrics = json.loads((finished / "metrics.json").read_text())
    assert budget.weigh(net, 32).counted == max(metrics["parameters"].values())
    splits = cache.open_splits(photographs, 32)
    logits = logits_of_tta(net, splits.validation, 32, shipped.normalisation, metrics["validation"]["views"])
    assert accuracy(logits, splits.validation.labels).value == metrics["validation"]["accuracy"]


def test_an_over_budget_student_is_refused_before_the_first_step(photographs: Path, tmp_path: Path) -> None:
    for text in (RECIPE.replace("budget = 5000", "budget = 100"), RECIPE.replace("mobilenet_v1", "sample")):
        with pytest.raises(BudgetExceeded, match="budget"):
            pipeline.run(parse(text), photographs, tmp_path / "run")
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("mobilenet_v1", "mobilnet_v1", "mobilenet_v1"),
        ("objectives.supervised", "objectives.supervized", 'did you mean "supervised"'),
        ("weight = 1.0", "weight = 1.0\nlabel_smothing = 0.1", 'did you mean "label_smoothing"'),
        ("objectives.supervised", "objectives.kd", "needs a teacher"),
    ],
)
def test_unknown_names_are_refused_before_any_work(
    old: str, new: str, words: str, photographs: Path, tmp_path: Path
) -> None:
    with pytest.raises(BadRecipe, match=words):
        pipeline.run(parse(RECIPE.replace(old, new, 1)), photographs, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_no_run_is_refused(photographs: Path, tmp_path: Path) -> None:
    (tmp_path / "holiday.txt").write_text("mine")
    with pytest.raises(RunMismatch, match="holds no run"):
        pipeline.run(parse(RECIPE), photographs, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.txt"]


def test_other_data_in_the_same_run_folder_is_refused(photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    pipeline.run(parse(RECIPE), photographs, out)
    other = write_photographs(tmp_path / "other", training=30)
    with pytest.raises(RunMismatch, match="other photographs"):
        pipeline.run(parse(RECIPE), other, out)


def test_a_leaked_image_is_reported(tmp_path: Path) -> None:
    root = write_photographs(tmp_path / "leaky")
    shutil.copy(root / "evaluation" / "0003.png", root / "training" / "0_999.png")
    listener = Listener()
    pipeline.run(parse(RECIPE), root, tmp_path / "run", listener)
    assert any("also stand in the evaluation split" in line and "0_999" in line for line in listener.said)


def test_an_unreadable_photograph_stops_the_run_and_changes_nothing(tmp_path: Path) -> None:
    root = write_photographs(tmp_path / "bad")
    (root / "training" / "0_998.jpg").write_text("not an image")
    with pytest.raises(BadImage, match="0_998"):
        pipeline.run(parse(RECIPE), root, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_nothing_is_claimed_before_a_given_teacher_was_looked_at(photographs: Path, tmp_path: Path) -> None:
    """Its folder is free for the next recipe, and a line says which recipes need no teacher."""
    root, out = shutil.copytree(photographs, tmp_path / "root"), tmp_path / "run"
    listener = Listener()
    with pytest.raises(BadCheckpoint) as missing:
        pipeline.run(parse(GIVEN), root, out, listener)
    assert not listener.begun, "said before any photograph is decoded"
    said = str(missing.value)
    assert all(words in said for words in ('recipe "tiny"', '"given"', "demo, simple", "kind teacher")), said
    assert "medium" not in said
    torch.save(build_teacher("resnet18", 5).state_dict(), root / "five.ckpt")
    (root / "text.ckpt").write_text("no weights")
    own = '[[stage]]\nname = "own"\nkind = "teacher"\nnet = "resnot"\nsize = 32\nepochs = 1\n'
    trains = RECIPE.replace("[[stage]]", f"{own}[stage.objectives.supervised]\nweight = 1.0\n[[stage]]", 1)
    wrong = [GIVEN.replace("teacher.ckpt", name) for name in ("five.ckpt", "text.ckpt")]
    for text, error in ((wrong[0], BadCheckpoint), (wrong[1], BadCheckpoint), (trains, BadRecipe)):
        with pytest.raises(error):
            pipeline.run(parse(text), root, out)
        assert not out.exists()


def test_a_folder_of_another_recipe_is_told_from_the_one_that_was_asked_for(finished: Path, photographs: Path) -> None:
    """Which is in the folder and which was asked for, by name and by the keys in which they differ."""
    other = RECIPE.replace('"tiny"', '"longer"').replace("epochs = 4", "epochs = 9")
    with pytest.raises(RunMismatch) as refused:
        pipeline.run(parse(other), photographs, finished)
    there, asked = str(refused.value).split("and asked for")
    assert '"tiny" (student.epochs = 4)' in there
    assert '"longer" (student.epochs = 9)' in asked
    with pytest.raises(RunMismatch, match=r"own \(student\).*asked for.*own \(teacher\)|seed = 0.*seed = 3"):
        pipeline.run(parse(RECIPE, settings=["seed=3"]), photographs, finished)


def test_a_given_teacher_must_fit(photographs: Path, tmp_path: Path) -> None:
    root = shutil.copytree(photographs, tmp_path / "root")
    with pytest.raises(BadCheckpoint, match=r"teacher\.ckpt"):
        pipeline.run(parse(GIVEN), root, tmp_path / "none")
    torch.save(build_teacher("resnet18", 5).state_dict(), root / "teacher.ckpt")
    with pytest.raises(BadCheckpoint, match="has 5 classes, the data has 3"):
        pipeline.run(parse(GIVEN), root, tmp_path / "five")
    torch.save(build_teacher("resnet18", 3).state_dict(), root / "teacher.ckpt")
    metrics = pipeline.run(parse(GIVEN), root, tmp_path / "fits")
    assert metrics["stages"]["given"]["parameters"] > 11_000_000


def test_a_finished_stage_is_taken_from_its_folder(photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    pipeline.run(parse(RECIPE), photographs, out)
    (out / "metrics.json").unlink()
    listener = Listener()
    pipeline.run(parse(RECIPE), photographs, out, listener)
    assert "student" not in listener.begun
    assert (out / "metrics.json").exists()


def test_normalisation_can_be_that_of_the_training_split(photographs: Path, tmp_path: Path) -> None:
    pipeline.run(parse(RECIPE, settings=["data.normalisation=training"]), photographs, tmp_path / "run")
    _, shipped = load_shipped(tmp_path / "run")
    pixels = cache.open_splits(photographs, 32).training.images.double() / 255
    torch.testing.assert_close(torch.tensor(shipped.normalisation.mean).double(), pixels.mean((0, 1, 2)))


def test_an_unfinished_run_cannot_predict(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="not finished"):
        load_shipped(tmp_path)


def test_grey_photographs_in_class_folders_run_as_well(tmp_path: Path) -> None:
    flat = write_photographs(tmp_path / "flat", training=24, validation=12, evaluation=6)
    root = tmp_path / "classes"
    for split, folder in (("training", "train"), ("validation", "val")):
        for path in (flat / split).iterdir():
            target = root / folder / f"class{path.name[0]}" / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.open(path).convert("L").save(target)
    metrics = pipeline.run(parse(RECIPE), root, tmp_path / "run")
    assert metrics["validation"]["n"] == 12
    assert not (tmp_path / "run" / "submission.csv").exists()
