"""The layout with class folders: the name of an image's folder is its class."""

from pathlib import Path
from typing import ClassVar

from bantam.data.layouts.flat import FLAT
from bantam.data.layouts.folders import SplitFolders, training_folder
from bantam.data.layouts.layout import Found, Notes, entries, in_order


class ClassFolders(SplitFolders):
    """train/CLASS/*, val/CLASS/*, test/* or test/CLASS/*."""

    bare_ids: ClassVar[bool] = False

    def recognises(self, root: Path) -> bool:
        """By folders among the training images, of which none has a label in its name."""
        return training_folder(root) is not None and not FLAT.recognises(root)

    def labelled(self, directory: Path, notes: Notes) -> list[tuple[Path, str]]:
        """The images in the class folders."""
        strays, folders, others = entries(directory)
        notes.ignored.extend(others)
        notes.problems.extend(f"{path} lies beside the class folders; move it into one of them" for path in strays)
        labelled = []
        for folder in folders:
            images, deeper, others = entries(folder)
            notes.ignored.extend(deeper + others)
            labelled += [(path, folder.name) for path in images]
        return labelled

    def keys(self, root: Path, found: Found, notes: Notes) -> tuple[str, ...]:
        """The names of the class folders, in the order of the alphabet, or of the numbers that they are."""
        present, directory = {key for _, key in found.training}, training_folder(root)
        names = [path.name for path in entries(directory)[1]] if directory else []
        empty = [name for name in names if name not in present]
        if len(empty) == 1 and present:
            notes.problems.append(
                f"{directory} has no image of class {empty[0]}; add images to it or remove its folder"
            )
        elif empty and present:  # without any image the split itself is named
            notes.problems.append(
                f"{directory} has no image of {len(empty)} classes, such as {empty[0]} and {empty[1]}; "
                "add images to them or remove their folders"
            )
        return in_order(names)


CLASSES = ClassFolders()
