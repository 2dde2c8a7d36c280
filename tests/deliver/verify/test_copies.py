"""Copies of photographs that are moved by a pixel: another file, and the same picture to whoever looks."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from bantam.deliver.verify.copies import move


def test_a_moved_copy_lies_as_the_photograph_does(tmp_path: Path) -> None:
    rows, columns = np.mgrid[0:48, 0:64]
    pixels = np.stack([rows * 5, columns * 3, rows + columns], 2).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    Image.fromarray(pixels).save(tmp_path / "photograph.jpg", quality=95, exif=exif)
    assert move(tmp_path / "photograph.jpg", tmp_path / "moved.jpg")
    assert (tmp_path / "moved.jpg").read_bytes() != (tmp_path / "photograph.jpg").read_bytes()
    upright, moved = (ImageOps.exif_transpose(Image.open(tmp_path / f"{name}.jpg")) for name in ("photograph", "moved"))
    assert upright.size == moved.size == (48, 64)
    inner = [np.asarray(one.convert("RGB"), dtype=float)[2:-2, 2:-2] for one in (upright, moved)]
    assert 0 < np.abs(inner[0] - inner[1]).mean() < 8


def test_what_cannot_be_read_is_not_moved(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    assert not move(tmp_path / "broken.jpg", tmp_path / "moved.jpg")
