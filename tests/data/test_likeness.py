"""Near duplicates: what is alike, what is not, and that all pairs are found that a plain comparison finds."""

import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from bantam.data import likeness
from bantam.data.embedded import write_digits
from bantam.data.likeness import Look, groups, look, near


def plainly(looks: list[Look]) -> set[tuple[int, int]]:
    found: set[tuple[int, int]] = set()
    for (a, one), (b, other) in itertools.combinations(enumerate(looks), 2):
        apart = np.abs(np.frombuffer(one.thumbnail, np.uint8).astype(int) - np.frombuffer(other.thumbnail, np.uint8))
        if (one.code ^ other.code).bit_count() <= likeness.BITS and apart.mean() <= likeness.LEVELS:
            found.add((a, b))
    return found


def families(count: int, seed: int) -> list[Look]:
    """Looks of which many are within a few bits and levels of one another."""
    draw = np.random.default_rng(seed)
    looks: list[Look] = []
    for _ in range(count):
        code = int(draw.integers(0, 2**63))
        thumbnail = draw.integers(30, 220, 192)
        for _ in range(4):
            bits = draw.choice(64, draw.integers(0, 5), replace=False)
            moved = thumbnail + draw.integers(-24, 25, 192)
            changed = code
            for bit in bits:
                changed ^= 1 << int(bit)
            looks.append(Look(changed, moved.astype(np.uint8).tobytes()))
    return looks


def test_all_pairs_are_found():
    looks = families(60, 0)
    expected = plainly(looks)
    assert 60 < len(expected) < 360
    assert near(looks) == expected


def test_many_blank_pages_are_compared_with_their_neighbours_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(likeness, "_NEIGHBOURS", 5)
    looks = [Look(7, bytes([n]) * 192) for n in range(100)]
    assert near(looks) == {(a, b) for a, b in itertools.combinations(range(100), 2) if b - a <= 5}
    assert near(looks[:1]) == near([]) == set()


def photograph(seed: int) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (14, 18, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((270, 210), Image.Resampling.BICUBIC)


def worse(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=30)
    return Image.open(buffer)


ALIKE = {
    "smaller": lambda image: image.resize((90, 70)),
    "a worse JPEG": worse,
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "moved": lambda image: image.crop((4, 0, 270, 210)),
}
OTHER = {
    "another": lambda image: photograph(10_000),
    "in other colours": lambda image: Image.merge("RGB", image.split()[::-1]),
    "upside down": lambda image: image.rotate(180),
}


@pytest.mark.parametrize("how", [*ALIKE, *OTHER])
def test_what_is_alike(tmp_path: Path, how: str):
    found = 0
    for seed in range(10):
        image = photograph(seed)
        paths = [tmp_path / f"{seed}-{n}.png" for n in range(2)]
        for path, one in zip(paths, (image, (ALIKE | OTHER)[how](image)), strict=True):
            one.save(path)
        found += groups(paths) == [[0, 1]]
    assert found >= 9 if how in ALIKE else found == 0


def test_groups_are_connected_and_unreadable_files_alone(tmp_path: Path):
    names = ("a", "b", "a", "broken", "a", "c")
    paths = [tmp_path / f"{number}.png" for number in range(len(names))]
    for number, (path, name) in enumerate(zip(paths, names, strict=True)):
        photograph(ord(name[0]) + len(name)).resize((90 + number, 70)).save(path)
    paths[3].write_bytes(b"")
    assert groups(paths) == [[0, 2, 4]]
    assert groups([]) == []


def test_digits_are_not_all_the_same(tmp_path: Path):
    """Small pictures of few levels: hardly any two are alike, and no chain of them swallows a class."""
    write_digits(tmp_path)
    paths = sorted((tmp_path / "training").iterdir())[::3]
    together = groups(paths)
    assert sum(map(len, together)) < len(paths) / 4
    assert max(map(len, together), default=0) < 20


def test_a_look_does_not_depend_on_the_format(tmp_path: Path):
    for name in ("x.png", "x.webp"):
        photograph(3).save(tmp_path / name, lossless=True)
    assert look(tmp_path / "x.png") == look(tmp_path / "x.webp")
