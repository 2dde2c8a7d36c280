"""What the layouts share in which each split has a folder of its own."""

import difflib
import os
import re
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path

from bantam.data.layouts.layout import Found, Layout, Notes, entries, is_hidden, is_made_here
from bantam.errors import BadData

UNLABELLED = "unlabelled"
SPLIT_FOLDERS = {
    "training": ("training", "train"),
    "validation": ("validation", "val", "valid"),
    "evaluation": ("evaluation", "test", "testing", "eval"),
    UNLABELLED: (UNLABELLED, "unlabeled"),
}

_OF_A_SPLIT = re.compile(r"[ _-]?(set|images?|imgs?|pictures|photos|data|split)$")
"""What people add to the name of a split: training_set, test-images."""

_WORDS = frozenset({"train", "valid"})
"""Names of splits that are words for other things, too."""

NAME = re.compile(r"([0-9]{1,9})_.+")
"""A file's name without its suffix in the flat layout: its label, and what else there is."""


class SplitFolders(Layout):
    """A folder for each split; below it, images or folders of them."""

    @abstractmethod
    def labelled(self, directory: Path, notes: Notes) -> list[tuple[Path, str]]:
        """The images of one split in `directory`, each with its class."""

    def find(self, root: Path, notes: Notes) -> Found:
        """The images in the splits' folders, and those in unlabelled/."""
        strays, folders, _ = entries(root)
        directories = {split: folder_of(root, split, folders, notes) for split in SPLIT_FOLDERS}
        notes.ignored.extend(strays)
        for folder in folders:
            if not is_split_folder(folder) and any(images_below(folder)):
                notes.ignored.append(folder)
                if directories["training"] and (split := looks_like(folder)):
                    name = SPLIT_FOLDERS[split][0]
                    notes.remarks.append(f"{folder} is left out; if these are the {split} images, call it {name}")
        if directories["training"] is None:
            meant = next((folder for folder in folders if looks_like(folder) == "training"), None)
            instead = f"call {meant} so" if meant else "put its images there"
            notes.problems.append(f"{root} has no training split, {root / 'training'}; {instead}")
            directories["validation"] = None  # what its labels are is not known
        training, validation = (
            self._of(directories[split], split, root, notes) for split in ("training", "validation")
        )
        return Found(
            training,
            validation,
            without_labels(directories["evaluation"], notes),
            without_labels(directories[UNLABELLED], notes),
            divided=directories["validation"] is not None,
        )

    def _of(self, directory: Path | None, split: str, root: Path, notes: Notes) -> list[tuple[Path, str]]:
        labelled = self.labelled(directory, notes) if directory else []
        if directory and not labelled:
            found_there = left_out([path for path in notes.ignored if directory in path.parents], root)
            instead = f" (left out: {found_there})" if found_there else ""
            notes.problems.append(f"{directory} holds no labelled image{instead}; put the {split} images there")
        return labelled


def training_folder(root: Path) -> Path | None:
    """The folder of the training images in `root`, if there is one."""
    return folder_of(root, "training", entries(root)[1], Notes())


def is_split_folder(folder: Path) -> bool:
    """Whether a folder is that of a split."""
    return split_of(folder) is not None


def split_of(folder: Path) -> str | None:
    """The split whose folder this is; None also where it is a class of this name: train beside bus and car."""
    return None if folder.name.strip().casefold() in _WORDS and _is_class(folder) else split_named(folder.name)


def split_named(name: str) -> str | None:
    """The split that people call `name`, in whatever capitals."""
    plain = _OF_A_SPLIT.sub("", name.strip().casefold())
    return next((split for split, names in SPLIT_FOLDERS.items() if plain in names), None)


def _is_class(folder: Path) -> bool:
    """Whether a folder with a split's name is one of three classes or more: it holds just what its neighbours hold.

    That is photographs without labels in their names; and no neighbour has the name of a split to learn from, too.
    """
    if not _holds_a_class(folder):
        return False
    others = [one for one in entries(folder.parent)[1] if one != folder and split_named(one.name) != "evaluation"]
    learning = any(split_named(one.name) in ("training", "validation") for one in others)
    return not learning and sum(_holds_a_class(one) for one in others) >= 2


