"""The package holds what the brief asks for, runs without Bantam, and gives the run's own submission."""

import inspect
import json
import os
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bantam.data import cache
from bantam.data import images as bantam_images
from bantam.data.augment import plain
from bantam.deliver.package import hw13 as handed_in
from bantam.deliver.package.write import (
    code_of,
    package,
    section,
    template,
)
from bantam.errors import BadData, BudgetExceeded
from bantam.measure.tta import TTA, logits_of_tta
from bantam.objectives import kd
from bantam.runs import runfolder
from bantam.runs.finished import load_shipped


def unpacked(archive: Path, to: Path) -> Path:
    with zipfile.ZipFile(archive) as file:
        file.extractall(to)
    return to


def run_alone(arguments: list[str], folder: Path, **environment: str) -> None:
    """Run Python in `folder` where an import of bantam fails."""
    (folder / "bantam.py").write_text("raise ImportError('the package must not need it')")
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env={**kept, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_script_reproduces_the_submission_row_by_row(finished_run: Path, photographs: Path, tmp_path: Path) -> None:
    made = package(finished_run, tmp_path / "hw13.zip")
    assert made.names == ("hw13.py", "student_best.ckpt", "submission.csv")
    assert made.weight.counted <= made.budget == 5000
    folder = unpacked(made.path, tmp_path / "alone")
    run_alone(["hw13.py", "--data", str(photographs), "--out", "again.csv"], folder)
    assert (folder / "again.csv").read_bytes() == (finished_run / "submission.csv").read_bytes()


def test_the_notebook_s_cells_reproduce_the_submission(finished_run: Path, photographs: Path, tmp_path: Path) -> None:
    made = package(finished_run, tmp_path / "hw13.zip", notebook=True)
    assert made.names == ("hw13.ipynb", "student_best.ckpt", "submission.csv")
    folder = unpacked(made.path, tmp_path / "alone")
    (folder / "submission.csv").unlink()
    notebook = json.loads((folder / "hw13.ipynb").read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    code = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
    (folder / "cells.py").write_text(code)
    run_alone(["cells.py"], folder, FOOD_11=str(photographs))
    assert (folder / "submission.csv").read_bytes() == (finished_run / "submission.csv").read_bytes()


def test_the_same_run_gives_the_same_bytes(finished_run: Path, tmp_path: Path) -> None:
    package(finished_run, tmp_path / "a.zip")
    package(finished_run, tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_a_student_over_the_budget_is_refused_and_nothing_is_written(own_run: Path, tmp_path: Path) -> None:
    runfolder.write_recipe(own_run, replace(runfolder.recipe(own_run), budget=4000))
    with pytest.raises(BudgetExceeded, match="over the budget of 4,000"):
        package(own_run, tmp_path / "hw13.zip")
    assert not (tmp_path / "hw13.zip").exists()


@pytest.mark.parametrize("missing", ["student.json", "recipe.toml", "metrics.json"])
def test_an_unfinished_run_is_refused(own_run: Path, tmp_path: Path, missing: str) -> None:
    (own_run / missing).unlink()
    with pytest.raises(BadData, match=missing):
        package(own_run, tmp_path / "hw13.zip")


def test_the_settings_are_the_run_s(finished_run: Path) -> None:
    net, shipped = load_shipped(finished_run)
    code = section(code_of(net, shipped, 48, "flip"), "Settings")
    assert "STORED = 48  #" in code
    assert "SIZE = 32  #" in code
    assert "VIEWS = ((1.0, 0.0, 0.0, False, 0.5), (1.0, 0.0, 0.0, True, 0.5))  #" in code
    assert f"MEAN = {shipped.normalisation.mean!r}  #" in code


def test_the_template_imports_torch_numpy_and_pillow_alone() -> None:
    lines = [line.split()[1].split(".")[0] for line in template()["Imports"].splitlines() if line]
    assert set(lines) - set(sys.stdlib_module_names) == {"torch", "numpy", "PIL"}


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_the_packaged_loss_is_the_library_s(alpha: float, temperature: float) -> None:
    student, teacher, labels = torch.randn(8, 5), torch.randn(8, 5), torch.randint(5, (8,))
    ours = kd.loss_fn_kd(student, labels, teacher, alpha, temperature)
    assert torch.allclose(handed_in.loss_fn_kd(student, labels, teacher, alpha, temperature), ours)
    defaults = inspect.signature(handed_in.loss_fn_kd).parameters
    assert (defaults["alpha"].default, defaults["temperature"].default) == (0.5, 1.0)


def picture(mode: str, size: tuple[int, int]) -> Image.Image:
    draw = np.random.default_rng(3)
    if mode == "I;16":
        return Image.fromarray(draw.integers(0, 65536, size[::-1], dtype=np.uint16))
    return Image.fromarray(draw.integers(0, 256, (*size[::-1], 4), dtype=np.uint8), "RGBA").convert(mode)


@pytest.mark.parametrize(
    ("name", "mode", "size", "orientation"),
    [
        ("large.jpg", "RGB", (611, 402), None),
        ("turned.jpg", "RGB", (300, 402), 6),
        ("mirrored.jpg", "RGB", (64, 64), 2),
        ("exact.png", "RGB", (64, 90), None),
        ("odd.png", "RGB", (65, 64), None),
        ("clear.png", "RGBA", (100, 80), None),
        ("palette.png", "P", (100, 80), None),
        ("grey_clear.png", "LA", (70, 80), None),
        ("grey.jpg", "L", (200, 150), None),
        ("sixteen.png", "I;16", (80, 70), None),
        ("print.jpg", "CMYK", (120, 130), None),
        ("web.webp", "RGB", (90, 91), None),
        ("small.png", "RGB", (20, 30), None),
    ],
)
def test_every_kind_of_image_becomes_the_same_pixels_as_in_training(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    mode: str,
    size: tuple[int, int],
    orientation: int | None,
) -> None:
    exif = Image.Exif()
    if orientation:
        exif[274] = orientation
    picture(mode, size).save(tmp_path / name, **({"exif": exif} if orientation else {}))
    monkeypatch.setattr(handed_in, "STORED", 64)
    assert np.array_equal(handed_in.read_image(tmp_path / name), bantam_images.decode(tmp_path / name, 64))


@pytest.mark.parametrize("size", [64, 48, 80])
def test_the_student_s_input_is_bit_for_bit_that_of_validation(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(handed_in, "SIZE", size)
    images = torch.randint(0, 256, (5, 64, 64, 3), dtype=torch.uint8)
    assert torch.equal(handed_in.to_input(images), plain(images, size, handed_in.MEAN, handed_in.STD))


def test_crops_and_mirrored_views_are_cut_from_the_stored_image() -> None:
    images = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    whole = handed_in.view_of(images, 1.0, 0.0, 0.0, True)
    assert torch.equal(whole, plain(images, 64, handed_in.MEAN, handed_in.STD).flip(3))
    part = handed_in.view_of(images, 0.875, 0.125, 0.0, False)
    assert torch.equal(part, plain(images[:, :56, 8:], 64, handed_in.MEAN, handed_in.STD))


def views_in(settings: str) -> Any:
    """What the packaged code calls VIEWS."""
    names: dict[str, Any] = {}
    exec(settings, names)
    return names["VIEWS"]


@pytest.mark.parametrize("views", TTA)
def test_the_packaged_predictions_are_those_of_the_library(
    finished_run: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch, views: str
) -> None:
    net, shipped = load_shipped(finished_run)
    validation = cache.open_splits(photographs, 32).validation
    for name, value in (
        ("STORED", 32),
        ("SIZE", 32),
        ("VIEWS", views_in(section(code_of(net, shipped, 32, views), "Settings"))),
    ):
        monkeypatch.setattr(handed_in, name, value)
    logits = logits_of_tta(net, validation, 32, shipped.normalisation, views)
    assert torch.equal(handed_in.predict(net, validation.images), logits.argmax(1))


def test_the_ids_are_those_of_the_library(tmp_path: Path) -> None:
    for name in ("test/b/0001.jpg", "test/a/0001.jpg", "test/a/.hidden.jpg", "test/a/0002.png", "test/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list(handed_in.evaluation_images(tmp_path)) == ["a/0001", "a/0002", "b/0001"]
