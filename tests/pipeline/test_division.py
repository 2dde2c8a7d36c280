"""A run on photographs as people have them: validation is split off, said, and written down in the run."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from bantam.data import cache
from bantam.pipeline import run as pipeline
from bantam.recipes.recipe import parse
from bantam.runs.watcher import Watcher
from tiny_run import RECIPE, write_photographs

ONCE = RECIPE.replace("epochs = 4", "epochs = 1")


class Listener(Watcher):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def test_a_run_on_a_zip_of_class_folders_says_and_keeps_how_it_was_divided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BANTAM_CACHE", str(tmp_path / "cache"))
    flat = write_photographs(tmp_path / "flat", training=60, validation=0, evaluation=3)
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as packed:
        for path in sorted((flat / "training").iterdir()):
            packed.write(path, f"photos/class {path.name[0]}/{path.name}")
        packed.write(flat / "training/0_0.png", "photos/class 0/again.png")
        for path in (flat / "evaluation").iterdir():
            packed.write(path, f"photos/Test/class 1/{path.name}")
    listener, out = Listener(), tmp_path / "run"
    pipeline.run(parse(ONCE), tmp_path / "photos.zip", out, listener)

    splits = cache.open_splits(tmp_path / "photos.zip", 32)
    assert splits.division is not None
    told = json.loads((out / "splits.json").read_text())
    assert told["validation"] == list(splits.validation.ids)
    assert told["training"] == list(splits.training.ids)
    assert (len(told["training"]), len(told["validation"])) == (48, 12)
    assert told["left_out"] == [{"split": "training", "id": "class 0/again", "why": "double", "same_as": "class 0/0_0"}]
    assert sum("validation is split off: 12 of 60 photographs" in line for line in listener.said) == 1
    assert sum("1 photographs left out, 1 double: class 0/again" in line for line in listener.said) == 1
    assert json.loads((out / "metrics.json").read_text())["validation"]["n"] == 12
    assert len((out / "submission.csv").read_text().splitlines()) == 4

    # It goes on, from an empty cache and a folder, as the same run.
    shutil.rmtree(tmp_path / "cache")
    with zipfile.ZipFile(tmp_path / "photos.zip") as packed:
        packed.extractall(tmp_path / "unpacked")
    pipeline.run(parse(ONCE), tmp_path / "unpacked", out)
    assert json.loads((out / "splits.json").read_text()) == told


def test_a_prepared_folder_has_no_division(photographs: Path, tmp_path: Path) -> None:
    pipeline.run(parse(ONCE), photographs, tmp_path / "run")
    assert not (tmp_path / "run" / "splits.json").exists()
