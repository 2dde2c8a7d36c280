"""An image folder as records and classes.

Two layouts are understood. In the flat one the label stands in the file's name; in the other each class has a
folder of its own:

    training/{label}_{n}.jpg    validation/{label}_{n}.jpg    evaluation/{id}.jpg
    train/CLASS/*               val/CLASS/*                   test/*  or  test/CLASS/*

In both, images without a label from which students may learn lie in unlabelled/.
Only names are looked at, no file is opened: an image is what is named like one. The evaluation split has no labels:
where its images lie in class folders, the folders' names are not read as labels; nor are those in unlabelled/.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from bantam.errors import BadData

SPLIT_FOLDERS = {
    "training": ("training", "train"),
    "validation": ("validation", "val", "valid"),
    "evaluation": ("evaluation", "test"),
}
UNLABELLED = "unlabelled"
EXTENSIONS = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff"),
        *(".avif", ".avifs", ".heic", ".heics", ".heif", ".heifs", ".hif"),
    }
)
CLASS_NAMES = "classes.txt"

FOOD_11 = (
    *("Bread", "Dairy product", "Dessert", "Egg", "Fried food", "Meat", "Noodles-Pasta", "Rice", "Seafood", "Soup"),
    "Vegetable-Fruit",
)
"""The classes of Food-11 (Singla, Yuan and Ebrahimi, 2016), in the order of their labels."""

_FLAT_NAME = re.compile(r"([0-9]{1,9})_.+")
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
    layout: Literal["flat", "classes"]
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
    top_images, top_folders, _ = _entries(root)
    if not top_images and not top_folders:
        raise BadData(f"{root} is empty; give a folder that holds training/, validation/ and evaluation/")

    problems: list[str] = []
    ignored: list[Path] = []
    found = {name: _split_folder(root, name, top_folders, problems) for name in SPLIT_FOLDERS}
    layout = _layout(found["training"])
    read = _read_flat if layout == "flat" else _read_classes
    labelled: dict[str, list[tuple[Path, str]]] = {}
    for name in ("training", "validation"):
        directory = found[name]
        labelled[name] = read(directory, problems, ignored) if directory else []
        if directory and not labelled[name]:
            found_there = left_out([path for path in ignored if directory in path.parents], root)
            instead = f" (left out: {found_there})" if found_there else ""
            problems.append(f"{directory} holds no labelled image{instead}; put the {name} images there")
    evaluation = _read_unlabelled(found["evaluation"], ignored) if found["evaluation"] else []
    extra = root / UNLABELLED
    unlabelled = _read_unlabelled(extra, ignored) if extra in top_folders else []

    keys = _class_keys(layout, labelled["training"], found["training"], problems)
    index = {key: label for label, key in enumerate(keys)}
    trained = {key for _, key in labelled["training"]}
    problems += [
        f"{path} has the label {key}, which no training image has; correct the label or remove the image"
        for path, key in labelled["validation"]
        if key not in trained
    ]
    splits = {name: _records(root, pairs, index, layout) for name, pairs in labelled.items()}
    folder = Folder(
        root=root,
        layout=layout,
        classes=_class_names(root, keys, problems) if layout == "flat" else keys,
        training=splits["training"],
        validation=splits["validation"],
        evaluation=_records(root, [(path, None) for path in evaluation], index, "flat"),
        unlabelled=_named(UNLABELLED, _records(root, [(path, None) for path in unlabelled], index, "flat")),
    )
    hidden = tuple(sorted(path for path in ignored if path.name.startswith(".")))
    return Listing(folder, tuple(problems), tuple(sorted(set(ignored) - set(hidden))), hidden)


def left_out(paths: Iterable[Path], root: Path) -> str:
    """What was left out, by kind, the most frequent first, each with an example below `root`: 3 .cr2 (train/a.cr2)."""
    kinds: dict[str, list[Path]] = {}
    for path in sorted(paths):
        kinds.setdefault(_kind(path), []).append(path)
    most_first = sorted(kinds.items(), key=lambda kind: (-len(kind[1]), kind[0]))
    return ", ".join(f"{len(found)} {kind} ({found[0].relative_to(root)})" for kind, found in most_first)


def _kind(path: Path) -> str:
    if path.name.startswith("."):
        return "hidden"
    if path.is_dir():
        return "folder"
    return path.suffix.lower() or "without a suffix"


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


def _entries(directory: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """The images, the folders and whatever else is directly in `directory`, sorted; the hidden are among the last."""
    images, folders, others = [], [], []
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                path = directory / entry.name
                if entry.name.startswith("."):
                    others.append(path)
                elif entry.is_dir():
                    folders.append(path)
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


def _split_folder(root: Path, split: str, folders: list[Path], problems: list[str]) -> Path | None:
    names = SPLIT_FOLDERS[split]
    present = [path for path in folders if path.name in names]
    if len(present) > 1:
        both = " and ".join(path.name for path in present)
        problems.append(f"{root} has both {both} for the {split} images; keep one of them")
    if not present and split != "evaluation":
        problems.append(f"{root} has no {split} split; put its images into {root / names[0]}")
    return present[0] if present else None


def _layout(training: Path | None) -> Literal["flat", "classes"]:
    if training is None:
        return "flat"
    images, folders, _ = _entries(training)
    if any(_FLAT_NAME.fullmatch(path.stem) for path in images) or not folders:
        return "flat"
    return "classes"


def _read_flat(directory: Path, problems: list[str], ignored: list[Path]) -> list[tuple[Path, str]]:
    images, folders, others = _entries(directory)
    ignored += folders + others
    labelled = []
    for path in images:
        if name := _FLAT_NAME.fullmatch(path.stem):
            labelled.append((path, str(int(name[1]))))
        else:
            problems.append(f"{path} has no label in its name; rename it to {{label}}_{{n}}{path.suffix}")
    return labelled


def _read_classes(directory: Path, problems: list[str], ignored: list[Path]) -> list[tuple[Path, str]]:
    strays, folders, others = _entries(directory)
    ignored += others
    problems += [f"{path} lies beside the class folders; move it into one of them" for path in strays]
    labelled = []
    for folder in folders:
        images, deeper, others = _entries(folder)
        ignored += deeper + others
        labelled += [(path, folder.name) for path in images]
    return labelled


def _read_unlabelled(directory: Path, ignored: list[Path]) -> list[Path]:
    images, folders, others = _entries(directory)
    ignored += others
    if images:
        ignored += folders
        return images
    for folder in folders:
        inside, deeper, others = _entries(folder)
        images += inside
        ignored += deeper + others
    return images


def _class_keys(
    layout: str, training: list[tuple[Path, str]], directory: Path | None, problems: list[str]
) -> tuple[str, ...]:
    """The classes in the order of their labels, from the training split alone."""
    present = {key for _, key in training}
    if layout == "flat":
        highest = max(map(int, present), default=-1)
        # The first gap, not all of them: a date taken for a label would give millions.
        gap = next(label for label in range(highest + 2) if str(label) not in present)
        if gap <= highest:
            problems.append(
                f"{directory} has no image of class {gap} although labels go up to {highest}; "
                "add images of it or number the classes without a gap"
            )
        return tuple(str(label) for label in range(gap))
    names = [path.name for path in _entries(directory)[1]] if directory else []
    problems += [
        f"{directory} has no image of class {name}; add images to it or remove its folder"
        for name in names
        if name not in present
    ]
    # Folders named 0 to 10 mean these labels: in the order of the alphabet, 10 would come before 2.
    numbered = all(re.fullmatch("[0-9]{1,9}", name) for name in names)
    return tuple(sorted(names, key=lambda name: (int(name) if numbered else 0, name)))


def _class_names(root: Path, keys: tuple[str, ...], problems: list[str]) -> tuple[str, ...]:
    """The names in classes.txt, one a line in the order of the labels; the numbers where there is none."""
    path = root / CLASS_NAMES
    if not path.is_file():
        return keys
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        problems.append(f"{path} cannot be read as UTF-8 text; write one class name a line, or remove it")
        return keys
    names = tuple(line.strip() for line in lines if line.strip())
    if len(names) != len(keys) or len(set(names)) != len(names):
        problems.append(
            f"{path} holds {len(names)} names ({len(set(names))} different) for {len(keys)} classes; "
            "write one name a line, or remove it"
        )
        return keys
    return names


def _records(
    root: Path, pairs: Iterable[tuple[Path, str | None]], index: dict[str, int], layout: str
) -> tuple[Record, ...]:
    """Records sorted by id. A key without a class gets no label; `problems` already names it."""
    pairs = list(pairs)
    ids = _unique_ids([path for path, _ in pairs], layout)
    records = [
        Record(path, id, None if key is None else index.get(key)) for (path, key), id in zip(pairs, ids, strict=True)
    ]
    return tuple(sorted(records, key=lambda record: record.id))


def _named(folder: str, records: tuple[Record, ...]) -> tuple[Record, ...]:
    """The same records with the folder's name before their ids, so that they may stand beside another split's."""
    return tuple(replace(record, id=f"{folder}/{record.id}") for record in records)


def _unique_ids(paths: list[Path], layout: str) -> list[str]:
    """The shortest of three ways of naming the files that gives no two of them the same id."""
    namings = [
        [path.stem for path in paths],
        [f"{path.parent.name}/{path.stem}" for path in paths],
        [f"{path.parent.name}/{path.name}" for path in paths],
    ]
    if layout == "classes":
        del namings[0]
    return next(ids for ids in namings if len(set(ids)) == len(ids))
