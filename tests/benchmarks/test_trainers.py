"""The other trainers: they get the fit's own split, each command is kept, and what failed is a row that says why."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import fit_tables  # noqa: E402
import trainers  # noqa: E402
from bantam.data.folder import scan  # noqa: E402
from bantam.data.splitting import DOUBLE, Division, LeftOut  # noqa: E402
from bantam.errors import BadData  # noqa: E402
from bantam.runs import runfolder  # noqa: E402
from small_fit import write_pictures  # noqa: E402

TRAIN = """
import os, sys, time
words = sys.argv
place = os.path.join(words[words.index("--output") + 1], words[words.index("--experiment") + 1])
os.makedirs(place)
now = time.time()
for name, later in (("args.yaml", 0), ("summary.csv", 10)):
    path = os.path.join(place, name)
    open(path, "w").close()
    os.utime(path, (now + later, now + later))
print("Model test_efficientnet created, param count:101766")
"""
VALIDATE = """print('Test: [0/1]\\n--result\\n{"top1": 66.6667, "top5": 100.0}')"""

YOLO = """
Overriding model.yaml nc=1000 with nc=10
YOLO11n-cls summary: 86 layers, 1,633,584 parameters, 1,633,584 gradients, 3.3 GFLOPs
YOLO11n-cls summary: 86 layers, 1,543,914 parameters, 1,543,914 gradients, 3.3 GFLOPs
YOLO11n-cls summary (fused): 47 layers, 1,538,834 parameters, 0 gradients, 3.2 GFLOPs
"""


@pytest.fixture
def task(tmp_path: Path) -> trainers.Task:
    """A minute of each, with this environment's Python everywhere, and scripts that only pretend."""
    scripts, runs = tmp_path / "scripts", tmp_path / "runs"
    for folder in (scripts, runs):
        folder.mkdir()
    (scripts / "train.py").write_text(TRAIN)
    (scripts / "validate.py").write_text(VALIDATE)
    python = Path(sys.executable)
    return trainers.Task(write_pictures(tmp_path / "photos", each=4), runs, "1m", 64, python, scripts, python)


def laid_out(root: Path) -> dict[str, set[str]]:
    """The photographs behind the links of each split, by class and name."""
    return {
        split: {f"{link.parent.name}/{link.resolve().stem}" for link in (root / split).rglob("*.png")}
        for split in ("train", "val")
    }


# --- the split


def test_the_others_get_the_photographs_that_the_fit_learned_from_and_those_that_it_measured_by(
    task: trainers.Task,
) -> None:
    run = task.runs / "fit"
    run.mkdir()
    ids = sorted(record.id for record in scan(task.photographs).training)
    measured, left = {"red/1", "green/2", "blue/0"}, "red/3"
    learned = set(ids) - measured - {left}
    division = Division(tuple(learned), tuple(measured), (), (), (LeftOut("training", left, DOUBLE, "red/0"),))
    runfolder.write(run / runfolder.SPLITS, division.to_json())
    (task.split / "train" / "old").mkdir(parents=True)

    numbers = trainers.class_folders(trainers.divided(task.photographs, run), task.split)
    assert laid_out(task.split) == {"train": learned, "val": measured}
    assert numbers == {"train": 8, "val": 3}
    assert not (task.split / "train" / "old").exists()
    assert trainers.classes_and_measured(task.split) == (3, 3)


