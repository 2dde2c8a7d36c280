"""A finished run, opened: what validation chose in it."""

from pathlib import Path

from bantam.errors import BadRunFile
from bantam.measure.looks import VIEWS, views_of
from bantam.runs import folder as runfolder


def chosen_views(run: Path) -> str:
    """The name in VIEWS that the finished run in `run` chose. Raises BadData for an unfinished or damaged one."""
    chosen = views_of(runfolder.result(run)["validation"])
    if chosen not in VIEWS:
        raise BadRunFile(f"{run / runfolder.RESULT} names no test-time views of this version; {runfolder.AGAIN}")
    return chosen
