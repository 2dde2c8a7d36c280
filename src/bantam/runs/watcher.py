"""What a run tells whoever looks on."""

from pathlib import Path

from bantam.runs import runfolder
from bantam.runs.runfolder import Row


class Watcher:
    """What a training tells whoever looks on; the command line's progress bar is one. Does nothing by itself."""

    def begin(self, name: str, total: int, done: int) -> None:
        """`name` starts: `total` units of work, `done` of them finished before."""

    def advance(self, done: int) -> None:
        """`done` of the total units are finished."""

    def epoch(self, row: Row) -> None:
        """An epoch is finished; `row` is its line of metrics.jsonl."""

    def say(self, text: str) -> None:
        """A line that a person should see."""

    def explain(self, text: str) -> None:
        """A fact on how something is computed, for whoever looks into it."""

    def end(self) -> None:
        """The work that began last is finished."""


class Noting(Watcher):
    """Tells another watcher everything, and keeps in the environment.json of the run in `folder` what is explained."""

    def __init__(self, watcher: Watcher, folder: Path) -> None:
        self.watcher, self.path = watcher, folder / runfolder.ENVIRONMENT

    def begin(self, name: str, total: int, done: int) -> None:
        self.watcher.begin(name, total, done)

    def advance(self, done: int) -> None:
        self.watcher.advance(done)

    def epoch(self, row: Row) -> None:
        self.watcher.epoch(row)

    def say(self, text: str) -> None:
        self.watcher.say(text)

    def explain(self, text: str) -> None:
        self.watcher.explain(text)
        kept = runfolder.environment(self.path.parent) or {}
        if text not in (facts := kept.get("computed", [])):
            runfolder.write(self.path, {**kept, "computed": [*facts, text]})

    def end(self) -> None:
        self.watcher.end()


class Counter:
    """A `progress(done, total)` function that reports to a watcher under `name`; begins at the first call."""

    def __init__(self, watcher: Watcher, name: str) -> None:
        self.watcher, self.name, self.began = watcher, name, False

    def __call__(self, done: int, total: int) -> None:
        if not self.began:
            self.watcher.begin(self.name, total, done)
            self.began = True
        self.watcher.advance(done)
        if done >= total:
            self.watcher.end()
