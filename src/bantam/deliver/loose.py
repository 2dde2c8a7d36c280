"""Loose photographs, named one by one or by their folder, and the table of what they were taken for."""

import csv
from pathlib import Path

from bantam.data.images import decode
from bantam.data.layouts.layout import entries
from bantam.errors import BadData, BadImage
from bantam.files import writing


def photographs_in(paths: list[Path]) -> tuple[list[Path], list[str]]:
    """The photographs that `paths` name, those in folders and in what lies in them; and a line on what was left out.

    A file that is named stands for itself, whatever it is. In a folder, what is not named like a photograph is left
    out, and what is no readable one, each counted with an example. Raises BadData where a folder has none.
    """
    files: list[Path] = []
    others: list[Path] = []
    unreadable: list[BadImage] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        images, waiting = list[Path](), [path]
        while waiting:
            inside, folders, rest = entries(waiting.pop(0))
            waiting += [folder for folder in folders if not folder.is_symlink()]
            others += [other for other in rest if not other.name.startswith(".")]
            for image in inside:
                try:
                    decode(image, 8)
                except BadImage as error:
                    unreadable.append(error)
                else:
                    images.append(image)
        if not images:
            why = f"; {unreadable[0]}" if unreadable else ""
            raise BadData(f"{path} is a folder without photographs{why}; give photographs, or a folder of some")
        files += images
    lines: list[str] = []
    if others:
        lines.append(f"{len(others):,} left out, not named like a photograph, such as {others[0]}")
    if unreadable:
        lines.append(f"{len(unreadable):,} left out: {unreadable[0]}")
    return files, lines


def write_table(path: Path, files: list[Path], answers: list[list[float]], labels: tuple[str, ...]) -> None:
    """Write file,class,name,probability: the number and the name of each file's likeliest class. Raises CannotWrite."""
    with writing(path) as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("file", "class", "name", "probability"))
        for one, row in zip(files, answers, strict=True):
            best = max(range(len(row)), key=row.__getitem__)
            rows.writerow((one, best, labels[best], f"{row[best]:.6f}"))
