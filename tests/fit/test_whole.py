"""A fit from end to end, stopped and gone on with, and what is said where there is nothing to fit on."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bantam.cli import main as cli
from bantam.cli.fit import page_text
from bantam.deliver.classify import classify_files, load_classifier
from bantam.deliver.export.compiled import compiler
from bantam.deliver.export.forms import Parity
from bantam.errors import CannotWrite, RunMismatch
from bantam.fit import kept, whole
from bantam.fit.asked import Asked
from bantam.fit.clock import Clock
from bantam.fit.ending import exported, forms, on_device
from bantam.fit.planning import Plan
from bantam.fit.watching import FitWatcher
from bantam.fit.whole import fit
from bantam.pipeline import interim
from bantam.recipes import recipe as recipes
from bantam.runs import runfolder
from bantam.runs.finished import open_run
from children import bound_to_parent
from small_fit import ASKED, FIT, known_speed, write_pictures


class Listener(FitWatcher):
    def __init__(self) -> None:
        self.said: list[str] = []
        self.plans: list[Plan] = []
        self.stages: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def planned(self, plan: Plan, asked: Asked, clock: Clock) -> None:
        self.plans.append(plan)

    def begin(self, name: str, total: int, done: int) -> None:
        self.stages.append(name)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures") / "colours")


@pytest.fixture(scope="module")
def fitted(pictures: Path) -> tuple[Path, dict[str, Any], Listener]:
    out, listener = pictures / "runs" / "fit", Listener()  # where `bantam fit .` puts it
    with pytest.MonkeyPatch.context() as patch:
        known_speed(patch)
        page = fit(pictures, ASKED, out, listener)
    return out, page, listener


def test_it_ends_with_everything(fitted: tuple[Path, dict[str, Any], Listener], pictures: Path) -> None:
    out, page, listener = fitted
    files = ("plan.json", "recipe.toml", "splits.json", "student_best.ckpt", "student.onnx")
    assert all((out / name).is_file() for name in (*files, "metrics.json", "report/report.html", "fit.json"))
    metrics = open_run(out).metrics
    assert page["accuracy"] == metrics["validation"]["accuracy"]
    assert page["largest_class"] == pytest.approx(1 / 3)
    assert page["n"] == 12
    assert 0 < page["parameters"] <= page["budget"] == 5_000
    # Of 12 photographs one more that is wrong in int8 is too many: then the page says why there is no such file.
    assert page["exports"].keys() == {"onnx", "onnx-int8"}
    assert page["exports"]["onnx"]["file"] == "student.onnx"
    in_bytes = page["exports"]["onnx-int8"]
    assert (out / "student-int8.onnx").is_file() == (in_bytes.get("file") == "student-int8.onnx")
    assert "file" in in_bytes or "onnx-int8 does not compute what PyTorch does" in in_bytes["failed"]
    (plan,) = listener.plans
    assert [row.what for row in plan.rows] == ["reading", "student", "the end"]
    assert recipes.parse((out / "recipe.toml").read_text()) == plan.recipe == open_run(out).recipe
    assert open_run(out).tta in ("plain", "flip", "zoom", "crops")
    assert runfolder.INTERIM not in json.loads((out / "student.json").read_text())


@pytest.mark.parametrize("wish", [{"ram": 65_536}, {"flash": 131_072}, {"board": "nucleo-f446re"}], ids=str)
def test_for_a_device_there_is_c_too(wish: dict[str, Any]) -> None:
    assert forms(Asked(60.0, **wish)) == ("onnx", "onnx-int8", "c")
    assert forms(Asked(60.0)) == ("onnx", "onnx-int8")


@pytest.mark.skipif(compiler() is None, reason="there is no C compiler")
def test_the_c_of_a_fit_is_checked_and_needs_what_the_page_says(
    fitted: tuple[Path, dict[str, Any], Listener],
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Of 12 photographs one that rounding turns is too many for the gate, which has tests of its own.
    monkeypatch.setattr(Parity, "passes", lambda *_: True)
    run = open_run(shutil.copytree(fitted[0], tmp_path / "run"))
    told = exported(run, pictures, ("c",), FitWatcher())
    assert told["c"]["file"] == "student.c"
    assert "bit for bit" in told["c"]["parity"]
    assert f"RAM {on_device(run)['ram']:,} bytes" in told["c"]["parity"]
    assert (run.folder / "main.c").is_file()
    page = {**fitted[1], "device": on_device(run)}
    assert f"{page['device']['ram']:,} bytes of RAM" in page_text(page)


def test_asked_again_it_does_nothing_again(
    fitted: tuple[Path, dict[str, Any], Listener], pictures: Path, tmp_path: Path
) -> None:
    """The run lies among the photographs, and its pictures are none of them."""
    out, page, _ = fitted
    assert any(out.rglob("*.svg")) or any(out.rglob("*.png"))
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    listener = Listener()
    assert fit(pictures, ASKED, out, listener) == page
    changed = {path.relative_to(out).as_posix() for path, at in before.items() if path.stat().st_mtime_ns != at}
    assert not {name for name in changed if name.startswith(("stages", "report"))}
    assert changed.isdisjoint({"plan.json", "recipe.toml", "fit.json", "student.onnx", "student-int8.onnx"})
    assert "student" not in listener.stages
    with pytest.raises(RunMismatch, match=r"asked for parameters 5000 and not 6000; choose another --out"):
        fit(pictures, Asked(ASKED.seconds, parameters=6_000), out, listener)
    with pytest.raises(RunMismatch, match="other photographs"):
        fit(write_pictures(tmp_path / "others", ("red", "green")), ASKED, out, listener)


def test_killed_it_has_a_student_that_answers_and_goes_on(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"

    words = [sys.executable, "-c", FIT, str(Path(__file__).parents[1]), str(pictures), str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(words, env=environment, preexec_fn=bound_to_parent())
    while child.poll() is None and not (out / "student.json").exists():
        time.sleep(0.005)
    child.kill()
    assert child.wait() == -signal.SIGKILL
    assert not (out / "metrics.json").exists()
    run = open_run(out)
    assert run.tta == "plain"
    answers = classify_files(load_classifier(run), [pictures / "red" / "0.png"])
    assert answers.shape == (1, 3)
    plan = (out / kept.PLAN).read_bytes()
    monkeypatch.setattr(whole, "handed_over", lambda *_: {})
    fit(pictures, ASKED, out, FitWatcher())
    assert (out / kept.PLAN).read_bytes() == plan
    assert run.metrics["validation"]["n"] == 12
    assert runfolder.INTERIM not in open_run(out).described


def test_a_plan_is_kept_for_its_photographs_alone(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the plan and the first step, and a photograph less afterwards."""
    known_speed(monkeypatch)
    root, out = tmp_path / "photos", tmp_path / "run"
    shutil.copytree(pictures, root, ignore=shutil.ignore_patterns("runs"))

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(whole.pipeline, "run", killed)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            fit(root, ASKED, out, FitWatcher())
    (root / "red" / "0.png").unlink()
    with pytest.raises(RunMismatch, match="holds a fit on other photographs; choose another --out"):
        fit(root, ASKED, out, FitWatcher())


