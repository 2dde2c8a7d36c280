"""What several rooms' tests share: one thread a process, a small real image folder, the real one where it is."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bantam.recipe import Recipe, parse

# Two threads on two cores that other processes use as well spin more than they compute.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"


def write_photographs(root: Path, training: int = 60, validation: int = 30, evaluation: int = 12) -> Path:
    """Noisy 32 px images of three classes, told apart by their colour, in the flat layout."""
    draw = np.random.default_rng(7)
    colours = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200]])
    for split, count in (("training", training), ("validation", validation), ("evaluation", evaluation)):
        (root / split).mkdir(parents=True)
        for number in range(count):
            label = number % 3
            pixels = np.clip(colours[label] + draw.normal(0, 60, (32, 32, 3)), 0, 255).astype(np.uint8)
            name = f"{number:04d}.png" if split == "evaluation" else f"{label}_{number}.png"
            Image.fromarray(pixels).save(root / split / name)
    return root


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("photographs"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cache."""
    monkeypatch.setenv("BANTAM_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def food11() -> Path:
    """The real photographs; a test that needs them is skipped where they are missing."""
    beside = Path(__file__).parents[2] / "shared" / "food-11"
    root = Path(os.environ.get("BANTAM_FOOD11") or beside)
    if not root.is_dir():
        pytest.skip("the Food-11 photographs are not here; set BANTAM_FOOD11 to their folder")
    return root


RECIPE = """
name = "tiny"
budget = 5000
[data]
size = 32
[[stage]]
name = "student"
kind = "student"
net = "mobilenet_v1"
size = 32
epochs = 4
batch_size = 10
ema = 0.9
precision = "fp32"
[stage.augment]
scale = [0.6, 1.0]
cutmix = 0.5
[stage.optimizer]
lr = 5e-3
[stage.objectives.supervised]
weight = 1.0
"""


@pytest.fixture
def tiny() -> Recipe:
    return parse(RECIPE)
