"""The photographs that a package's code is shown: copies under other names, in another order, and some of them changed.

Between the copies lie some of photographs moved by a pixel and encoded anew. A net hardly answers otherwise to them;
what knows photographs by their bytes, their size or their name does.
"""

import os
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from bantam.data.folder import Record

Item = TypeVar("Item")

FEW = 8
"""Photographs of the first look, in which the code's preprocessing is found out."""

MOVED = 256
"""Most photographs that are also shown moved."""

QUALITY = 90
"""Of the moved photographs, where they are JPEG or WebP."""

TIME = 1_600_000_000
"""When all copies say that they were changed, in seconds since 1970."""


@dataclass(frozen=True)
class Copy:
    """One copy: its file, the photograph that it is of, and whether it was moved and encoded anew."""

    path: Path
    record: Record
    moved: bool = False

    @property
    def id(self) -> str:
        """The id that the code gives it: the name without suffix."""
        return self.path.stem


def few(records: Sequence[Record], folder: Path) -> list[Copy]:
    """Copies of a few photographs, of as many different shapes as there are, in the order of their names."""
    shuffled = drawn(records)
    shapes: dict[tuple[int, int], list[Record]] = {}
    for record in shuffled:
        shapes.setdefault(size_of(record.path), []).append(record)
    kinds = [*shapes.values()]
    by_turns = [kind[turn] for turn in range(FEW) for kind in kinds if turn < len(kind)]
    return written([Copy(folder, record) for record in by_turns[:FEW]], folder)


def all_of(records: Sequence[Record], folder: Path) -> list[Copy]:
    """Copies of all photographs, and of some of them moved, in a random order, which is that of their names."""
    chosen = drawn(records)[:MOVED]
    copies = [Copy(folder, record) for record in records] + [Copy(folder, record, True) for record in chosen]
    return written(drawn(copies), folder)


def drawn(items: Sequence[Item]) -> list[Item]:
    """The items in an order that nobody can foresee."""
    return random.SystemRandom().sample(items, len(items))


def size_of(path: Path) -> tuple[int, int]:
    """A photograph's width and height, and (0, 0) where it is none."""
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, ValueError, Image.DecompressionBombError):
        return 0, 0


def written(copies: Sequence[Copy], folder: Path) -> list[Copy]:
    """Write copies into `folder` under the names 0000, 0001 and so on, in their order."""
    folder.mkdir(parents=True)
    digits = max(4, len(str(len(copies))))
    named = [
        Copy(folder / f"{number:0{digits}}{copy.record.path.suffix}", copy.record, copy.moved)
        for number, copy in enumerate(copies)
    ]
    for copy in drawn(named):
        if not (copy.moved and move(copy.record.path, copy.path)):
            shutil.copyfile(copy.record.path, copy.path)
        os.chmod(copy.path, 0o444)
        os.utime(copy.path, (TIME, TIME))
    return named


def move(photograph: Path, to: Path) -> bool:
    """Write the photograph moved by a pixel and encoded anew; gives whether that went."""
    ways = ((0, 1), (0, -1), (1, 0), (-1, 0))
    try:
        with Image.open(photograph) as image:
            kind, exif = image.format or "PNG", image.info.get("exif", b"")
            pixels = np.asarray(image.convert("RGB"))
        moved = np.roll(pixels, random.SystemRandom().choice(ways), (0, 1))
        Image.fromarray(moved).save(to, kind, quality=QUALITY, exif=exif)
    except (OSError, ValueError, Image.DecompressionBombError):
        return False
    return True
