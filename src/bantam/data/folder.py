"""An image folder as records and classes.

`bantam.data.layouts` has the layouts that are understood. A label stands in the file's name, each class has a folder of
its own, or a table lists them:

    training/{label}_{n}.jpg    validation/{label}_{n}.jpg    evaluation/{id}.jpg
    train/CLASS/*               val/CLASS/*                   test/*  or  test/CLASS/*
    CLASS/*                     labels.csv                    {label}_{n}.jpg

Where there is no folder for validation, it is yet to be chosen (`bantam.data.splitting`). In all of them, images
without a label from which students may learn lie in unlabelled/.
Only names are looked at, no image is opened: an image is what is named like one. The evaluation split has no labels:
where its images lie in class folders, the folders' names are not read as labels; nor are those in unlabelled/.
"""

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bantam.data.layouts import LAYOUTS
from bantam.data.layouts.flat import CLASS_NAMES
from bantam.data.layouts.folders import UNLABELLED, left_out
from bantam.data.layouts.layout import Found, Notes, class_name, entries, in_order, is_hidden, is_run, legible
from bantam.data.root import named_as_given, opened
from bantam.errors import BadData, typed

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
    divided: bool = True
    """Whether the folder says which images are for validation; if not, `splitting.divide` chooses them."""

    def splits(self, unlabelled: bool) -> dict[str, tuple[Record, ...]]:
        """The records of each split by its name, with those in unlabelled/ or without."""
        named = {"training": self.training, "validation": self.validation, "evaluation": self.evaluation}
        return named | {UNLABELLED: self.unlabelled} if unlabelled else named


@dataclass(frozen=True)
class Listing:
    """A folder as far as it can be understood, what stands against using it, and what was left out.

    `ignored` are files that are not named like an image, and folders too deep; `hidden` those whose names begin with a
    dot, or that a system has put there. `remarks` are sentences on what else was left out.
    """

    folder: Folder
    problems: tuple[str, ...]
    ignored: tuple[Path, ...]
    hidden: tuple[Path, ...] = ()
    remarks: tuple[str, ...] = ()


def scan(root: Path, cache_dir: Path | None = None) -> Folder:
    """Read the names in a data folder, in an archive of one, which is unpacked into the cache, or in a table.

    Where it is not `divided`, the training images are all that have a label. Raises BadData if the folder is missing or
    empty, has no training images, has a class without training images, or has a labelled image whose label is missing
    or out of range; and, where it is not divided, for a single class and for a class with a single image.
    """
    return usable(list_images(root, cache_dir), root).folder


def usable(listing: Listing, root: Path) -> Listing:
    """The same listing. Raises BadData if something stands against using it; `root` is for the message."""
    if listing.problems:
        more = len(listing.problems) - 1
        suffix = f" (and {more} more; see `bantam data check {typed(root)}`)" if more else ""
        raise BadData(listing.problems[0] + suffix)
    return listing


