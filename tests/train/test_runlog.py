from pathlib import Path

from bantam.train.runlog import Counter, RunLog, Watcher, environment, read_rows


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


def test_a_counter_begins_once_and_ends_at_the_total() -> None:
    calls: list[tuple[object, ...]] = []

    class Recorder(Watcher):
        def begin(self, name: str, total: int, done: int) -> None:
            calls.append(("begin", name, total, done))

        def advance(self, done: int) -> None:
            calls.append(("advance", done))

        def end(self) -> None:
            calls.append(("end",))

    count = Counter(Recorder(), "reading")
    count(1, 2)
    count(2, 2)
    assert calls == [("begin", "reading", 2, 1), ("advance", 1), ("advance", 2), ("end",)]
