"""What a person sees in the terminal: progress bars and tables."""

import time
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TaskProgressColumn, TextColumn
from rich.table import Column, Table
from rich.text import Text

from bantam.measure.counts import Accuracy
from bantam.recipes.kinds import shipped_kinds
from bantam.runs.runfolder import Row
from bantam.runs.watcher import Watcher

if TYPE_CHECKING:
    from bantam.measure.audit import Audit
    from bantam.measure.cost import Cost

PLAIN_EVERY = 30.0  # seconds between lines where there is no terminal to draw a bar in
SILENT_FOR = 60.0  # seconds after which such a line says how far work is, if nothing else has been said


NAME, LEFT, NOTE = 16, 12, 31
"""Columns of a bar's line: for the name of what is done, the time left, and the accuracy so far."""


class TimeLeft(ProgressColumn):
    """How long a bar takes yet: by its pace of the last half minute, or else by that since it began."""

    def render(self, task: Task) -> Text:
        seconds, passed = task.time_remaining, task.elapsed
        done = task.completed - task.fields["began"]
        if seconds is None and passed and done > 0:
            seconds = passed * (task.remaining or 0) / done
        said = "... left" if seconds is None else f"{timedelta(seconds=round(seconds))} left"
        return Text(said.rjust(LEFT), style="progress.remaining")


