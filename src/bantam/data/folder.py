"""An image folder as records and classes.

Two layouts (`bantam.data.layouts`) are understood. In the flat one the label stands in the file's name; in the other
each class has a folder of its own:

    training/{label}_{n}.jpg    validation/{label}_{n}.jpg    evaluation/{id}.jpg
    train/CLASS/*               val/CLASS/*                   test/*  or  test/CLASS/*

In both, images without a label from which students may learn lie in unlabelled/.
Only names are looked at, no file is opened: an image is what is named like one. The evaluation split has no labels:
where its images lie in class folders, the folders' names are not read as labels; nor are those in unlabelled/.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from bantam.data.layouts import LAYOUTS
from bantam.data.layouts.flat import CLASS_NAMES
from bantam.data.layouts.folders import UNLABELLED
from bantam.data.layouts.layout import Notes, entries
from bantam.errors import BadData

FOOD_11 = (
    *("Bread", "Dairy product", "Dessert", "Egg", "Fried food", "Meat", "Noodles-Pasta", "Rice", "Seafood", "Soup"),
    "Vegetable-Fruit",
)
"""The classes of Food-11 (Singla, Yuan and Ebrahimi, 2016), in the order of their labels."""

_FOOD_11_NAME = re.compile(r"[0-9]{1,2}_[0-9]+\.jpg")
_FOOD_11_ID = re.compile(r"[0-9]+\.jpg")


@dataclass(frozen=True)
class Record:
    """One image file: its id is unique within its split; the label is None where there is none."""

    path: Path
    id: str
    label: int | None


@dataclass(frozen=True)
class Folder:
    """The records of a data folder, each split sorted by id."""

    root: Path
    layout: str
    classes: tuple[str, ...]
    training: tuple[Record, ...]
    validation: tuple[Record, ...]
    evaluation: tuple[Record, ...]
    unlabelled: tuple[Record, ...]


@dataclass(frozen=True)
class Listing:
    """A folder as far as it can be understood, what stands against using it, and what was left out.

    `ignored` are files that are not named like an image, and folders too deep; `hidden` those whose names begin with a
    dot.
    """

    folder: Folder
    problems: tuple[str, ...]
    ignored: tuple[Path, ...]
    hidden: tuple[Path, ...] = ()


def scan(root: Path) -> Folder:
    """Read the names in a data folder.

    Raises BadData if the folder is missing or empty, has no training or no validation images, has a class
    without training images, or has a labelled image whose label is missing or out of range.
    """
    listing = list_images(root)
    if listing.problems:
        more = len(listing.problems) - 1
        suffix = f" (and {more} more; see `bantam data check {root}`)" if more else ""
        raise BadData(listing.problems[0] + suffix)
    return listing.folder


def list_images(root: Path) -> Listing:
    """Like `scan`, but goes on after a problem and returns all of them.

    Raises BadData only if `root` is missing, is not a directory, cannot be read or is empty.
    """
    top_images, top_folders, _ = entries(root)
    if not top_images and not top_folders:
        raise BadData(f"{root} is empty; give a folder that holds training/, validation/ and evaluation/")

    notes = Notes()
    name = next((name for name, layout in LAYOUTS.items() if layout.recognises(root)), list(LAYOUTS)[-1])
    layout = LAYOUTS[name]
    found = layout.find(root, notes)
    keys = layout.keys(root, found, notes)
    index = {key: label for label, key in enumerate(keys)}
    trained = {key for _, key in found.training}
    notes.problems.extend(
        f"{path} has the label {key}, which no training image has; correct the label or remove the image"
        for path, key in found.validation
        if key not in trained
    )
    folder = Folder(
        root=root,
        layout=name,
        classes=layout.names(root, keys, notes),
        training=_records(root, found.training, index, layout.bare_ids),
        validation=_records(root, found.validation, index, layout.bare_ids),
        evaluation=_records(root, [(path, None) for path in found.evaluation], index),
        unlabelled=_named(UNLABELLED, _records(root, [(path, None) for path in found.unlabelled], index)),
    )
    hidden = tuple(sorted(path for path in notes.ignored if path.name.startswith(".")))
    return Listing(folder, tuple(notes.problems), tuple(sorted(set(notes.ignored) - set(hidden))), hidden)


def shown_names(folder: Folder) -> tuple[str, ...]:
    """The classes as people know them: by their names where they are Food-11's and only numbered, else as they are.

    Its images are known by their layout, by the number of classes, and by names that hold nothing but numbers; a folder
    with a classes.txt names its classes itself.
    """
    numbers = tuple(str(label) for label in range(len(FOOD_11)))
    if folder.layout != "flat" or folder.classes != numbers or (folder.root / CLASS_NAMES).exists():
        return folder.classes
    splits = {"training": folder.training, "validation": folder.validation, "evaluation": folder.evaluation}
    for name, records in splits.items():
        pattern = _FOOD_11_ID if name == "evaluation" else _FOOD_11_NAME
        if not all(one.path.parent.name == name and pattern.fullmatch(one.path.name) for one in records):
            return folder.classes
    return FOOD_11


def called(classes: tuple[str, ...], shown: tuple[str, ...]) -> tuple[str, ...]:
    """The `classes` as a run stored them, or as they are `shown` with its data where it stored nothing but numbers."""
    return shown if len(shown) == len(classes) and all(name.isdecimal() for name in classes) else classes


def _records(
    root: Path, pairs: Iterable[tuple[Path, str | None]], index: dict[str, int], bare: bool = True
) -> tuple[Record, ...]:
    """Records sorted by id. A key without a class gets no label; the folder's problems already name it."""
    pairs = list(pairs)
    ids = _unique_ids([path for path, _ in pairs], root, bare)
    records = [
        Record(path, id, None if key is None else index.get(key)) for (path, key), id in zip(pairs, ids, strict=True)
    ]
    return tuple(sorted(records, key=lambda record: record.id))


def _named(folder: str, records: tuple[Record, ...]) -> tuple[Record, ...]:
    """The same records with the folder's name before their ids, so that they may stand beside another split's."""
    return tuple(replace(record, id=f"{folder}/{record.id}") for record in records)


def _unique_ids(paths: list[Path], root: Path, bare: bool) -> list[str]:
    """The shortest of four ways of naming the files that gives no two of them the same id; `bare` allows the first."""
    namings = [
        [path.stem for path in paths],
        [f"{path.parent.name}/{path.stem}" for path in paths],
        [f"{path.parent.name}/{path.name}" for path in paths],
        [path.relative_to(root).as_posix() for path in paths],
    ]
    return next((ids for ids in namings[not bare :] if len(set(ids)) == len(ids)), namings[-1])
