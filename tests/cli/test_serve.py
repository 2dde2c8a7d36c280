"""What `bantam serve` hands to the page."""

import re
import shutil
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from bantam.cli.main import app
from bantam.data.folder import FOOD_11
from bantam.deliver.serve import app as page
from bantam.deliver.serve import browser
from bantam.deliver.serve.desk import Desk, Setting
from bantam.runs import runfolder
from bantam.runs.finished import FOOD11


@pytest.fixture
def numbered_run(tmp_path: Path) -> Path:
    """The food model as a run that knows its classes by number alone, as runs on the exercise's data do."""
    run = shutil.copytree(FOOD11, tmp_path / "run")
    numbered = {**runfolder.student(run), "labels": [str(label) for label in range(11)]}
    runfolder.write(run / "student.json", numbered)
    return run


@pytest.mark.parametrize(("split", "expected"), [("validation", FOOD_11), ("val", tuple(map(str, range(11))))])
def test_the_exercises_classes_have_their_names(
    numbered_run: Path, tmp_path: Path, split: str, expected: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for label in range(11):
        for name in ("training", split):
            (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (9, 9), (label, 0, 0)).save(tmp_path / "data" / name / f"{label}_0.jpg")
    monkeypatch.setattr(browser, "RUNTIME", Path("nowhere"))  # else a thread would export the student for the browser
    monkeypatch.setenv("BANTAM_CACHE", str(tmp_path / "cache"))
    told: list[Setting] = []
    monkeypatch.setattr(page, "serve", lambda setting, listener, bound: (listener.close(), told.append(setting)))
    shown: list[str] = []
    monkeypatch.setattr("webbrowser.open", shown.append)
    command = ["serve", str(numbered_run), "--data", str(tmp_path / "data"), "--port", "0"]
    ended = CliRunner().invoke(app, command)
    assert ended.exit_code == 0, ended.output
    (setting,) = told
    assert Desk(setting).classes == expected
    assert shown == [], "a browser opens for whoever asks"
    assert CliRunner().invoke(app, [*command, "--open"]).exit_code == 0
    (address,) = shown
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)
