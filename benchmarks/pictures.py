"""Draws the pictures of README and docs from the files under results/.

python benchmarks/pictures.py
"""

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bantam.files import replacing
from bantam.measure.plots import STYLE, drawn, plot_accuracy_against_macs, plot_dynamic, tournament_rows
from evidence import RESULTS, ROOT
from markdown_tables import read
from ways import way

PICTURE = Path("docs") / "results.svg"
DYNAMIC = ("cascade", "exits", "slim", "sizes", "views-while-unsure")
"""Studies of nets that do less for easy photographs: each is docs/NAME.svg."""
ALONE = " alone"
TEACHER = "#888888"
STUDENT = "#b5541c"


def recipes(results: Path) -> list[dict[str, Any]]:
    """The metrics.json of every committed run that validation measures, and the name of its folder."""
    found = {path.parent.name: read(path) for path in sorted(results.glob("food-11/*/metrics.json"))}
    return [{"folder": name, **metrics} for name, metrics in found.items() if metrics and "refit" not in metrics]


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
        axes.text(9.2, middle + error + 1.9, said, color="#555555", va="bottom")
        for run in recipes(results):
            judged = run["validation"]
            minutes, value = run["seconds"] / 60, 100 * judged["accuracy"]
            axes.errorbar(minutes, value, 100 * judged["standard_error"], fmt="o", color=STUDENT, elinewidth=1.2)
            left = run["folder"] in ("quick", "exits")
            axes.annotate(
                run["folder"], (minutes, value), xytext=(-8 if left else 8, -4), textcoords="offset points",
                ha="right" if left else "left", color=STUDENT,
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_xlim(9, 800)
        axes.set_ylim(59, 79)
        axes.set_xticks([10, 20, 50, 100, 200, 500], labels=["10", "20", "50", "100", "200", "500"])
        axes.set_yticks([60, 65, 70, 75])
        axes.minorticks_off()
        axes.set_xlabel("minutes of training on two cores")
        axes.set_ylabel("validation accuracy ± standard error, %")
        axes.set_title("Students of at most 60,000 parameters, one point a recipe", loc="left", fontsize=11)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        with replacing(path) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})


def draw_dynamic(results: Path, name: str, path: Path) -> None:
    """The curve of one of DYNAMIC beside each pass, exit or TTA alone."""
    study = read(results / "benchmarks" / f"{name}.json")
    assert study is not None
    static: dict[str, dict[str, Any]] = {}
    lines: dict[str, list[dict[str, Any]]] = {}
    for row in study["rows"]:
        if row["kind"] == "static" or row["kind"].endswith(ALONE):
            static[row.get("pass", row["kind"].removesuffix(ALONE))] = row
        else:
            lines.setdefault(f"{row['pass']} first" if "pass" in row else row["kind"], []).append(row)
    plot_dynamic(static, lines, path)


def draw_fits(results: Path, path: Path) -> None:
    """The accuracy of fits over the minutes that each took, without and with a given teacher, and recipes beside."""
    study = read(results / "benchmarks" / "fit.json")
    if study is None:
        return
    with drawn(path, (7, 4.2)) as figure:
        axes = figure.subplots()
        for taught, name, colour in ((False, "fit", STUDENT), (True, "fit, given teacher", "#0a5fb4")):
            points = [point(row) for row in study["rows"] if row["taught"] is taught and "failed" not in row]
            if points:
                minutes, accuracies, errors = zip(*points, strict=True)
                axes.errorbar(minutes, accuracies, errors, marker="o", capsize=2, color=colour, label=name)
        for row in study["recipes"]:
            minutes, value, error = point(row)
            axes.errorbar(minutes, value, error, marker="s", color="#555555", capsize=2)
            axes.annotate(row["recipe"], (minutes, value), xytext=(7, -4), textcoords="offset points", color="#555555")
        axes.margins(x=0.12)
        over_minutes(axes, [2, 5, 10, 20, 50, 100], "minutes, all included")
        axes.legend(frameon=False)


def draw_stages(results: Path, path: Path) -> None:
    """The accuracy of a student over the minutes that had gone into it and its teachers, stage by stage."""
    study = read(results / "benchmarks" / "stages.json")
    if study is None:
        return
    with drawn(path, (7, 4.2)) as figure:
        axes = figure.subplots()
        steps = [(minutes, *point(row)[1:], row) for minutes, row in way(study)]
        minutes, accuracies, errors, rows = zip(*steps, strict=True)
        axes.errorbar(minutes, accuracies, errors, marker="o", capsize=2, color=STUDENT, label="the student")
        for at, value, row in zip(minutes, accuracies, rows, strict=True):
            axes.annotate(f"{row['stage']}, {row['size']} px", (at, value), xytext=(7, -12), textcoords="offset points")
        taught = [100 * row["taught_by"]["accuracy"] for row in rows]
        axes.plot(minutes, taught, marker="_", linestyle=":", color=TEACHER, label="what taught it")
        axes.margins(x=0.25)
        over_minutes(axes, [100, 200, 300, 500, 800], "minutes of training, its teachers' included")
        axes.legend(frameon=False, loc="upper left")


def over_minutes(axes: Axes, ticks: list[int], label: str) -> None:
    """Lay out `axes` for accuracy over minutes on a logarithmic scale with these `ticks`."""
    axes.set_xscale("log")
    axes.set_xticks(ticks, labels=[str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel(label)
    axes.set_ylabel("validation accuracy ± standard error, %")
    axes.grid(alpha=0.25)


def point(row: dict[str, Any]) -> tuple[float, float, float]:
    """Minutes, accuracy and standard error in per cent."""
    return row["seconds"] / 60, 100 * row["accuracy"], 100 * row["standard_error"]


if __name__ == "__main__":
    draw(RESULTS, ROOT / PICTURE)
    plot_accuracy_against_macs(
        tournament_rows(RESULTS / "benchmarks" / "families.json"), ROOT / "docs" / "students.svg"
    )
    for name in DYNAMIC:
        draw_dynamic(RESULTS, name, ROOT / "docs" / f"{name}.svg")
    draw_fits(RESULTS, ROOT / "docs" / "fit.svg")
    draw_stages(RESULTS, ROOT / "docs" / "stages.svg")
    print(f"{PICTURE} and the plots of {len(DYNAMIC) + 3} studies: drawn")
