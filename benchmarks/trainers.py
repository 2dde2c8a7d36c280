"""What the classification trainers of timm and ultralytics need on photographs that `bantam fit` takes; what they give.

    python benchmarks/trainers.py --data PHOTOS --about TEXT --runs RUNS --time 5m
        --timm PYTHON --scripts DIR --ultralytics PYTHON [--size 96]

The fit comes first. The photographs that it learned from, and those that it measured by, are laid out for the others
as RUNS/split/train/CLASS and RUNS/split/val/CLASS. Each net is then trained with its trainer's own commands, from fresh
weights, for the same time; so is the fit's recipe once more, where the fit began with the model that comes with Bantam.
All keep the epoch that these validation photographs like best, and each is measured by its own trainer. TEXT says what
the photographs are, and whether that model may have seen them.

PYTHON is that of an environment with timm, or with ultralytics; DIR holds train.py and validate.py of timm's
repository, which its package leaves out. Nothing is downloaded. ultralytics is told the time; for timm an epoch is
timed first, as a person would, and the training gets as many as fill the time. What is finished is taken as it is, what
was killed begins anew. Writes results/benchmarks/trainers.json, or --out FILE.
"""

import argparse
import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bantam.data.folder import Folder, Record, scan
from bantam.data.splitting import Division
from bantam.errors import BadData, BantamError
from bantam.files import read_sealed, write_json
from bantam.fit.asked import seconds_of
from bantam.measure.counts import Accuracy
from bantam.measure.crops import tta_of
from bantam.runs import runfolder
from bantam.runs.finished import open_run
from evidence import RESULTS, write

READ_BY_ALL = (".jpg", ".jpeg", ".png")

TIMM = ("test_efficientnet", "mobilenetv3_small_050")
"""The smallest net that timm has, and a small one of those that telephones use."""
FEW = ("--batch-size", "32", "--opt", "adamw", "--lr", "1e-3", "--weight-decay", "0.05", "--warmup-epochs", "1")
"""timm's defaults are for a million photographs: 19 steps an epoch of these."""

ULTRALYTICS = "yolo11n-cls.yaml"
"""The smallest that ultralytics has; NARROWED changes its file so that it holds less than 60,000 parameters."""
SCALE = re.compile(r"^  n: \[0\.50, 0\.25, 1024\].*$", re.MULTILINE)
NARROWED = "  n: [0.50, 0.25, 64]"

EXACT = "from ultralytics import YOLO; print(YOLO({best!r}).val(data={data!r}, imgsz={size}, plots=False).top1)"
"""What `yolo classify train` prints at its end, with all digits."""

OFFLINE = {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "HF_HUB_OFFLINE": "1"}


@dataclass(frozen=True)
class Task:
    """What all do: photographs, their split as class folders, seconds, and where everything goes."""

    photographs: Path
    runs: Path
    asked: str
    size: int
    timm: Path
    scripts: Path
    ultralytics: Path

    @property
    def split(self) -> Path:
        return self.runs / "split"

    def named(self, words: Sequence[str]) -> str:
        """A command as a person types it, with names for the paths of this machine."""
        names = {
            self.split: "SPLIT",
            self.runs: "RUNS",
            self.photographs: "PHOTOS",
            self.scripts: "SCRIPTS",
            self.ultralytics.parent / "yolo": "yolo",
            self.timm: "python",
            Path(sys.executable): "python",
        }
        text = " ".join(words)
        for path in sorted(names, key=lambda path: -len(str(path))):  # one may lie within another
            text = text.replace(str(path), names[path])
        return text.replace("python -m bantam", "bantam")