class Bar(Watcher):
    """A progress bar a stage, with the accuracy so far and the time left, and below it one for work within the stage.

    Plain lines where there is no terminal. What is explained is said to whoever asked for it: `verbose`.
    """

    def __init__(self, console: Console, verbose: bool = False) -> None:
        self.console, self.verbose = console, verbose
        self.progress: Progress | None = None
        self.tasks: list[TaskID] = []
        self.names: list[str] = []
        self.totals: list[int] = []
        self.said = 0.0

    def begin(self, name: str, total: int, done: int) -> None:
        self.said = time.monotonic() if not self.names else self.said
        self.names.append(name)
        self.totals.append(total)
        if not self.console.is_terminal:
            return
        if self.progress is None:
            self.progress = self.started()
        self.tasks.append(self.progress.add_task(name, total=total, completed=done, began=done, note=""))

    def started(self) -> Progress:
        """The bars, in which the time left is cut last: in a narrow terminal first the note goes, then the bar."""
        progress = Progress(
            TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", max_width=NAME)),
            BarColumn(bar_width=max(4, min(28, self.console.width - NAME - LEFT - NOTE - 9))),
            TaskProgressColumn(table_column=Column(no_wrap=True, min_width=4)),
            TimeLeft(table_column=Column(no_wrap=True, min_width=LEFT)),
            TextColumn("{task.fields[note]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
            console=self.console,
            expand=True,
        )
        progress.start()
        return progress

    def advance(self, done: int) -> None:
        if self.progress is not None:
            self.progress.update(self.tasks[-1], completed=done)
        elif time.monotonic() - self.said > SILENT_FOR:
            self.said = time.monotonic()
            self.say(f"{self.names[-1]}: {done:,} of {self.totals[-1]:,}")

    def epoch(self, row: Row) -> None:
        note = f"epoch {row['epoch']}"
        if judged := row.get("validation"):  # a refit has none
            note += f", accuracy {with_error(judged['accuracy'], judged['standard_error'])}"
        if self.progress is not None:
            self.progress.update(self.tasks[-1], note=note)
        elif time.monotonic() - self.said > PLAIN_EVERY:
            self.said = time.monotonic()
            self.console.print(f"{self.names[-1]}: {note}  loss {row['training']['loss']:.3f}  {row['seconds']:.0f} s")

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def explain(self, text: str) -> None:
        if self.verbose:
            self.say(text)

    def end(self) -> None:
        self.names.pop()
        self.totals.pop()
        if self.progress is None:
            return
        finished = self.tasks.pop()
        if self.tasks:  # a view's answers, say: the training that needed them goes on
            self.progress.remove_task(finished)
            return
        self.progress.stop()
        self.progress = None


def with_error(value: float, standard_error: float) -> str:
    """An accuracy with its standard error."""
    return f"{value:.3f} ± {standard_error:.3f}"


OURS = (*shipped_kinds(), "refit")
"""The kinds of stages that the budget holds for."""


def run_table(metrics: dict[str, Any], graded: Accuracy | None = None) -> Table:
    """One line a stage: accuracy with standard error, parameters against the budget, ratio to the first teacher."""
    budget = metrics["budget"]
    table = Table(
        title=f"{metrics['recipe']}: students within {budget:,} parameters", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for name in ("stage", "net", "validation", "parameters", "budget", "teacher", "s"):
        table.add_column(name, justify="left" if name in ("stage", "net") else "right", no_wrap=True)
    teacher = next((row["parameters"] for row in metrics["stages"].values() if row["kind"] not in OURS), None)
    for name, row in metrics["stages"].items():
        judged = row.get("validation")
        student = row["kind"] in OURS
        table.add_row(
            name,
            row["net"],
            with_error(judged["accuracy"], judged["standard_error"]) if judged else row["kind"].split("_")[0],
            f"{row['parameters']:,}",
            f"{row['parameters'] / budget:.1%}" if student else "-",
            f"1/{teacher / row['parameters']:.0f}" if student and teacher else "-",
            f"{row['seconds']:.0f}" if "seconds" in row else "-",
        )
    chosen = metrics["validation"]
    shipped = with_error(chosen["accuracy"], chosen["standard_error"])
    table.caption = f"shipped, TTA {chosen['views']}: validation {shipped}, n = {chosen['n']:,}"
    if calibrated := chosen.get("calibration"):
        table.caption += (
            f"\ncalibration error {calibrated['before']['ece']:.3f}, "
            f"at temperature {calibrated['temperature']:g} {calibrated['after']['ece']:.3f}"
        )
    if "refit" in metrics:
        table.caption += "\nrefitted on training and validation: that is the accuracy of the stage it repeats"
    if graded is not None:
        table.caption += f"\nheld-back labels: {graded}, n = {graded.n:,}"
    return table


def search_table(result: dict[str, Any]) -> Table:
    """One line a finalist of a search, the best first."""
    table = Table(title=f"students within {result['budget']:,} parameters, trained in full")
    for name in ("net", "input", "validation", "parameters", "million MACs"):
        table.add_column(name, justify="left" if name == "net" else "right")
    for row in result["finalists"]:
        table.add_row(
            row["params"]["family"],
            f"{row['params']['size']} px",
            with_error(row["accuracy"], row["standard_error"]) if row["state"] == "complete" else row["state"],
            f"{row['parameters']:,}" if row["parameters"] else "-",
            f"{row['macs'] / 1e6:.1f}" if row["macs"] else "-",
        )
    counts = ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in result["trials"].items() if count)
    table.caption = f"short trainings: {counts}"
    return table


def cost_text(rows: "Mapping[str, Cost | str]", accuracies: Mapping[str, Accuracy] | None = None) -> str:
    """One line a net: its cost, and its validation accuracy where there is one; or the reason why there is no net.

    What a device needs, and accuracies, take the columns of memory and of slow answers, for 80 columns to do.
    """
    on_device = any(not isinstance(cost, str) and cost.device is not None for cost in rows.values())
    heads: list[tuple[str, str]] = [
        ("", "parameters"),
        ("torch-", "summary"),
        ("M", "MACs"),
        ("kB", "file"),
        ("", "ms"),
    ]
    if on_device:
        heads += [("RAM on", "a device"), ("", "flash")]
    elif accuracies is None:
        heads += [("ms", "95%"), ("kB of", "maps")]
    lines = {name: [cost] if isinstance(cost, str) else cost_cells(cost, accuracies) for name, cost in rows.items()}
    if accuracies is not None:
        heads.append(("", "validation"))
        lines = {name: [*cells, str(accuracies[name])] for name, cells in lines.items()}
    upper, lower = ([head[row] for head in heads] for row in (0, 1))
    full = [upper, lower, *(cells for cells in lines.values() if len(cells) == len(heads))]
    widths = [max(map(len, column)) for column in zip(*full, strict=True)]
    first = max(map(len, [*lines, "net"]))

    def line(name: str, cells: list[str]) -> str:
        if len(cells) == len(heads):
            cells = [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]
        return "  ".join([name.ljust(first), *cells])

    return "\n".join([line("", upper), line("net", lower), *(line(name, cells) for name, cells in lines.items())])


def cost_cells(cost: "Cost", accuracies: Mapping[str, Accuracy] | None = None) -> list[str]:
    """The columns of `cost_text` for one net, but for its accuracy."""
    cells = [
        f"{cost.weight.unique:,}",
        f"{cost.weight.torchsummary:,}",
        f"{cost.footprint.macs / 1e6:,.2f}",
        f"{cost.disk_bytes / 1e3:,.1f}",
        f"{cost.latency.median_ms:.2f}",
    ]
    if cost.device is not None:
        return [*cells, f"{cost.device.ram:,}", f"{cost.device.flash:,}"]
    if accuracies is not None:
        return cells
    return [*cells, f"{cost.latency.p95_ms:.2f}", f"{cost.footprint.activation_bytes / 1e3:,.1f}"]


def audit_table(audit: "Audit", name: str = "the teacher") -> Table:
    """One line a split and kind of view: accuracy, calibration, and each temperature's entropy / off-class mass."""
    title = f"what {name} says: entropy in nats / probability off the label"
    n = " and ".join(f"{look.accuracy.n:,} {look.split}" for look in audit.looks if not look.augmented)
    table = Table(title=title, caption=f"n = {n} images\n{audit.verdict}", box=None, padding=(0, 1))
    table.add_column("views", no_wrap=True)
    for name in ("accuracy", "ECE", *(f"T = {temperature:g}" for temperature in audit.looks[0].soft)):
        table.add_column(name, justify="right", no_wrap=True)
    for look in audit.looks:
        table.add_row(
            f"{look.split[:5]}{', augm.' if look.augmented else ''}",
            str(look.accuracy),
            f"{look.calibration.ece:.3f}",
            *(f"{facts.entropy:.2f}/{facts.off_class:.2f}" for facts in look.soft.values()),
        )
    return table
