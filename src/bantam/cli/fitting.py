"""What a person sees of a fit: its plan, and one display of stage, accuracy so far and the time that is left."""

import time

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from bantam.cli.screen import PLAIN_EVERY, Bar, with_error
from bantam.fit.asked import Asked, time_text
from bantam.fit.clock import Clock
from bantam.fit.planning import Plan
from bantam.fit.watching import FitWatcher
from bantam.runs.runfolder import Row


class FitBar(Bar, FitWatcher):
    """Until there is a plan a bar for what is read; then a single one, over the time of the whole fit.

    Plain lines where there is no terminal.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.clock: Clock | None = None
        self.until = 0.0
        self.note = ""
        self.whole: TaskID | None = None

    def planned(self, plan: Plan, asked: Asked, clock: Clock) -> None:
        self.console.print(plan_table(plan, asked))
        for line in plan.notes:
            self.say(line)
        self.clock, self.until, self.said = clock, sum(row.seconds for row in plan.rows), time.monotonic()
        if self.console.is_terminal:
            self.progress = Progress(
                TextColumn("{task.description:<10}"),
                BarColumn(28),
                TextColumn("{task.fields[note]}"),
                console=self.console,
            )
            self.progress.start()
            self.whole = self.progress.add_task("", total=self.until, note="")

    def begin(self, name: str, total: int, done: int) -> None:
        if self.clock is None:
            super().begin(name, total, done)
            return
        self.names.append(name)
        self.show()

    def advance(self, done: int) -> None:
        if self.clock is None:
            super().advance(done)
        else:
            self.show()

    def epoch(self, row: Row) -> None:
        if judged := row.get("validation"):
            self.note = f"accuracy {with_error(judged['accuracy'], judged['standard_error'])}, epoch {row['epoch']}"
        self.show()

    def end(self) -> None:
        if self.clock is None:
            super().end()
        else:
            self.names.pop()

    def handing_over(self) -> None:
        self.names.append("the end")
        self.note = ""
        self.show(at_once=True)

    def show(self, at_once: bool = False) -> None:
        """Stage, accuracy so far, time left."""
        assert self.clock is not None, "planned"
        spent = self.clock.spent()
        parts = [self.note, f"{time_text(max(0.0, self.until - spent))} left"]
        told = ", ".join(part for part in parts if part)
        if self.progress is not None and self.whole is not None:
            self.progress.update(self.whole, completed=min(spent, self.until), description=self.names[-1], note=told)
        elif at_once or time.monotonic() - self.said > PLAIN_EVERY:
            self.said = time.monotonic()
            self.say(f"{self.names[-1]}: {told}")

    def close(self) -> None:
        """Nothing more will be shown."""
        if self.progress is not None:
            self.progress.stop()
            self.progress = None


def plan_table(plan: Plan, asked: Asked) -> Table:
    """One line for each thing that is done, with its minutes."""
    table = Table(title=f"the plan for {time_text(asked.seconds)}", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("what", no_wrap=True)
    table.add_column("how")
    table.add_column("minutes", justify="right", no_wrap=True)
    for row in plan.rows:
        table.add_row(row.what, row.how, f"{row.seconds / 60:.1f}")
    table.add_row("in all", "", f"{sum(row.seconds for row in plan.rows) / 60:.1f}")
    return table
