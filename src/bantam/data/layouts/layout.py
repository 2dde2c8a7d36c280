"""What every layout of a data folder tells, and what of a directory is an image."""

import contextlib
import os
import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from bantam.data.store import default_cache_dir
from bantam.errors import BadData

EXTENSIONS = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff"),
        *(".avif", ".avifs", ".heic", ".heics", ".heif", ".heifs", ".hif", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    }
)


TABLES = frozenset({".csv", ".tsv"})

FOREIGN = frozenset(
    {
        *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__pycache__"),
        *("@eadir", "$recycle.bin", "system volume information", "lost+found"),
    }
)
"""What systems put beside photographs, in small letters."""

RUN = (("plan.json",), ("recipe.toml", "environment.json"))
"""Files of which a run of Bantam has all of one row, from its beginning on."""


@dataclass(frozen=True)
class Notes:
    """What stands against using a folder, as sentences, and the files and folders in it that were left out.

    `remarks` are sentences on what was left out for another reason than its name.
    """

    problems: list[str] = field(default_factory=list[str])
    ignored: list[Path] = field(default_factory=list[Path])
    remarks: list[str] = field(default_factory=list[str])


@dataclass(frozen=True)
class Found:
    """The images of each split, all below the folder's root.

    `training` and `validation` say with each image the class that it is of, as the folder writes it: its key.
    Where the folder is not `divided`, it does not say which images are for validation: they are yet to be taken from
    training.
    """

    training: list[tuple[Path, str]]
    validation: list[tuple[Path, str]]
    evaluation: list[Path]
    unlabelled: list[Path]
    divided: bool = True


class Layout(ABC):
    """A way to lay out the images of a data folder. Only names are looked at: no image is opened."""

    bare_ids: ClassVar[bool] = True
    """Whether an image's id may be its file's name alone, where that is unique within the split."""

    @abstractmethod
    def recognises(self, root: Path) -> bool:
        """Whether the folder `root` is laid out in this way. Raises BadData where it cannot be read."""

    @abstractmethod
    def find(self, root: Path, notes: Notes) -> Found:
        """List the images in `root`; goes on after a problem, which is noted."""

    @abstractmethod
    def keys(self, root: Path, found: Found, notes: Notes) -> tuple[str, ...]:
        """The classes in the order of their labels, as the folder writes them, from the training split alone."""

    def names(self, root: Path, keys: tuple[str, ...], notes: Notes) -> tuple[str, ...]:
        """The classes as people call them, in the order of `keys`."""
        return keys


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is left out: it begins with a dot, or a system has put it there."""
    return name.startswith(".") or name.casefold() in FOREIGN


def is_run(folder: Path) -> bool:
    """Whether `folder` is a run, with pictures in its report that are nobody's photographs."""
    return any(all((folder / name).is_file() for name in names) for names in RUN)


def is_made_here(folder: Path) -> bool:
    """Whether `folder` is the cache, a run, or holds runs alone, as `runs/` does where a fit began in it."""
    with contextlib.suppress(OSError):
        if folder.samefile(default_cache_dir()):
            return True
    if is_run(folder):
        return True
    runs = False
    with contextlib.suppress(OSError), os.scandir(folder) as inside:
        for entry in inside:
            if not is_hidden(entry.name):
                runs = entry.is_dir() and is_run(Path(entry.path))
                if not runs:
                    break
    return runs


def legible(name: str) -> str:
    """A file's name as UTF-8 can hold it: bytes that are none are read as Latin-1, which was mostly meant."""
    return "".join(chr(ord(letter) - 0xDC00) if 0xDC80 <= ord(letter) <= 0xDCFF else letter for letter in name)


def class_name(text: str) -> str:
    """A class as it is called, however a system writes it: letters composed, spaces single, controls made visible."""
    words = " ".join(unicodedata.normalize("NFC", legible(text)).split())
    return "".join(ascii(letter)[1:-1] if unicodedata.category(letter) == "Cc" else letter for letter in words) or repr(
        text
    )


def in_order(keys: Iterable[str]) -> tuple[str, ...]:
    """The different keys in the order of the alphabet, or of the numbers that they are."""
    names = set(keys)
    # Classes named 0 to 10 mean these labels: in the order of the alphabet, 10 would come before 2.
    numbered = all(re.fullmatch("[0-9]{1,9}", name) for name in names)
    return tuple(sorted(names, key=lambda name: (int(name) if numbered else 0, name)))


def entries(directory: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """The images, the folders and whatever else is directly in `directory`, sorted; the hidden are among the last."""
    images, folders, others = [], [], []
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                path = directory / entry.name
                if is_hidden(entry.name):
                    others.append(path)
                elif _leads_to_folder(entry):
                    (others if is_made_here(path) else folders).append(path)
                elif path.suffix.lower() in EXTENSIONS:
                    images.append(path)
                else:
                    others.append(path)
    except FileNotFoundError:
        raise BadData(f"{directory} does not exist; give the folder that holds the images") from None
    except NotADirectoryError:
        raise BadData(f"{directory} is not a directory; give the folder that holds the images") from None
    except OSError as error:
        raise BadData(f"cannot read {directory}: {error.strerror}; correct its permissions") from error
    return sorted(images), sorted(folders), sorted(others)


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    with contextlib.suppress(OSError):  # a link that leads to itself
        return entry.is_dir()
    return False