def list_images(root: Path, cache_dir: Path | None = None) -> Listing:
    """Like `scan`, but goes on after a problem and returns all of them.

    Raises BadData only if `root` is missing, cannot be read or is empty, or is neither a directory nor a whole archive
    nor a table.
    """
    if is_run(root):
        raise BadData(f"{root} is a run, not photographs; give the folder that holds the photographs")
    given, root = root, opened(root, cache_dir)
    as_given = partial(named_as_given, given=given, root=root, cache_dir=cache_dir)
    if root.is_dir() and not any(entries(root)[:2]):
        instead = left_out(entries(root)[2], root)
        raise BadData(
            f"{as_given(str(root))} is empty{f' but for {instead}' if instead else ''}; "
            "give the folder that holds the photographs, those of each class in a folder of its name"
        )

    notes = Notes()
    name = next((name for name, layout in LAYOUTS.items() if layout.recognises(root)), list(LAYOUTS)[-1])
    layout = LAYOUTS[name]
    found = layout.find(root, notes)
    keys = tuple(dict.fromkeys(map(class_name, layout.keys(root, found, notes))))
    found = replace(
        found,
        training=[(path, class_name(key)) for path, key in found.training],
        validation=[(path, class_name(key)) for path, key in found.validation],
    )
    notes.remarks.extend(_alike(keys))
    index = {key: label for label, key in enumerate(keys)}
    notes.problems.extend(_without_training(found))
    if not found.divided and found.training:
        notes.problems.extend(_undividable(root, found))
    base = root.parent if root.is_file() else root
    folder = Folder(
        root=base,
        layout=name,
        classes=layout.names(root, keys, notes),
        training=_records(base, found.training, index, layout.bare_ids),
        validation=_records(base, found.validation, index, layout.bare_ids),
        evaluation=_records(base, [(path, None) for path in found.evaluation], index),
        unlabelled=_named(UNLABELLED, _records(base, [(path, None) for path in found.unlabelled], index)),
        divided=found.divided,
    )
    hidden = tuple(sorted(path for path in notes.ignored if is_hidden(path.name)))
    ignored = tuple(sorted(set(notes.ignored) - set(hidden)))
    problems, remarks = (tuple(map(as_given, sentences)) for sentences in (notes.problems, notes.remarks))
    return Listing(folder, problems, ignored, hidden, remarks)


def remarks_on(listing: Listing) -> list[str]:
    """What a person should know of a folder that was not made for Bantam: what was left out of it, a sentence each."""
    said = f"left out: {left_out(listing.ignored, listing.folder.root)}" if listing.ignored else ""
    return [*([said] if said else []), *listing.remarks]


def _without_training(found: Found) -> Iterator[str]:
    """What to say of validation images of classes that training lacks: one sentence, of however many classes."""
    trained = {key for _, key in found.training}
    lacking: dict[str, list[Path]] = {}
    for path, key in found.validation:
        if trained and key not in trained:
            lacking.setdefault(key, []).append(path)
    if not lacking:
        return
    key, paths = next(iter(lacking.items()))
    small = {name.casefold(): name for name in sorted(trained)}
    near = difflib.get_close_matches(key.casefold(), small, n=1)
    hint = f" (is it {small[near[0]]}?)" if near else ""
    if len(lacking) > 1:
        yield (
            f"{len(lacking)} labels of validation images are those of no training image: {key}{hint}, such as "
            f"{paths[0]}, and {', '.join(list(lacking)[1:4])}{', ...' if len(lacking) > 4 else ''}; "
            "call classes alike in both, or remove these images"
        )
        return
    more = f" (and {len(paths) - 1:,} more)" if len(paths) > 1 else ""
    yield (
        f"{paths[0]} has the label {key}{more}, which no training image has{hint}; "
        "correct the label or remove the image"
    )


def _alike(keys: Iterable[str]) -> Iterator[str]:
    """What to say of classes whose names differ in capitals alone."""
    small: dict[str, list[str]] = {}
    for key in keys:
        small.setdefault(key.casefold(), []).append(key)
    for names in small.values():
        if len(names) > 1:
            yield f"warning: {' and '.join(names)} are taken for different classes; call them alike if they are one"


def _undividable(root: Path, found: Found) -> Iterator[str]:
    """What stands against taking validation images from training, a sentence for each class."""
    counts = Counter(key for _, key in found.training)
    if len(counts) == 1:
        yield f"{root} has one class, {next(iter(counts))}, and a classifier needs two; add photographs of another"
    for key in in_order(counts):
        if counts[key] == 1:
            yield (
                f"{root} has one photograph of class {key}, and one to learn from and one to measure by are needed; "
                "add some, or remove the class"
            )


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
        whole := [path.relative_to(root).as_posix() for path in paths],
    ]
    # Whoever reads a table of ids takes spaces at their ends for none.
    legibly = ([legible(id).strip() for id in ids] for ids in namings[not bare :])
    return next((ids for ids in legibly if len(set(ids)) == len(ids)), whole)
