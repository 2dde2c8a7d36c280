"""What a run remembers for its user: where its photographs lie, and the names that its classes were given since.

photographs.json is for this machine alone: it has a path, so nothing that leaves the machine takes it along, no
package, no report, no page.
"""

import contextlib
from pathlib import Path

from bantam.data.layouts.flat import CLASS_NAMES, read_names
from bantam.errors import BadData
from bantam.files import read_sealed
from bantam.runs import runfolder
from bantam.runs.schema import Checked


class Photographs(Checked):
    """photographs.json: the data folder, as an absolute path."""

    folder: str


def remember(run: Path, root: Path) -> None:
    """Write that the photographs of the run in the folder `run` lie in `root`. Raises CannotWrite."""
    path, here = run / runfolder.PHOTOGRAPHS, str(root.resolve())
    with contextlib.suppress(OSError, ValueError):  # what is damaged is written anew
        if read_sealed(path).get("folder") == here:
            return
    runfolder.write(path, {"folder": here})


def remembered(run: Path) -> Path | None:
    """The data folder that the run in the folder `run` remembers; None where it remembers none. Raises BadRunFile."""
    path = run / runfolder.PHOTOGRAPHS
    if not path.exists():
        return None
    advice = "delete it and give --data DIR"
    return Path(runfolder.checked(Photographs, path, runfolder.table(path, advice), advice).folder)


def photographs(run: Path) -> Path:
    """The data folder that the run in the folder `run` remembers. Raises BadData where it is not known, or gone."""
    folder = remembered(run)
    if folder is None:
        raise BadData(f"{run} does not remember where its photographs are; say it with --data DIR")
    if not folder.exists():
        raise BadData(f"the photographs of {run} were in {folder}, which is not there; say where with --data DIR")
    return folder


def named(run: Path, classes: tuple[str, ...], names: Path | None = None) -> tuple[str, ...]:
    """The `classes` of the student of `run`, by the names that they were given since, in their order.

    Those in the file `names`; else in RUN/classes.txt; else, of classes that are only numbered, in classes.txt of the
    data folder that the run remembers. Raises BadData for a file that does not name so many classes.
    """
    own = run / CLASS_NAMES
    if names is not None or own.is_file():
        return read_names(names or own, len(classes))
    folder = remembered(run)
    if folder is None or not all(name.isdecimal() for name in classes):
        return classes
    beside = folder / CLASS_NAMES
    return read_names(beside, len(classes)) if beside.is_file() else classes
