"""`bantam predict PHOTO...` as a user types it."""

import csv
import json
import shutil
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from bantam.cli import main as cli
from bantam.data.folder import FOOD_11
from bantam.deliver.package.write import package
from bantam.deliver.report.report import report
from bantam.runs import runfolder
from bantam.runs.finished import open_run
from bantam.runs.watcher import Watcher


def call(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["bantam", "predict", *map(str, words)])
    try:
        cli.main()
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.linear_gradient("L").resize((90, 70)).save(tmp_path / "plate.jpg")
    return tmp_path / "plate.jpg"


def test_a_newcomer_sees_named_classes_at_once(monkeypatch, capsys, photo: Path) -> None:
    assert call(monkeypatch, photo, photo) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(str(photo))
    assert lines[0].count("%") == 3
    assert "11 classes" in lines[2]


def test_json_has_every_class_in_order_of_probability(monkeypatch, capsys, photo: Path) -> None:
    assert call(monkeypatch, photo, "--json") == 0
    answer = json.loads(capsys.readouterr().out)[str(photo)]
    assert len(answer) == 11
    assert sum(answer.values()) == pytest.approx(1, abs=1e-5)
    assert list(answer.values()) == sorted(answer.values(), reverse=True)
    assert call(monkeypatch, photo, "--json", "--views", "plain") == 0
    assert json.loads(capsys.readouterr().out)[str(photo)] != answer


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["missing.jpg"], "missing.jpg cannot be read"),
        (["EMPTY"], "is a folder without photographs"),
        (["NO_PHOTOS"], "note.jpg is not a JPEG"),
        (["PHOTO", "--classes", "NAMES"], "holds 2 names (2 different) for 11 classes"),
        (["PHOTO", "--classes", "missing.txt"], "missing.txt cannot be read"),
        (["PHOTO", "--run", "FOLDER"], "holds no run"),
        (["PHOTO", "--probabilities", "p.csv"], "--probabilities goes with --data"),
        (["PHOTO", "PHOTO", "--data", "FOLDER"], "bantam predict RUN --data DIR"),
    ],
)
def test_one_line_says_what_is_wrong(monkeypatch, capsys, photo: Path, words: list[str], says: str) -> None:
    for folder in ("empty", "no_photos"):
        (photo.parent / folder).mkdir()
    (photo.parent / "no_photos" / "note.jpg").write_text("milk")
    (photo.parent / "names.txt").write_text("one\ntwo\n")
    stands_for = {"PHOTO": str(photo), "FOLDER": str(photo.parent), "EMPTY": str(photo.parent / "empty")}
    stands_for |= {"NO_PHOTOS": str(photo.parent / "no_photos"), "NAMES": str(photo.parent / "names.txt")}
    assert call(monkeypatch, *[stands_for.get(word, word) for word in words]) == 1
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_of_a_folder_every_photograph_in_it_and_below_is_classified(monkeypatch, capsys, photo: Path) -> None:
    """Whatever else lies there is left out and counted with an example; the table has a row for each photograph."""
    folder, table = photo.parent, photo.parent.parent / "table.csv"
    (folder / "trip" / "day 1").mkdir(parents=True)
    Image.radial_gradient("L").save(folder / "trip" / "day 1" / "x,y.PNG")
    (folder / "trip" / "notes.txt").write_text("milk")
    (folder / "trip" / "broken.jpg").write_text("milk")
    (folder / ".hidden.jpg").write_text("milk")
    (folder / "trip" / "again").symlink_to(folder, target_is_directory=True)
    assert call(monkeypatch, folder, "--out", table) == 0
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [
        f"1 left out, not named like a photograph, such as {folder / 'trip' / 'notes.txt'}",
        next(
            line
            for line in printed.err.splitlines()
            if line.startswith(f"1 left out: {folder / 'trip' / 'broken.jpg'}")
        ),
    ]
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [str(photo), str(folder / "trip" / "day 1" / "x,y.PNG")]
    assert call(monkeypatch, folder, "--json") == 0
    answers = json.loads(capsys.readouterr().out)
    for row in rows:
        name, probability = next(iter(answers[row["file"]].items()))
        assert (row["name"], float(row["probability"])) == (name, pytest.approx(probability, abs=1e-6))
        assert FOOD_11[int(row["class"])] == name


