"""The flat layout: the label stands in the file's name, {label}_{n}.jpg; classes.txt may name the classes."""

from pathlib import Path

from bantam.data.layouts.folders import (
    NAME,
    SPLIT_FOLDERS,
    UNLABELLED,
    SplitFolders,
    folder_of,
    is_split_folder,
    left_out,
    training_folder,
    without_labels,
)
from bantam.data.layouts.layout import Found, Notes, entries
from bantam.errors import BadData

CLASS_NAMES = "classes.txt"


class Flat(SplitFolders):
    """training/{label}_{n}.jpg, validation/{label}_{n}.jpg, evaluation/{id}.jpg; or just {label}_{n}.jpg."""

    def recognises(self, root: Path) -> bool:
        """By a label in a file's name, or because there are no folders for classes."""
        training = training_folder(root)
        if training is None:
            return True
        images, folders, _ = entries(training)
        return any(NAME.fullmatch(path.stem) for path in images) or not folders

    def find(self, root: Path, notes: Notes) -> Found:
        """The images in the splits' folders; without these, the images in `root` itself."""
        images, folders, others = entries(root)
        splits = {split: folder_of(root, split, folders, notes) for split in SPLIT_FOLDERS}
        if splits["training"] or splits["validation"]:
            return super().find(root, notes)
        notes.ignored.extend([path for path in folders if not is_split_folder(path)] + others)
        if not images:
            instead = left_out(notes.ignored, root)
            notes.problems.append(
                f"{root} holds no photographs{f' (left out: {instead})' if instead else ''}; "
                "put those of each class into a folder of the class's name"
            )
        evaluation, extra = (without_labels(splits[split], notes) for split in ("evaluation", UNLABELLED))
        return Found(_labelled(images, root, notes), [], evaluation, extra, divided=False)

    def labelled(self, directory: Path, notes: Notes) -> list[tuple[Path, str]]:
        """The images that have a label in their names."""
        images, folders, others = entries(directory)
        notes.ignored.extend(folders + others)
        return _labelled(images, directory, notes)

    def keys(self, root: Path, found: Found, notes: Notes) -> tuple[str, ...]:
        """The labels up to the highest, or to the first gap."""
        present = {key for _, key in found.training}
        highest = max(map(int, present), default=-1)
        # The first gap, not all of them: a date taken for a label would give millions.
        gap = next(label for label in range(highest + 2) if str(label) not in present)
        if gap <= highest:
            notes.problems.append(
                f"{training_folder(root) or root} has no image of class {gap} although labels go up to {highest}; "
                "add images of it or number the classes without a gap"
            )
        return tuple(str(label) for label in range(gap))

    def names(self, root: Path, keys: tuple[str, ...], notes: Notes) -> tuple[str, ...]:
        """The names in classes.txt, one a line in the order of the labels; the numbers where there is none."""
        path = root / CLASS_NAMES
        if not path.is_file():
            return keys
        try:
            return read_names(path, len(keys))
        except BadData as error:
            notes.problems.append(str(error))
            return keys


def read_names(path: Path, classes: int) -> tuple[str, ...]:
    """The names of so many classes in a text file, one a line in the order of the labels. Raises BadData."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise BadData(f"{path} cannot be read as UTF-8 text; write one class name a line, or remove it") from error
    except OSError as error:
        raise BadData(f"{path} cannot be read: {error.strerror or error}; write one class name a line") from error
    names = tuple(line.strip() for line in lines if line.strip())
    if len(names) != classes or len(set(names)) != len(names):
        raise BadData(
            f"{path} holds {len(names)} names ({len(set(names))} different) for {classes} classes; "
            "write one name a line, or remove it"
        )
    return names


def labelled_by_name(images: list[Path]) -> bool:
    """Whether there are images, and each has a label in its name."""
    return bool(images) and all(NAME.fullmatch(path.stem) for path in images)


def _labelled(images: list[Path], directory: Path, notes: Notes) -> list[tuple[Path, str]]:
    named = [(path, NAME.fullmatch(path.stem)) for path in images]
    without = [path for path, name in named if not name]
    if len(without) == 1:
        path = without[0]
        notes.problems.append(f"{path} has no label in its name; rename it to {{label}}_{{n}}{path.suffix}")
    elif without:
        notes.problems.append(
            f"{directory} holds {len(without):,} photographs without a class: "
            f"{without[0].name} has no label in its name; "
            "put those of each class into a folder of its name, or list files and labels in labels.csv"
        )
    return [(path, str(int(name[1]))) for path, name in named if name]


FLAT = Flat()
