"""The real photographs, where they are at hand."""

import os
from pathlib import Path

import pytest


@pytest.fixture
def food_11() -> Path:
    """The Food-11 folder named by BANTAM_FOOD11, or the one beside the repository."""
    beside = Path(__file__).parents[3] / "shared" / "food-11"
    path = Path(os.environ.get("BANTAM_FOOD11") or beside)
    if not (path / "training").is_dir():
        pytest.skip("no Food-11 images: set BANTAM_FOOD11 to their folder")
    return path