def test_classes_get_their_names_later(monkeypatch, capsys, own_run: Path, photographs: Path, photo: Path) -> None:
    """From --classes, from classes.txt in the run, or from classes.txt beside the photographs that it remembers."""
    data = Path(shutil.copytree(photographs, own_run.parent / "data"))
    runfolder.write(own_run / "photographs.json", {"folder": str(data)})

    def names() -> set[str]:
        assert call(monkeypatch, photo, "--run", own_run, "--json", *given) == 0
        return set(json.loads(capsys.readouterr().out)[str(photo)])

    given: list[str] = []
    assert names() == {"0", "1", "2"}
    (data / "classes.txt").write_text("red\ngreen\nblue\n")
    assert names() == {"red", "green", "blue"}
    assert call(monkeypatch, own_run, "--out", own_run / "answers.csv") == 0, "the named data are still the run's own"
    capsys.readouterr()
    (own_run / "classes.txt").write_text("rouge\nvert\nbleu\n")
    assert names() == {"rouge", "vert", "bleu"}
    (own_run.parent / "names.txt").write_text("rot\ngrün\nblau\n")
    given = ["--classes", str(own_run.parent / "names.txt")]
    assert names() == {"rot", "grün", "blau"}


def test_a_run_remembers_where_its_photographs_are(monkeypatch, capsys, own_run: Path, photographs: Path) -> None:
    assert call(monkeypatch, own_run, "--out", own_run / "again.csv") == 0
    assert (own_run / "again.csv").read_bytes() == (own_run / "submission.csv").read_bytes()
    capsys.readouterr()
    runfolder.write(own_run / "photographs.json", {"folder": str(own_run / "gone")})
    assert call(monkeypatch, own_run) == 1
    assert "which is not there; say where with --data DIR" in capsys.readouterr().err
    (own_run / "photographs.json").unlink()  # a run of an earlier version, or one that was handed on
    assert call(monkeypatch, own_run) == 1
    assert "does not remember" in capsys.readouterr().err
    assert call(monkeypatch, own_run, "--data", photographs, "--out", own_run / "again.csv") == 0


def test_a_submission_is_told_to_a_program_and_takes_no_names(monkeypatch, capsys, own_run: Path) -> None:
    again = own_run / "again.csv"
    assert call(monkeypatch, own_run, "--out", again, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"submission": str(again), "predictions": 12}
    again.unlink()
    assert call(monkeypatch, own_run, "--out", again, "--view-confidence", 0.4, "--views", "flip", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert list(told["left"]) == ["plain", "flip"]
    assert sum(told["left"].values()) == told["predictions"] == 12
    again.unlink()
    assert call(monkeypatch, own_run, "--out", again, "--classes", own_run / "names.txt") == 1
    assert "--classes goes with single photographs" in capsys.readouterr().err
    assert not again.exists()


def test_what_leaves_the_machine_does_not_say_where_the_photographs_are(own_run: Path, photographs: Path) -> None:
    """Only photographs.json holds the path: no package, no report, and no other file of the run."""
    opened = open_run(own_run)
    package(opened, opened.package)
    report(opened, opened.report, photographs, {}, Watcher())
    with zipfile.ZipFile(opened.package) as archive:
        packed = [archive.read(name) for name in archive.namelist()]
    secret = str(photographs).encode()
    holds = [path.name for path in own_run.rglob("*") if path.is_file() and secret in path.read_bytes()]
    assert holds == ["photographs.json"]
    assert not any(secret in content for content in packed)
