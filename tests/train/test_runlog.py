from pathlib import Path

from bantam.train.runlog import RunLog, environment, read_rows


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


def test_the_environment_names_versions_and_no_paths() -> None:
    here = environment()
    assert here["versions"]["torch"]
    assert here["cores"] >= 1
    assert not any(str(word).startswith("/") for word in here["command"])