class Typist:
    """Runs the commands for one net, one after the other, and keeps what they were and how long they took."""

    def __init__(self, task: Task, folder: Path) -> None:
        self.task, self.folder = task, folder
        self.commands: list[str] = []
        self.seconds: list[float] = []

    def types(self, *words: object, counted: bool = True) -> str:
        """Run a command; gives what it printed. Raises BantamError with its last line where it fails."""
        command = [str(word) for word in words]
        settings = OFFLINE | {"YOLO_CONFIG_DIR": str(self.task.runs), "BANTAM_CACHE": str(self.task.runs / "cache")}
        started = time.monotonic()
        ran = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            cwd=self.task.runs, env=os.environ | settings,
        )  # fmt: skip
        if counted:
            self.commands.append(self.task.named(command))
            self.seconds.append(time.monotonic() - started)
        with open(self.folder.with_suffix(".log"), "a") as log:
            log.write(f"$ {self.task.named(command)}\n{ran.stdout}\n")
        if ran.returncode:
            raise BantamError((ran.stdout.strip().splitlines() or ["no output"])[-1])
        return ran.stdout


# --- the split


def class_folders(folder: Folder, root: Path) -> dict[str, int]:
    """Lay `folder` out as root/train/CLASS and root/val/CLASS, with links to its photographs; gives their numbers.

    Raises BadData for photographs that not all trainers read, and for a class without any for validation.
    """
    shutil.rmtree(root, ignore_errors=True)
    splits: dict[str, Sequence[Record]] = {"train": folder.training, "val": folder.validation}
    for split, records in splits.items():
        lacking = set(range(len(folder.classes))) - {record.label for record in records}
        if lacking:
            raise BadData(f"{folder.classes[min(lacking)]} has no photographs in {split}, and the others need some")
        for number, record in enumerate(records):
            assert record.label is not None
            if record.path.suffix.lower() not in READ_BY_ALL:
                raise BadData(f"{record.path} is no JPEG or PNG file, and timm reads nothing else; convert it")
            link = root / split / folder.classes[record.label] / f"{number}{record.path.suffix.lower()}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(record.path.absolute())
    return {split: len(records) for split, records in splits.items()}


def divided(photographs: Path, run: Path) -> Folder:
    """The photographs as the run divided them, or as they lie where they are divided already."""
    folder = scan(photographs)
    if folder.divided:
        return folder
    return Division.from_json(read_sealed(run / runfolder.SPLITS)).of(folder)


# --- the trainers: each gives what it reached, and where that is known its epochs


def bantam_fit(task: Task, typist: Typist, out: Path) -> dict[str, Any]:
    """`bantam fit`, as it stands in the README."""
    typist.types(sys.executable, "-m", "bantam", "fit", task.photographs, "--time", task.asked, "--out", out)
    return of_run(out)


def bantam_fresh(fit: Path, commands: Sequence[str], task: Task, typist: Typist, out: Path) -> dict[str, Any]:
    """The recipe of the fit that `commands` made, without the model that comes with Bantam."""
    typist.commands.extend(commands)
    student = open_run(fit).recipe.shipped.name
    words = (
        "run",
        fit / runfolder.RECIPE,
        "--data",
        task.photographs,
        "--out",
        out,
        "--set",
        f'{student}.pretrained=""',
    )
    typist.types(sys.executable, "-m", "bantam", *words)
    return of_run(out)


def of_run(out: Path) -> dict[str, Any]:
    """What a finished run reached: in one view, as the others look, and as it ships."""
    run = open_run(out)
    judged, stage = run.metrics["validation"], run.recipe.shipped
    return {
        "net": run.metrics["student"],
        "size": stage.size,
        "pretrained": stage.pretrained,
        "parameters": max(run.metrics["parameters"].values()),
        "epochs": run.metrics["epochs"],
        **reached(judged["plain"], judged["n"]),
        "shipped": {key: judged[key] for key in ("accuracy", "standard_error")} | {"tta": tta_of(judged)},
    }