def _holds_a_class(folder: Path) -> bool:
    images, folders, _ = entries(folder)
    return bool(images) and not folders and not any(NAME.fullmatch(path.stem) for path in images)


def looks_like(folder: Path) -> str | None:
    """The split that a folder may have been meant for whose name is nearly that of one: vall, trian."""
    split_of = {name: split for split, names in SPLIT_FOLDERS.items() for name in names}
    near = difflib.get_close_matches(folder.name.casefold(), split_of, n=1, cutoff=0.75)
    return split_of[near[0]] if near else None


def folder_of(root: Path, split: str, folders: list[Path], notes: Notes) -> Path | None:
    """The one among the `folders` of `root` that has the name of a split."""
    present = [path for path in folders if split_of(path) == split]
    if len(present) > 1:
        both = " and ".join(path.name for path in present)
        notes.problems.append(f"{root} has both {both} for the {split} images; keep one of them")
    return without_wrapper(present[0]) if present else None


def without_wrapper(directory: Path) -> Path:
    """`directory`, or where it holds nothing but a folder of folders, such as train/images/CLASS, that folder."""
    images, folders, _ = entries(directory)
    if not images and len(folders) == 1:
        inside, deeper, _ = entries(folders[0])
        if deeper and not inside:
            return without_wrapper(folders[0])
    return directory


def without_labels(directory: Path | None, notes: Notes) -> list[Path]:
    """The images in `directory`; where it holds none but folders, those in the folders, whose names are no labels."""
    if directory is None:
        return []
    images, folders, others = entries(directory)
    notes.ignored.extend(others)
    if images:
        notes.ignored.extend(folders)
        return images
    for folder in folders:
        inside, deeper, others = entries(folder)
        images += inside
        notes.ignored.extend(deeper + others)
    return images


def left_out(paths: Iterable[Path], root: Path) -> str:
    """What was left out, by kind, the most frequent first, each with an example below `root`: 3 .cr2 (train/a.cr2).

    Of a folder the images in it are counted: 16 in a nested folder (such as train/a/more/b.jpg).
    """
    kinds: dict[str, list[Path]] = {}
    for path in sorted(paths):
        inside = [] if is_hidden(path.name) or not path.is_dir() or is_made_here(path) else list(images_below(path))
        place = NESTED if path.parent != root else NO_SPLIT
        kinds.setdefault(place if inside else _kind(path), []).extend(inside or [path])
    most_first = sorted(kinds.items(), key=lambda kind: (-len(kind[1]), kind[0]))
    return ", ".join(
        f"{len(found)} {kind} ({'such as ' * (kind in (NESTED, NO_SPLIT))}{found[0].relative_to(root)})"
        for kind, found in most_first
    )


NESTED, NO_SPLIT = "in a nested folder", "in a folder that is no split"


def images_below(directory: Path) -> Iterator[Path]:
    """The images in `directory` and in the folders below it, sorted, those of each folder once.

    What links lead to comes last: a folder that lies there anyway is not met again by a link.
    """
    met: set[tuple[int, int]] = set()
    waiting, linked = [directory], list[Path]()
    while waiting or linked:
        place = waiting.pop() if waiting else linked.pop(0)
        try:
            state = os.stat(place)
        except OSError as error:
            raise BadData(f"cannot read {place}: {error.strerror}; correct its permissions") from error
        if (state.st_dev, state.st_ino) in met:
            continue
        met.add((state.st_dev, state.st_ino))
        images, folders, _ = entries(place)
        yield from images
        linked += [folder for folder in folders if folder.is_symlink()]
        waiting += [folder for folder in reversed(folders) if not folder.is_symlink()]


def _kind(path: Path) -> str:
    if is_hidden(path.name):
        return "hidden"
    if path.is_dir():
        return "run" if is_made_here(path) else "folder"
    return path.suffix.lower() or "without a suffix"
