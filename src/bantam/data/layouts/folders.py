"""What the layouts share in which each split has a folder of its own."""

from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path

from bantam.data.layouts.layout import Found, Layout, Notes, entries

SPLIT_FOLDERS = {
    "training": ("training", "train"),
    "validation": ("validation", "val", "valid"),
    "evaluation": ("evaluation", "test"),
}
UNLABELLED = "unlabelled"


class SplitFolders(Layout):
    """A folder for each split; below it, images or folders of them."""

    @abstractmethod
    def labelled(self, directory: Path, notes: Notes) -> list[tuple[Path, str]]:
        """The images of one split in `directory`, each with its class."""

    def find(self, root: Path, notes: Notes) -> Found:
        """The images in the splits' folders, and those in unlabelled/."""
        folders = entries(root)[1]
        directories = {split: _of_split(root, split, folders, notes) for split in SPLIT_FOLDERS}
        training, validation = (
            self._of(directories[split], split, root, notes) for split in ("training", "validation")
        )
        evaluation, extra = directories["evaluation"], root / UNLABELLED
        return Found(
            training,
            validation,
            without_labels(evaluation, notes) if evaluation else [],
            without_labels(extra, notes) if extra in folders else [],
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
    present = [path for path in entries(root)[1] if path.name in SPLIT_FOLDERS["training"]]
    return present[0] if present else None


def _of_split(root: Path, split: str, folders: list[Path], notes: Notes) -> Path | None:
    names = SPLIT_FOLDERS[split]
    present = [path for path in folders if path.name in names]
    if len(present) > 1:
        both = " and ".join(path.name for path in present)
        notes.problems.append(f"{root} has both {both} for the {split} images; keep one of them")
    if not present and split != "evaluation":
        notes.problems.append(f"{root} has no {split} split; put its images into {root / names[0]}")
    return present[0] if present else None


def without_labels(directory: Path, notes: Notes) -> list[Path]:
    """The images in `directory`; where it holds none but folders, those in the folders, whose names are no labels."""
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
