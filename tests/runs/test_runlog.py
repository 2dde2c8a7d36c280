"""One line a finished epoch."""

from pathlib import Path

from bantam.runs.runfolder import rows as read_rows
from bantam.runs.runlog import RunLog


def test_rows_past_the_checkpoint_and_half_lines_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = RunLog(path, 0)
    for epoch in (1, 2, 3):
        log.append({"epoch": epoch})
    with open(path, "a") as file:
        file.write('{"epoch": 4, "lo')
    assert [row["epoch"] for row in read_rows(path)] == [1, 2, 3]
    RunLog(path, 2).append({"epoch": 3, "again": True})
    assert read_rows(path) == [{"epoch": 1}, {"epoch": 2}, {"epoch": 3, "again": True}]
