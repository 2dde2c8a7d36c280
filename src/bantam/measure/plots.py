"""Curves and scatter plots of what was measured, as SVG files."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bantam.errors import BadData
from bantam.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Text stays text, and the same numbers give the same file.
STYLE: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "bantam"}

MARKERS = "os^vD<>pPXh*d"
COLOURS = (
    "#0a5fb4", "#c4510d", "#1a7f37", "#7a3eb1", "#b8155f", "#8a6d00", "#00838f", "#5d4037", "#d81b1b", "#4b5ad6",
    "#6f8f00", "#e07aa8", "#57606a",
)  # fmt: skip
"""As many as there are families, told apart in print and by most who see colours differently; the marks differ too."""


def require_svg(path: Path) -> None:
    """Raises BadData unless `path` ends in .svg."""
    if path.suffix != ".svg":
        raise BadData(f"the plot is an SVG, so {path} must end in .svg")


def tournament_rows(path: Path) -> list[dict[str, Any]]:
    """Read the families that finished the tournament from `path`, the file that benchmarks/families.py writes.

    Raises BadData if the file is not there, or holds no accuracies and MACs.
    """
    again = "python benchmarks/families.py --data DIR --runs RUNS makes it, in a checkout of Bantam"
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        finished = [row for row in rows if "failed" not in row]
        complete = all(
            isinstance(row["family"], str)
            and all(isinstance(row[name], int | float) for name in ("accuracy", "standard_error", "macs"))
            for row in finished
        )
        if not complete:
            raise ValueError("a family without a name, or with text for a number")
    except OSError as error:
        raise BadData(f"no accuracies to plot yet, {path} cannot be read ({error.strerror}): {again}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BadData(f"{path} does not hold the tournament's results ({error!r}): {again}") from error
    if not finished:
        raise BadData(f"no family in {path} has an accuracy: {again}")
    return finished


@contextlib.contextmanager
def drawn(path: Path, size: tuple[float, float]) -> Iterator["Figure"]:
    """A figure of `size` in inches, which is the SVG file `path` when the block ends without an error."""
    import matplotlib  # Slow to import: only who draws waits for it.
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        yield figure
        with replacing(path) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})


def spread(places: Sequence[float], room: float, low: float, high: float) -> list[float]:
    """Where labels stand that belong at `places`: in their order, `room` apart, within low..high if there is room."""
    order = sorted(range(len(places)), key=lambda number: places[number])
    found = [0.0] * len(places)
    least = low
    for number in order:
        found[number] = max(places[number], least)
        least = found[number] + room
    most = high
    for number in reversed(order):
        found[number] = min(found[number], most)
        most = found[number] - room
    return found


def named(axes: "Axes", ends: Sequence[tuple[str, float, float]], colours: Sequence[str] = COLOURS) -> None:
    """Write a label for each (label, x, y) beside the axes, at the height of its point, with a thin line to it."""
    low, high = axes.get_ylim()
    places = spread([(y - low) / (high - low) for _, _, y in ends], 0.055, 0.02, 0.98)
    for number, ((label, x, y), place) in enumerate(zip(ends, places, strict=True)):
        colour = colours[number % len(colours)]
        axes.annotate(
            label, (x, y), xytext=(1.04, place), textcoords="axes fraction", color=colour, fontsize=9, va="center",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "alpha": 0.5},
        )  # fmt: skip


def plot_accuracy_against_macs(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw each row's "accuracy" with its "standard_error" over its "macs", named by its "family", into an SVG."""
    with drawn(path, (8, 5)) as figure:
        axes = figure.add_subplot()
        ordered = sorted(rows, key=lambda row: -row["accuracy"])
        for number, row in enumerate(ordered):
            axes.errorbar(
                row["macs"] / 1e6,
                100 * row["accuracy"],
                100 * row["standard_error"],
                fmt=MARKERS[number % len(MARKERS)],
                color=COLOURS[number % len(COLOURS)],
                elinewidth=0.8,
            )
        ends = [(row["family"], row["macs"] / 1e6, 100 * row["accuracy"]) for row in ordered]
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("{x:g}")
        axes.set_xlabel("million multiply-accumulates for one image")
        axes.set_ylabel("validation accuracy ± standard error, %")
        axes.grid(alpha=0.3)
        named(axes, ends)


def plot_quantization(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw each row's "accuracy" with its "standard_error" over its "bytes", named by its "name", into an SVG."""
    with drawn(path, (7, 4.5)) as figure:
        axes = figure.add_subplot()
        for number, row in enumerate(rows):
            axes.errorbar(
                row["bytes"] / 1e3,
                100 * row["accuracy"],
                100 * row["standard_error"],
                fmt=MARKERS[number % len(MARKERS)],
                color=COLOURS[number % len(COLOURS)],
                elinewidth=0.8,
            )
        axes.set_xlim(left=0)
        axes.set_xlabel("kB of the ONNX file")
        axes.set_ylabel("validation accuracy ± standard error, %")
        axes.grid(alpha=0.3)
        axes.set_title("median time of one image behind the form", fontsize=9, loc="right")
        named(
            axes,
            [(f"{row['name']}, {row['median_ms']:.2f} ms", row["bytes"] / 1e3, 100 * row["accuracy"]) for row in rows],
        )


def plot_dynamic(
    static: Mapping[str, dict[str, Any]], lines: Mapping[str, Sequence[dict[str, Any]]], path: Path
) -> None:
    """Draw "accuracy" over "mean_macs" into an SVG: a line for each dynamic net by its name, and one of static nets.

    The rows of `static`, each a point with its name beside it, have a "standard_error" as well.
    """
    with drawn(path, (7, 4.5)) as figure:
        axes = figure.add_subplot()
        axes.errorbar(
            [row["mean_macs"] / 1e6 for row in static.values()],
            [100 * row["accuracy"] for row in static.values()],
            [100 * row["standard_error"] for row in static.values()],
            fmt="ks--",
            elinewidth=0.8,
            linewidth=0.8,
        )
        ends = [("each alone", row["mean_macs"] / 1e6, 100 * row["accuracy"]) for row in [*static.values()][-1:]]
        for name, row in static.items():
            place = row["mean_macs"] / 1e6, 100 * row["accuracy"]
            axes.annotate(name, place, xytext=(5, -11), textcoords="offset points", fontsize=8)
        axes.margins(x=0.15)
        for number, (label, line) in enumerate(lines.items()):
            axes.plot(
                [row["mean_macs"] / 1e6 for row in line],
                [100 * row["accuracy"] for row in line],
                marker=MARKERS[number % len(MARKERS)],
                markersize=4,
                color=COLOURS[number % len(COLOURS)],
            )
            last = max(line, key=lambda row: row["mean_macs"])
            ends.append((label, last["mean_macs"] / 1e6, 100 * last["accuracy"]))
        axes.set_xlabel("million multiply-accumulates, mean of an image")
        axes.set_ylabel("validation accuracy ± standard error, %")
        axes.grid(alpha=0.3)
        named(axes, ends, ("black", *COLOURS))
