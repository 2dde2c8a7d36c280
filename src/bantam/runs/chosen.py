"""What validation chose in a finished run."""

from pathlib import Path

from bantam.errors import BadRunFile
from bantam.measure.crops import TTA, tta_of
from bantam.runs import runfolder


def chosen_tta(run: Path) -> str:
    """The name in TTA that the finished run in `run` chose. Raises BadData for an unfinished or damaged one."""
    chosen = tta_of(runfolder.result(run)["validation"])
    if chosen not in TTA:
        raise BadRunFile(f"{run / runfolder.RESULT} names no TTA of this version; {runfolder.AGAIN}")
    return chosen