def test_a_folder_that_says_what_measures_is_taken_as_it_lies(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_pictures(tmp_path / "photos" / split, ("a", "b"), each=2)
    folder = trainers.divided(tmp_path / "photos", tmp_path / "no run")
    assert trainers.class_folders(folder, tmp_path / "split") == {"train": 4, "val": 4}


def test_photographs_that_not_all_read_and_a_class_that_nothing_measures_are_refused(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_pictures(tmp_path / "photos" / split, ("a", "b"), each=2)
    folder = scan(tmp_path / "photos")
    record = folder.training[0]
    with pytest.raises(BadData, match=r"0\.webp is no JPEG or PNG"):
        webp = replace(record, path=record.path.with_suffix(".webp"))
        trainers.class_folders(replace(folder, training=(webp, *folder.training[1:])), tmp_path / "split")
    with pytest.raises(BadData, match="b has no photographs in val"):
        only = tuple(record for record in folder.validation if record.label == 0)
        trainers.class_folders(replace(folder, validation=only), tmp_path / "split")


# --- the trainers


def test_timm_times_an_epoch_fills_the_time_and_measures_its_best(task: trainers.Task) -> None:
    for split, each in (("train", 4), ("val", 2)):
        write_pictures(task.split / split, each=each)
    trained = trainers.partial(trainers.timm_trained, "test_efficientnet")
    row = trainers.row("tiny", "timm", ("scripts",), trained, task)
    timed, whole, measured = row["commands"]
    assert timed.startswith("python SCRIPTS/train.py SPLIT --model test_efficientnet --num-classes 3 --img-size 64")
    assert timed.endswith("--output RUNS/tiny --epochs 1 --experiment timed")
    assert whole.endswith("--epochs 5 --experiment whole")  # of 10 s each, after a start
    assert measured.endswith("--checkpoint RUNS/tiny/whole/model_best.pth.tar")
    assert (row["accuracy"], row["n"], row["parameters"], row["epochs"]) == (4 / 6, 6, 101_766, 5)
    assert row["seconds"] > row["training_seconds"] > 0
    assert str(task.runs) not in json.dumps(row)
    assert (task.runs / "tiny.log").read_text().count("$ python SCRIPTS/") == 3


def test_ultralytics_is_told_the_time_in_hours_and_measured_with_all_digits(task: trainers.Task) -> None:
    write_pictures(task.split / "val", each=2)
    place = task.runs / "yolo11n-cls"
    for name, text in {
        "yolo": f"mkdir {place}; printf 'epoch\\n1\\n2\\n3\\n' > {place}/results.csv; cat <<'END'\n{YOLO}\nEND\n",
        "python": "echo loading; echo 0.3333333432674408\n",
    }.items():
        command = task.scripts / name
        command.write_text(f"#!/bin/sh\n{text}")
        command.chmod(0o755)
    trained = trainers.partial(trainers.ultralytics_trained, "yolo11n-cls.yaml")
    row = trainers.row("yolo11n-cls", "ultralytics", (), trained, replace(task, ultralytics=task.scripts / "python"))
    words = "model=yolo11n-cls.yaml data=SPLIT imgsz=64 time=0.01667 device=cpu project=RUNS name=yolo11n-cls"
    assert row["commands"] == [f"yolo classify train {words} exist_ok=True"]
    assert (row["net"], row["accuracy"], row["n"]) == ("yolo11n-cls", 2 / 6, 6)
    assert (row["parameters"], row["epochs"]) == (1_543_914, 3)


def test_what_is_finished_is_taken_as_it_is_and_what_failed_is_tried_again(task: trainers.Task) -> None:
    tried: list[bool] = []

    def train(task: trainers.Task, typist: trainers.Typist, out: Path) -> dict[str, Any]:
        tried.append(out.exists())
        out.mkdir()
        typist.types(sys.executable, "-c", f"print('loading'); raise SystemExit({len(tried) % 2} and 'no room')")
        return {"accuracy": 0.5}

    first, second, third = (trainers.row("net", "it", ("a file",), train, task) for _ in range(3))
    assert first == {"trainer": "it", "by_hand": ["a file"], "size": 64, "failed": "no room"}
    assert second["accuracy"] == 0.5
    assert len(second["commands"]) == 1
    assert third == second
    assert tried == [False, False]  # and what the first has left is gone


def test_a_fit_and_its_recipe_from_fresh_weights(task: trainers.Task, own_run: Path) -> None:
    typed: list[list[str]] = []

    class Stub(trainers.Typist):
        def types(self, *words: object, counted: bool = True) -> str:
            typed.append([str(word) for word in words][3:])
            return ""

    out = task.runs / "fit"
    own_run.rename(out)
    found = trainers.bantam_fit(task, Stub(task, out), out)
    assert typed == [["fit", str(task.photographs), "--time", "1m", "--out", str(out)]]
    judged = json.loads((out / "metrics.json").read_text())["validation"]
    assert found["accuracy"] == pytest.approx(judged["plain"])
    assert found["shipped"]["accuracy"] == judged["accuracy"]
    typist = Stub(task, out)
    trainers.bantam_fresh(out, ["bantam fit PHOTOS"], task, typist, out)
    assert typed[1][-2:] == ["--set", 'student.pretrained=""']
    assert typist.commands == ["bantam fit PHOTOS"]


def test_the_file_of_the_narrow_net_differs_in_its_scale_alone(
    task: trainers.Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainers, "asked_of", lambda *_: str(tmp_path))
    own = tmp_path / "cfg" / "models" / "11" / "yolo11-cls.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("scales:\n  n: [0.50, 0.25, 1024] # summary\n  s: [0.50, 0.50, 1024]\n")
    assert trainers.narrowed(task).read_text() == "scales:\n  n: [0.50, 0.25, 64]\n  s: [0.50, 0.50, 1024]\n"
    own.write_text("scales:\n  n: [0.33, 0.25, 1024]\n")
    with pytest.raises(BadData, match="has no scale"):
        trainers.narrowed(task)


# --- pieces


@pytest.mark.parametrize(("starting", "epoch", "epochs"), [(0.0, 60.0, 5), (1.0, 60.0, 4), (20.0, 400.0, 1)])
def test_so_many_epochs_as_fill_the_time_and_one_at_least(starting: float, epoch: float, epochs: int) -> None:
    assert trainers.epochs_within(300.0, starting, epoch) == epochs


def test_parameters_are_those_of_the_net_that_was_trained_before_its_layers_are_fused() -> None:
    assert trainers.parameters_in("Model x created, param count: 573349") == 573_349
    assert trainers.parameters_in(YOLO) == 1_543_914
    with pytest.raises(BadData, match="has not said"):
        trainers.parameters_in("1,633,584 parameters")


def test_the_table_says_what_was_typed_and_why_one_failed(tmp_path: Path) -> None:
    environment = {"gpu": None, "cores": 2, "processor": "Fast", "command": ["python"], "commit": "c0ffee00"}
    ours = {
        "trainer": "Bantam", "net": "largekernel", "size": 96, "commands": ["fit"], "by_hand": [], "seconds": 300.0,
        "training_seconds": 300.0, "epochs": 20, "parameters": 59_939, "accuracy": 0.6, "standard_error": 0.02,
        "n": 605, "shipped": {"accuracy": 0.62, "standard_error": 0.02, "tta": "zoom"},
    }  # fmt: skip
    theirs = {
        **ours, "trainer": "timm", "net": "lcnet", "commands": ["a", "b"], "by_hand": ["folders", "scripts"],
        "seconds": 330.0, "shipped": None,
    }  # fmt: skip
    study = {
        "photographs": "Ten dishes", "asked": "5m", "images": {"train": 2428, "val": 605}, "versions": {"timm": "1"},
        "rows": [ours, theirs, {"trainer": "ultralytics", "failed": "no room"}],
        "environment": {**environment, "versions": {"torch": "2"}},
    }  # fmt: skip
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "trainers.json").write_text(json.dumps(study))
    lines = fit_tables.trainers(tmp_path).splitlines()
    own = "| Bantam | largekernel | 96 | 1 | - | 5.0 (5.0) | 20 | 59,939 | 0.600 ± 0.020 | 0.620 ± 0.020, zoom |"
    assert lines[2] == own
    assert lines[3] == "| timm | lcnet | 96 | 2 | folders, scripts | 5.5 (5.0) | 20 | 59,939 | 0.600 ± 0.020 | - |"
    assert lines[4] == "| ultralytics | failed: no room | - | - | - | - | - | - | - | - |"
    assert lines[6].startswith("Ten dishes: 2,428 to learn from, n = 605, one seed; 5m for each. timm 1. `python` on")
