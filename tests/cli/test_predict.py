"""`bantam predict PHOTO...` as a user types it."""

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from bantam.cli import main as cli


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
        (["FOLDER"], "is a folder, not a photograph"),
        (["PHOTO", "--run", "FOLDER"], "holds no run"),
        (["PHOTO", "--probabilities", "p.csv"], "--probabilities goes with --data"),
        (["PHOTO", "PHOTO", "--data", "FOLDER"], "bantam predict RUN --data DIR"),
    ],
)
def test_one_line_says_what_is_wrong(monkeypatch, capsys, photo: Path, words: list[str], says: str) -> None:
    stands_for = {"PHOTO": str(photo), "FOLDER": str(photo.parent)}
    assert call(monkeypatch, *[stands_for.get(word, word) for word in words]) == 1
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
