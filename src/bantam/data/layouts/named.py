"""Which image of a folder a table means by a value."""

import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

_MISSING = Path()


class NamedImages:
    """The images below a folder by what a table may call them: a path, or its end, with or without its suffix.

    Letters are compared composed, and in other capitals where there is no such name in these.
    """

    def __init__(self, images: Iterable[Path], root: Path) -> None:
        self.root = root
        self.folders: set[str] = set()
        """The names of the folders that hold the images, and of those above."""
        self.exact: dict[str, Path | None] = {}
        """Each image by every ending of its path; None where this is not one image alone."""
        self.small: dict[str, Path | None] = {}
        """The same, in small letters."""
        for path in images:
            parts = _composed(path.relative_to(root).as_posix()).split("/")
            self.folders.update(name.casefold() for name in parts[:-1])
            for depth in range(len(parts)):
                ending = "/".join(parts[depth:])
                for name in dict.fromkeys((ending, ending.removesuffix(path.suffix))):
                    for index, key in ((self.exact, name), (self.small, name.casefold())):
                        index[key] = path if index.get(key, path) == path else None

    def column(self, values: Sequence[str]) -> list[Path | None]:
        """The image that each of the values of a column names; None where it is none, or not one alone.

        An image that one value names by its path is not also meant by another's end.
        """
        found = [self._found(value) for value in values]
        sure = {path for path, whole in found if whole}
        return [path if whole or path not in sure else None for path, whole in found]

    def one(self, value: str) -> Path | None:
        """The image that a value names."""
        return self._found(value)[0]

    def _found(self, value: str) -> tuple[Path | None, bool]:
        """The image, and whether nothing of the value was left out for it."""
        parts = [part for part in _composed(value).replace("\\", "/").split("/") if part not in ("", ".")]
        for depth in range(len(parts)):
            ending = "/".join(parts[depth:])
            path = self.exact.get(ending, self.small.get(ending.casefold(), _MISSING))
            if path is not _MISSING:
                return (None if depth and path and self._is_elsewhere(parts[depth - 1], path) else path), depth == 0
        return None, False

    def _is_elsewhere(self, folder: str, path: Path) -> bool:
        """Whether what a value has in `folder` is another image than the one at `path`: there is such a folder."""
        above = _composed(path.relative_to(self.root).as_posix()).casefold().split("/")[:-1]
        return folder.casefold() in self.folders and folder.casefold() not in above


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)
