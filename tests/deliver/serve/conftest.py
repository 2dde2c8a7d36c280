"""A tiny finished run for the page: its photographs, its labels with a leaderboard, a given teacher."""

import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from bantam.data import cache
from bantam.deliver.grade import mark
from bantam.deliver.leaderboard import board_of, submit
from bantam.deliver.serve.desk import Setting, TeacherFile
from bantam.nets.teachers import build_teacher
from bantam.pipeline import run as pipeline
from bantam.recipes.recipe import parse
from bantam.runs.finished import open_run
from tiny_run import RECIPE


@pytest.fixture(scope="session")
def page_run(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BANTAM_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        pipeline.run(parse(RECIPE), photographs, out)
    return out


@pytest.fixture(scope="session")
def exits_run(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose student has two early exits, and no threshold chosen for them."""
    early = RECIPE[RECIPE.index("[[stage]]") :].replace('"student"\nkind = "student"', '"early"\nkind = "exits"')
    early = early.replace('net = "mobilenet_v1"', 'of = "student"\nafter = [1, 3]')
    backbone = RECIPE.replace("budget = 5000", "budget = 20000").replace(
        'kind = "student"', 'kind = "assistant"\nbudget = 5000'
    )
    text = backbone + early
    out = tmp_path_factory.mktemp("exits") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BANTAM_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        text += "[stage.objectives.self_distillation]\nweight = 1.0\n"
        pipeline.run(parse(text), photographs, out)
    return out


@pytest.fixture(scope="session")
def setting(page_run: Path, photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Setting:
    folder = tmp_path_factory.mktemp("beside")
    torch.manual_seed(0)
    torch.save(build_teacher("resnet18", 3).state_dict(), folder / "teacher.ckpt")
    labels = folder / "labels.csv"
    rows = [f"{n:04d},{n % 3},{'Public' if n < 6 else 'Private'}" for n in range(12)]
    labels.write_text("\n".join(["Id,Category,Usage", *rows]) + "\n")
    shutil.copy(page_run / "submission.csv", folder)
    marks = mark(folder / "submission.csv", labels)
    submit(board_of(labels), "<b>bold</b>", marks, datetime(2030, 1, 2, tzinfo=UTC))
    validation = cache.open_splits(photographs, 32, cache_dir=folder / "cache").validation
    # The tiny student may have all of them right; a gallery of mistakes needs some that are wrong.
    labels_of = validation.labels.clone()
    labels_of[::7] = (labels_of[::7] + 1) % 3
    validation = replace(validation, labels=labels_of)
    return Setting(open_run(page_run), validation, TeacherFile(folder / "teacher.ckpt", "resnet18", 40), labels)
