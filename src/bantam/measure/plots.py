"""Curves and scatter plots of what was measured, as SVG files."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bantam.errors import BadData
from bantam.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Text stays text, and the same numbers give the same file.
STYLE: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "bantam"}

MARKERS = "os^vD<>pPXh*"


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


def plot_accuracy_against_macs(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw each row's "accuracy" with its "standard_error" over its "macs", named by its "family", into an SVG."""
    with drawn(path, (8, 5)) as figure:
        axes = figure.add_subplot()
        for number, row in enumerate(sorted(rows, key=lambda row: -row["accuracy"])):
            axes.errorbar(
                row["macs"] / 1e6,
                100 * row["accuracy"],
                100 * row["standard_error"],
                fmt=MARKERS[number % len(MARKERS)],
                color=f"C{number % 10}",
                elinewidth=0.8,
                label=row["family"],
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("{x:g}")
        axes.set_xlabel("million multiply-accumulates for one image")
        axes.set_ylabel("validation accuracy ± standard error, %")
        axes.grid(alpha=0.3)
        figure.legend(loc="outside right upper", title="best first", frameon=False)


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
                color=f"C{number}",
                elinewidth=0.8,
                label=f"{row['name']}, {row['median_ms']:.2f} ms",
            )
        axes.set_xlim(left=0)
        axes.set_xlabel("kB of the ONNX file")
        axes.set_ylabel("validation accuracy ± standard error, %")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, title="form, median of one image", loc="lower right")


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
            label="each alone",
        )
        for name, row in static.items():
            place = row["mean_macs"] / 1e6, 100 * row["accuracy"]
            axes.annotate(name, place, xytext=(-5, 6), textcoords="offset points", ha="right", fontsize=8)
        axes.margins(x=0.15)
        for number, (label, line) in enumerate(lines.items()):
            axes.plot(
                [row["mean_macs"] / 1e6 for row in line],
                [100 * row["accuracy"] for row in line],
                marker=MARKERS[number % len(MARKERS)],
                markersize=4,
                color=f"C{number % 10}",
                label=label,
            )
        axes.set_xlabel("million multiply-accumulates, mean of an image")
        axes.set_ylabel("validation accuracy ± standard error, %")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, loc="lower right")