def timm_trained(net: str, task: Task, typist: Typist, out: Path) -> dict[str, Any]:
    """An epoch to see how long it takes, as many as fill the time, and the best of them measured."""
    classes, n = classes_and_measured(task.split)
    about = ("--model", net, "--num-classes", classes, "--img-size", task.size, "--device", "cpu", "-j", os.cpu_count())
    train = (task.timm, task.scripts / "train.py", task.split, *about, *FEW, "--output", out)
    started = time.time()
    typist.types(*train, "--epochs", 1, "--experiment", "timed")
    ready, ended = (os.stat(out / "timed" / name).st_mtime for name in ("args.yaml", "summary.csv"))
    epochs = epochs_within(seconds_of(task.asked), ready - started, ended - ready)
    said = typist.types(*train, "--epochs", epochs, "--experiment", "whole")
    best = out / "whole" / "model_best.pth.tar"
    found = typist.types(task.timm, task.scripts / "validate.py", task.split / "val", *about, "--checkpoint", best)
    share = json.loads(found.partition("--result\n")[2])["top1"] / 100
    return {"net": net, "parameters": parameters_in(said), "epochs": epochs, **reached(share, n)}


def ultralytics_trained(model: str, task: Task, typist: Typist, out: Path) -> dict[str, Any]:
    """One command, which is told the time and measures its best epoch at the end."""
    _, n = classes_and_measured(task.split)
    hours = f"{seconds_of(task.asked) / 3600:.5f}"
    words = (f"model={model}", f"data={task.split}", f"imgsz={task.size}", f"time={hours}", "device=cpu")
    yolo = task.ultralytics.parent / "yolo"
    said = typist.types(yolo, "classify", "train", *words, f"project={out.parent}", f"name={out.name}", "exist_ok=True")
    exact = EXACT.format(best=str(out / "weights" / "best.pt"), data=str(task.split), size=task.size)
    share = float(typist.types(task.ultralytics, "-c", exact, counted=False).split()[-1])
    with open(out / "results.csv", newline="") as file:
        epochs = len(list(csv.DictReader(file)))
    return {"net": Path(model).stem, "parameters": parameters_in(said), "epochs": epochs, **reached(share, n)}


def narrowed(task: Task) -> Path:
    """ultralytics' own file of its smallest net with another width, as a person would write it after some trials."""
    where = "import ultralytics; print(ultralytics.__path__[0])"
    package = Path(asked_of(task.ultralytics, where))
    text = (package / "cfg" / "models" / "11" / "yolo11-cls.yaml").read_text(encoding="utf-8")
    changed, count = SCALE.subn(NARROWED, text)
    if count != 1:
        raise BadData(f"{package} has no scale n: [0.50, 0.25, 1024] for yolo11-cls; try ultralytics 8.4")
    path = task.runs / "yolo11n-narrow-cls.yaml"
    path.write_text(changed, encoding="utf-8")
    return path


# --- pieces of these


def classes_and_measured(split: Path) -> tuple[int, int]:
    """How many classes there are, and how many validation photographs."""
    folders = list((split / "val").iterdir())
    return len(folders), sum(len(list(folder.iterdir())) for folder in folders)


def epochs_within(seconds: float, starting: float, epoch: float) -> int:
    """How many epochs fill the time, of a command that takes so many seconds until the first begins; at least one."""
    return max(1, int((seconds - starting) / epoch))


def reached(share: float, n: int) -> dict[str, Any]:
    """An accuracy, given as a rounded share of n images, with its standard error."""
    accuracy = Accuracy(round(share * n), n)
    return {"accuracy": accuracy.value, "standard_error": accuracy.standard_error, "n": n}


def parameters_in(said: str) -> int:
    """The parameters that timm's or ultralytics' training says its net has, before any layers are fused.

    Raises BadData where it says none. ultralytics speaks of the net for 1,000 classes first.
    """
    found = re.findall(r"param count: ?([\d,]+)|summary: [\d,]+ layers, ([\d,]+) parameters", said)
    if not found:
        raise BadData("the training has not said how many parameters its net has; see its log")
    return int("".join(found[-1]).replace(",", ""))


def asked_of(python: Path, code: str) -> str:
    """The last line that `code` prints in the environment of `python`."""
    ran = subprocess.run(
        [str(python), "-c", code], capture_output=True, text=True, check=True, env=os.environ | OFFLINE
    )
    return ran.stdout.strip().splitlines()[-1]


