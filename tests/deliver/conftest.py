"""A finished tiny run, shared by the tests of what is made from runs."""

import shutil
from pathlib import Path

import pytest

from bantam import pipeline
from bantam.recipe import parse
from tiny_run import RECIPE


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
