"""The code that is handed in reads every file as Bantam does, with Pillow alone."""

import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import hostile_images
from bantam.data import images
from bantam.data.folder import scan
from bantam.data.layouts.layout import EXTENSIONS
from bantam.deliver.package import hw13 as handed_in
from bantam.errors import BadImage

HEIC = frozenset(handed_in.NOT_READ)


def test_it_knows_the_same_formats_and_names_but_for_heic():
    assert handed_in.FORMATS == images.FORMATS
    assert frozenset(handed_in.SUFFIXES) == EXTENSIONS - HEIC
    assert HEIC < EXTENSIONS


def greys() -> dict[str, bytes]:
    """Grey of more than 8 bits, as TIFF."""
    ramp = np.linspace(0, 1, 40 * 48).reshape(40, 48)
    found = {}
    for name, grey in {
        "16 bits": (ramp * 65535).astype(np.uint16),
        "32 bits": (ramp * (2**31 - 1)).astype(np.int32),
        "0..1": ramp.astype(np.float32),
        "0..255": (ramp * 255).astype(np.float32),
        "no numbers": np.where(ramp > 0.5, np.nan, ramp).astype(np.float32),
    }.items():
        file = io.BytesIO()
        Image.fromarray(grey).save(file, "TIFF")
        found[name] = file.getvalue()
    return found


def quietly_read(path: Path) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return handed_in.read_image(path)


def test_it_reads_every_file_as_bantam_does(tmp_path: Path):
    """Also the damaged ones: where one refuses, so does the other. Only HEIC is not read by Pillow alone."""
    path = tmp_path / "image.jpg"
    refused = same = 0
    for name, data in (*hostile_images.everything(), *greys().items()):
        if name.startswith("HEIC"):
            continue
        path.write_bytes(data)
        try:
            expected = images.decode(path, handed_in.STORED)
        except BadImage:
            refused += 1
            if "pixels" not in name:  # Bantam's limit is lower than Pillow's
                with pytest.raises(Exception):  # noqa: B017
                    quietly_read(path)
            continue
        assert np.array_equal(quietly_read(path), expected), name
        same += 1
    assert refused > 50
    assert same > 100


def test_it_finds_the_images_that_bantam_finds(tmp_path: Path):
    for name in ("training/0_0.jpg", "validation/0_0.jpg"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    names = [f"{n:02}{suffix}" for n, suffix in enumerate(sorted(EXTENSIONS - HEIC))]
    (tmp_path / "evaluation").mkdir()
    for name in (*names, "97.JPG", "98.Tif", "99.txt", ".90.jpg"):
        (tmp_path / "evaluation" / name).touch()
    records = scan(tmp_path).evaluation
    assert len(records) == len(names) + 2
    assert handed_in.evaluation_images(tmp_path) == {record.id: record.path for record in records}


@pytest.mark.parametrize("folder", ["evaluation", "evaluation/a"])
def test_what_pillow_alone_does_not_read_is_named_and_not_left_out(tmp_path: Path, folder: str):
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / "01.HEIC").touch()
    with pytest.raises(SystemExit, match=r"01\.HEIC is not read by Pillow alone; convert"):
        handed_in.evaluation_images(tmp_path)
