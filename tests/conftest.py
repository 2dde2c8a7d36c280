"""What several rooms' tests share: one thread a process, small real photographs and a run on them, the real ones."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bantam.pipeline import run as pipeline
from bantam.recipes.recipe import Recipe, parse
from tiny_run import RECIPE, write_photographs

# Two threads on two cores that other processes use as well spin more than they compute.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("photographs"))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test, and no fixture that several tests share, reads or writes the user's cache."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("BANTAM_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture(scope="session")
def food11() -> Path:
    """The real photographs; a test that needs them is skipped where they are missing."""
    beside = Path(__file__).parents[2] / "shared" / "food-11"
    root = Path(os.environ.get("BANTAM_FOOD11") or beside)
    if not root.is_dir():
        pytest.skip("the Food-11 photographs are not here; set BANTAM_FOOD11 to their folder")
    return root


@pytest.fixture
def tiny() -> Recipe:
    return parse(RECIPE)


@pytest.fixture(scope="session")
def finished_run(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BANTAM_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        pipeline.run(parse(RECIPE), photographs, out)
    return out


@pytest.fixture
def own_run(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run that a test may change."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))