def test_photographs_that_change_while_it_trains_are_said(
    fitted: tuple[Path, dict[str, Any], Listener], pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = shutil.copytree(pictures, tmp_path / "photos")
    out = root / "runs" / "fit"
    (out / "fit.json").unlink()

    def run(*_: object, **__: object) -> None:
        (root / "red" / "0.png").unlink()

    monkeypatch.setattr(whole.pipeline, "run", run)
    with pytest.raises(RunMismatch, match="a run on other photographs"):
        fit(root, ASKED, out, FitWatcher())
    assert not (out / "fit.json").exists()


def test_a_full_disk_is_one_line_and_the_same_fit_goes_on(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known_speed(monkeypatch)
    out = tmp_path / "run"
    with pytest.MonkeyPatch.context() as full:

        def refused(*_: object) -> None:
            raise CannotWrite("cannot write student_best.ckpt: No space left on device; free some space")

        full.setattr(interim, "ship", refused)
        with pytest.raises(CannotWrite):
            fit(pictures, ASKED, out, FitWatcher())
    assert not (out / "student.json").exists()
    monkeypatch.setattr(whole, "handed_over", lambda *_: {})
    fit(pictures, ASKED, out, FitWatcher())
    assert open_run(out).is_finished


Spoil = Callable[[Path], list[str]]


def empty(root: Path) -> list[str]:
    shutil.rmtree(root)
    root.mkdir()
    (root / "notes.txt").write_text("no photograph")
    return []


def one_class(root: Path) -> list[str]:
    shutil.rmtree(root / "green")
    shutil.rmtree(root / "blue")
    return []


def only_red(root: Path) -> list[str]:
    one_class(root)
    for split in ("train", "val"):
        shutil.copytree(root / "red", root / split / "red")
    shutil.rmtree(root / "red")
    return []


def lonely(root: Path) -> list[str]:
    for path in (root / "green").iterdir():
        if path.stem != "0":
            path.unlink()
    return []


def overlapping(root: Path) -> list[str]:
    (root / "train").mkdir()
    for folder in ("red", "green", "blue"):
        shutil.copytree(root / folder, root / "val" / folder)
        (root / folder).rename(root / "train" / folder)
    return []


def table(rows: str) -> Spoil:
    def spoil(root: Path) -> list[str]:
        for folder in ("red", "green", "blue"):
            for path in (root / folder).iterdir():
                path.rename(root / f"{folder}{path.name}")
            (root / folder).rmdir()
        (root / "labels.csv").write_text(rows)
        return []

    return spoil


def hostile(root: Path) -> list[str]:
    shutil.rmtree(root)
    with zipfile.ZipFile(root, "w") as archive:
        archive.writestr("../../outside/red/0.png", b"x")
    return []


def no_archive(root: Path) -> list[str]:
    shutil.rmtree(root)
    root.write_bytes(b"PK\x03\x04 and then nothing of a zip")
    return []


def unreadable(root: Path) -> list[str]:
    (root / "red" / "0.png").write_bytes(b"\x89PNG no more")
    return []


TWO = "file,first,second\n" + "".join(f"{c}{n}.png,{c},{n % 2}\n" for c in ("red", "green", "blue") for n in range(20))
SLOW = {"limits too small"}  # every family is looked through
BAD: dict[str, tuple[Spoil, list[str], str]] = {
    "no photographs": (empty, [], "is empty but for"),
    "one class": (one_class, [], "has one class, red"),
    "one class in each split": (only_red, [], "has one class, and a classifier needs two"),
    "a class with one image": (lonely, [], "one photograph of class green"),
    "labels that match no file": (table("file,label\na.png,x\nb.png,y\nc.png,x\nd.png,y\n"), [], "0 name a photograph"),
    "two columns of labels": (table(TWO), [], "all look like labels"),
    "ten seconds": (lambda _: [], ["--time", "10s"], "--time is too short"),
    "no time": (lambda _: [], ["--time", "soon"], "--time must be a time such as"),
    "a budget too small": (lambda _: [], ["--budget", "100"], "no family of students is so small"),
    "limits too small": (lambda _: [], ["--macs", "1000"], "MACs where the limit is 1,000"),
    "a hostile archive": (hostile, [], "../../outside"),
    "no archive": (no_archive, [], "no whole archive|damaged|not a zip|cannot"),
    "an unreadable photograph": (unreadable, ["--time", "40s"], "0.png"),
    "training images in validation": (overlapping, ["--time", "40s"], "60 training images that are also validation"),
    "an out below a file": (lambda _: [], ["--out", f"{__file__}/run"], "test_whole.py is no folder; choose another"),
    "no teacher": (lambda _: [], ["--teacher", "nowhere.ckpt"], "nowhere.ckpt"),
    "an unknown size": (lambda _: [], ["--size", "4"], "--size must be"),
}


@pytest.mark.parametrize(
    ("spoil", "words", "said"),
    [pytest.param(*case, id=name, marks=[pytest.mark.slow] * (name in SLOW)) for name, case in BAD.items()],
)
def test_what_cannot_be_fitted_is_one_line_and_leaves_nothing(
    spoil: Spoil,
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    known_speed(monkeypatch)
    monkeypatch.setattr(whole, "FIXED", 16.0)
    monkeypatch.setenv("BANTAM_CACHE", str(tmp_path / "cache"))
    root, out = write_pictures(tmp_path / "photos", each=20), tmp_path / "run"
    spoil(root)
    monkeypatch.setattr(sys, "argv", ["bantam", "fit", str(root), "--out", str(out), *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    error = capsys.readouterr().err
    assert ended.value.code == 1
    assert error.startswith("bantam: ")
    assert error.count("\n") == 1
    assert any(one in error for one in said.split("|")), error
    assert not out.exists()
    assert not (tmp_path / "outside").exists()


def test_a_folder_of_something_else_is_left_alone(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work")
    with pytest.raises(RunMismatch, match="holds no fit; choose another --out"):
        fit(pictures, ASKED, tmp_path / "run", FitWatcher())
