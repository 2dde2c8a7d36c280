"""The layout with class folders and no splits: which images are for validation is yet to be chosen."""

from pathlib import Path
from typing import ClassVar

from bantam.data.layouts.flat import labelled_by_name
from bantam.data.layouts.folders import (
    UNLABELLED,
    folder_of,
    is_split_folder,
    left_out,
    split_named,
    without_labels,
)
from bantam.data.layouts.layout import Found, Layout, Notes, entries, in_order
from bantam.data.layouts.table import contradictions


class BareFolders(Layout):
    """CLASS/*, and perhaps test/* beside them."""

    bare_ids: ClassVar[bool] = False

    def recognises(self, root: Path) -> bool:
        """By folders beside one another, and none for training or validation."""
        images, folders, _ = entries(root)
        splits = [folder_of(root, split, folders, Notes()) for split in ("training", "validation")]
        return not labelled_by_name(images) and not any(splits) and any(not is_split_folder(path) for path in folders)

    def find(self, root: Path, notes: Notes) -> Found:
        """The images in the class folders."""
        strays, folders, others = entries(root)
        notes.ignored.extend(others)
        if strays:
            notes.problems.append(
                f"{root} holds {len(strays):,} photographs beside the class folders, such as {strays[0].name}; "
                "move them into class folders, or list files and labels in labels.csv"
            )
        training: list[tuple[Path, str]] = []
        for folder in folders:
            if not is_split_folder(folder):
                images, deeper, others = entries(folder)
                notes.ignored.extend(deeper + others)
                training += [(path, folder.name) for path in images]
                if split_named(folder.name):
                    notes.remarks.append(f"{folder} is taken for a class, as the folders beside it")
        notes.problems.extend(contradictions(root, training))
        evaluation, extra = (folder_of(root, split, folders, notes) for split in ("evaluation", UNLABELLED))
        return Found(training, [], without_labels(evaluation, notes), without_labels(extra, notes), divided=False)

    def keys(self, root: Path, found: Found, notes: Notes) -> tuple[str, ...]:
        """The names of the class folders."""
        present = {key for _, key in found.training}
        names = [path.name for path in entries(root)[1] if not is_split_folder(path)]
        for name in [name for name in names if name not in present]:
            instead = left_out([path for path in notes.ignored if root / name in path.parents], root)
            notes.problems.append(
                f"{root / name} holds no photographs{f' (left out: {instead})' if instead else ''}; "
                "put some into it, or remove it"
            )
        return in_order(names)


BARE = BareFolders()
