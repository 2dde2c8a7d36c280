"""One line a finished epoch."""

from pathlib import Path

from bantam.errors import BadRunFile
from bantam.files import explained, write_text
from bantam.runs import runfolder
from bantam.runs.runfolder import Row


class RunLog:
    """metrics.jsonl: one JSON object a finished epoch, appended; on resume, lines past the checkpoint are dropped."""

    def __init__(self, path: Path, epochs_done: int) -> None:
        self.path = path
        kept = [row for row in runfolder.rows(path) if row["epoch"] <= epochs_done]
        if epochs_done and path.exists() and (not kept or kept[-1]["epoch"] != epochs_done):
            raise BadRunFile(f"{path} is damaged, it lacks epoch {epochs_done}; delete it: the curves then begin later")
        if path.exists() or not epochs_done:
            write_text(path, "".join(map(runfolder.row_text, kept)))

    def append(self, row: Row) -> None:
        with explained(self.path), open(self.path, "a", encoding="utf-8") as file:
            file.write(runfolder.row_text(row))
