"""What a sample of photographs shows."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bantam.data.cache import open_splits
from bantam.data.folder import list_images
from bantam.fit import known


def pictures(root: Path, side: int, grey: bool, each: int = 6) -> Path:
    draw = np.random.default_rng(0)
    for name in ("one", "other"):
        (root / name).mkdir(parents=True)
        for number in range(each + 4 * (name == "one")):
            pixels = draw.integers(0, 256, (side, side + 10, 1 if grey else 3), dtype=np.uint8)
            Image.fromarray(np.broadcast_to(pixels, (side, side + 10, 3)).copy()).save(root / name / f"{number}.png")
    return root


@pytest.mark.parametrize(
    ("side", "grey", "signs"), [(28, True, True), (28, False, False), (200, True, False), (200, False, False)]
)
def test_small_grey_pictures_are_taken_for_signs(side: int, grey: bool, signs: bool, tmp_path: Path) -> None:
    looked = known.sample(list_images(pictures(tmp_path / "photos", side, grey)))
    assert (looked.side, looked.signs) == (side, signs)
    assert looked.seconds > 0


def test_one_that_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    root = pictures(tmp_path / "photos", 40, False)
    (root / "one" / "0.png").write_bytes(b"nothing")
    assert known.sample(list_images(root)).side == 40
    for path in root.rglob("*.png"):
        path.write_bytes(b"nothing")
    assert known.sample(list_images(root)).side == known.LARGE


def test_what_names_tell_is_about_what_the_opened_photographs_are(tmp_path: Path) -> None:
    root = pictures(tmp_path / "photos", 40, False)
    listing = list_images(root)
    looked = known.sample(listing)
    by_names, opened = known.of_names(listing, looked), known.of_splits(open_splits(root, 32), looked)
    assert (by_names.training, by_names.validation, by_names.classes) == (13, 3, 2)
    assert (opened.training, opened.validation, opened.evaluation, opened.classes) == (13, 3, 0, 2)
    assert opened.largest == pytest.approx(2 / 3)
    assert opened.fewest == 5
