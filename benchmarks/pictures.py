"""Draws docs/results.svg, the picture in the README, from the files under results/.

python benchmarks/pictures.py
"""

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from bantam.files import replacing
from bantam.measure.plots import STYLE
from evidence import RESULTS, ROOT
from markdown_tables import read

PICTURE = Path("docs") / "results.svg"
TEACHER = "#888888"
STUDENT = "#b5541c"


def recipes(results: Path) -> list[dict[str, Any]]:
    """The metrics.json of every committed run, by the name of its folder."""
    found = {path.parent.name: read(path) for path in sorted(results.glob("food-11/*/metrics.json"))}
    return [{"folder": name, **metrics} for name, metrics in found.items() if metrics]


def given_teacher(results: Path) -> dict[str, Any]:
    """The accuracy of the given teacher before it was pruned, with its standard error and number of parameters."""
    curve = read(results / "benchmarks" / "pruning-teacher" / "curve.json")
    assert curve is not None
    dense = next(point for point in curve["points"] if point["ratio"] == 0)
    return {**dense["before"], "parameters": dense["parameters"], "size": curve["size"]}


def draw(results: Path, path: Path) -> None:
    """Accuracy of each recipe's student over the minutes of its training, beside the teacher's."""
    teacher = given_teacher(results)
    with matplotlib.rc_context({**STYLE, "font.size": 11}):
        figure = Figure(figsize=(8, 4.4), layout="constrained")
        axes = figure.add_subplot()
        middle, error = 100 * teacher["accuracy"], 100 * teacher["standard_error"]
        axes.axhspan(middle - error, middle + error, color=TEACHER, alpha=0.25, linewidth=0)
        axes.axhline(middle, color=TEACHER, linewidth=1)
        who = f"the given teacher: {teacher['parameters'] / 1e6:.1f} million parameters"
        said = f"{who}, {teacher['size']} px, n = {teacher['n']:,}"
        axes.text(9.2, middle + error + 0.4, said, color="#555555", va="bottom")
        for run in recipes(results):
            judged = run["validation"]
            minutes, value = run["seconds"] / 60, 100 * judged["accuracy"]
            axes.errorbar(minutes, value, 100 * judged["standard_error"], fmt="o", color=STUDENT, elinewidth=1.2)
            left = run["folder"] in ("medium", "exits", "boss")
            axes.annotate(
                run["folder"], (minutes, value), xytext=(-8 if left else 8, -4), textcoords="offset points",
                ha="right" if left else "left", color=STUDENT,
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_xlim(9, 260)
        axes.set_ylim(59, 79)
        axes.set_xticks([10, 20, 50, 100, 200], labels=["10", "20", "50", "100", "200"])
        axes.set_yticks([60, 65, 70, 75])
        axes.minorticks_off()
        axes.set_xlabel("minutes of training on two cores")
        axes.set_ylabel("validation accuracy ± standard error, %")
        axes.set_title("Students of at most 60,000 parameters, one point a recipe", loc="left", fontsize=11)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        with replacing(path) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    draw(RESULTS, ROOT / PICTURE)
    print(f"{PICTURE}: drawn")
