"""What a run tells whoever looks on."""

from bantam.runs.watcher import Counter, Watcher


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