def versions(task: Task) -> dict[str, str]:
    """What the others were: their versions, and which scripts timm was trained with."""
    names = {"timm": task.timm, "ultralytics": task.ultralytics}
    code = "from importlib.metadata import version as v; print(v({name!r}), 'with torch', v('torch'))"
    scripts = b"".join((task.scripts / name).read_bytes() for name in ("train.py", "validate.py"))
    found = {name: asked_of(python, code.format(name=name)) for name, python in names.items()}
    return {**found, "timm's scripts": f"sha256 {hashlib.sha256(scripts).hexdigest()[:16]}"}


Trainer = Callable[[Task, Typist, Path], dict[str, Any]]


def row(name: str, trainer: str, by_hand: Sequence[str], train: Trainer, task: Task) -> dict[str, Any]:
    """The row of one net, which `train` gives; of one that failed, why. One that is finished is read.

    `by_hand` is what a person does before the commands.
    """
    out, kept = task.runs / name, task.runs / f"{name}.json"
    if kept.exists():
        return json.loads(kept.read_text(encoding="utf-8"))
    shutil.rmtree(out, ignore_errors=True)  # what was killed begins anew: its time has to be one piece
    out.with_suffix(".log").unlink(missing_ok=True)
    about = {"trainer": trainer, "by_hand": list(by_hand), "size": task.size}
    typist = Typist(task, out)
    try:
        found = train(task, typist, out)
    except BantamError as error:
        return {**about, "failed": str(error)}
    spent = {"commands": typist.commands, "seconds": sum(typist.seconds), "training_seconds": max(typist.seconds)}
    result = {**about, **found, **spent}
    write_json(kept, result)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="PHOTOS")
    parser.add_argument("--about", required=True, metavar="TEXT")
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--time", default="5m", help="of each training: 90s, 30m")
    parser.add_argument("--timm", type=Path, required=True, metavar="PYTHON")
    parser.add_argument("--scripts", type=Path, required=True, metavar="DIR")
    parser.add_argument("--ultralytics", type=Path, required=True, metavar="PYTHON")
    parser.add_argument("--size", type=int, default=96, help="input of timm's and ultralytics' nets, pixels")
    parser.add_argument("--out", type=Path, default=RESULTS / "benchmarks" / "trainers.json")
    options = parser.parse_args()

    paths = (options.data, options.runs, options.timm, options.scripts, options.ultralytics)
    photographs, runs, timm, scripts, ultralytics = (path.absolute() for path in paths)
    task = Task(photographs, runs, options.time, options.size, timm, scripts, ultralytics)
    runs.mkdir(parents=True, exist_ok=True)
    os.environ["BANTAM_CACHE"] = str(runs / "cache")  # an archive is unpacked where the fit finds it
    about = {
        "data": photographs.name,
        "photographs": options.about,
        "asked": task.asked,
        "asked_seconds": seconds_of(task.asked),
        "versions": versions(task),
    }
    rows: list[dict[str, Any]] = []

    def tell(one: dict[str, Any]) -> None:
        rows.append(one)
        print(json.dumps(one), flush=True)
        write(options.out, {**about, "rows": rows})

    tell(row("fit", "Bantam", (), bantam_fit, task))
    if "failed" in rows[0]:
        raise BadData(f"without a fit there is nothing to compare with: {rows[0]['failed']}")
    about["images"] = class_folders(divided(photographs, runs / "fit"), task.split)
    if rows[0]["pretrained"]:
        fresh = partial(bantam_fresh, runs / "fit", rows[0]["commands"])
        tell(row("fresh", "Bantam, the fit's recipe from fresh weights", (), fresh, task))
    for net in TIMM:
        by_hand = ("train/ and val/", "scripts of its repository")
        tell(row(net, "timm", by_hand, partial(timm_trained, net), task))
    for model, by_hand in ((ULTRALYTICS, ()), (str(narrowed(task)), ("the net's file",))):
        tell(row(Path(model).stem, "ultralytics", by_hand, partial(ultralytics_trained, model), task))


if __name__ == "__main__":
    main()
