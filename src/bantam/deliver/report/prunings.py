"""What pruning does to a run's nets: accuracy against ratio (3-1), and speed (3-2), as they were measured for it."""

from collections.abc import Mapping, Sequence
from typing import Any

from bantam.deliver.report import figures as plots
from bantam.deliver.report.document import NONE, Block, Missing, Paragraph, Plot, Points, Section, Table
from bantam.deliver.report.units import milliseconds, products, size_of
from bantam.errors import BadData, typed
from bantam.nets.students import PRUNED
from bantam.runs import runfolder
from bantam.runs.finished import FinishedRun

LOOKS = {"before": "as pruned", "reestimated": "BatchNorm re-estimated", "finetuned": "fine-tuned"}
"""How a pruned net was judged, in this order."""

SAME = (0.9, 1.1)
"""Within these times as fast there is no difference, as `bantam bench pruning` has it."""


def curves(run: FinishedRun) -> Section:
    """3-1: ratio against accuracy, from the curves in RUN/pruning; that of the teacher comes first."""
    blocks: list[Block] = []
    found = [*run.pruning.glob("curve.json"), *run.pruning.glob("*/curve.json")]
    for path in sorted(found, key=lambda path: (not path.parent.name.startswith("teacher"), path)):
        told = runfolder.table(path, "make it anew")
        points = told.get("points")
        if not isinstance(points, list) or not points:
            raise BadData(f"{path} holds no points; `bantam prune {typed(run)} --data DIR` makes it anew")
        name = path.parent.relative_to(run.folder).as_posix().replace("/", "-")
        whose = next((f"The {who}: " for who in ("teacher", "student") if path.parent.name.startswith(who)), "")
        blocks += curve(name, whose + str(told.get("title", path.parent.name)), points)
    return Section("q3-1", "Pruning: ratio against validation accuracy", blocks or [without_curves(run)])


def without_curves(run: FinishedRun) -> Block:
    """Why there is no curve, and what draws some."""
    if run.recipe.shipped.switches and not run.recipe.given:
        return Paragraph("The widths or sizes of this student share their channels, so none of these can be pruned.")
    teachers = ""
    for given in run.recipe.given[:1]:
        if given.architecture in PRUNED:
            net = f"DIR/{given.checkpoint} --architecture {given.architecture} --size {given.size}"
            teachers = f"; `bantam prune {net} --data DIR --out {typed(run.pruning / 'teacher')}` draws its teacher's"
    return Missing(
        f"{run.pruning} holds no curve yet: `bantam prune {typed(run)} --data DIR` draws the student's{teachers}, and "
        f"`bantam handin {typed(run)} --data DIR` all that the exercise asks for."
    )


def curve(name: str, title: str, points: Sequence[dict[str, Any]]) -> list[Block]:
    """A plot for each way in which the nets of a curve were judged, all to one scale, and the table of them all."""
    methods = list(dict.fromkeys(str(point["method"]) for point in points))
    looks = {look: words for look, words in LOOKS.items() if any(point.get(look) for point in points)}
    top = max(float(point[look]["accuracy"]) for look in looks for point in points if point.get(look))
    ratios = [float(point["ratio"]) for point in points]
    across = (min(ratios), max(ratios)) if len(set(ratios)) > 1 else None
    blocks: list[Block] = []
    for look, words in looks.items():
        series: list[plots.Series] = []
        for method in methods:
            judged = [point for point in points if point["method"] == method and point.get(look)]
            places = [(float(point["ratio"]), float(point[look]["accuracy"])) for point in judged]
            if places:
                errors = [float(point[look]["standard_error"]) for point in judged]
                series.append(plots.Series(method, places, errors))
        ends = "; ".join(
            f"{each.label} from {each.points[0][1]:.3f} at {each.points[0][0]:g} "
            f"to {each.points[-1][1]:.3f} at {each.points[-1][0]:g}"
            for each in series
        )
        alt = f"Validation accuracy over the pruning ratio, {words}: {ends}."
        axes = ("share of parameters removed", "validation accuracy")
        drawn = plots.lines(series, *axes, alt, across, (0, 1.08 * top))
        blocks.append(Plot(f"{name}-{look}", f"{title}, {words} (bars: standard error)", alt, drawn))
    return [*blocks, table_of(title, methods, looks, points)]


def table_of(title: str, methods: Sequence[str], looks: Mapping[str, str], points: Sequence[dict[str, Any]]) -> Table:
    """A row for each ratio, a column for each method; in a cell the accuracies in the order of `looks`."""
    at = {(float(point["ratio"]), str(point["method"])): point for point in points}
    rows: list[list[str]] = []
    for ratio in sorted({ratio for ratio, _ in at}):
        here = [at.get((ratio, method), {}) for method in methods]
        cells = [
            " / ".join(f"{one[look]['accuracy']:.3f}" if one.get(look) else NONE for look in looks) for one in here
        ]
        left = max(int(one.get("parameters", 0)) for one in here)
        rows.append([f"{ratio:g}", f"{left:,}", *cells])
    worst = max(float(point[look]["standard_error"]) for point in points for look in looks if point.get(look))
    caption = f"{title}: accuracy {' / '.join(looks.values())}; standard errors up to {worst:.3f}"
    return Table(caption, ("ratio", "parameters", *methods), rows)


def speed(run: FinishedRun) -> Section:
    """3-2: first what the figures say in a sentence, then the figures, then each of them explained."""
    title = "Do structured and unstructured pruning differ in speed, and why?"
    if not run.pruning_speed.is_file():
        why = f"{run.pruning_speed} is not there yet: `bantam bench pruning {typed(run)} --data DIR` measures it."
        return Section("q3-2", title, [Missing(why)])
    again = f"`bantam bench pruning {typed(run)} --data DIR` makes it anew"
    measured = runfolder.table(run.pruning_speed, again)
    ratio, rows, lines = measured["ratio"], measured["rows"], measured["explanation"]
    made_on = measured.get("environment", {}).get("processor")
    caption = (
        f"{ratio:.0%} of the parameters removed, one thread{f' of {made_on}' if made_on else ''}: median of "
        f"{measured['rounds']} turns, with quartiles"
    )
    return Section(
        "q3-2",
        title,
        [
            *(Paragraph(text) for text in verdict(rows, ratio)),
            Table(caption, ("net", "version", "time", "quartiles", "speed", "MACs", "file"), cells(rows)),
            Points("What the figures say, one by one", lines),
        ],
    )


def verdict(rows: Sequence[Mapping[str, Any]], ratio: float) -> list[str]:
    """The answer first, then why; both chosen by the figures."""
    speeds = {
        version: [float(row["speedup"]) for row in rows if row["version"] == version]
        for version in ("masked", "sparse", "structured")
    }
    zeros, sparse, channels = (f"{span(speeds[version])} times" for version in speeds)
    low, high = SAME
    same = all(low <= one <= high for one in speeds["masked"])
    if min(speeds["structured"]) > max(high, *speeds["masked"]):
        answer = "Yes: structured pruning makes a net faster, unstructured pruning does not."
        if not same:
            answer = "Yes: structured pruning makes a net faster than unstructured pruning does."
    elif all(low <= one <= high for one in (*speeds["masked"], *speeds["structured"])):
        answer = "Not here: neither kind changes the time by a tenth."
    else:
        answer = "It depends on the net and on how many images it takes at once."
    said = (
        f"{answer} With {ratio:.0%} of the parameters gone, whole channels leave a net {channels} as fast as before; "
        f"zeros among the weights {zeros}, and stored as a sparse matrix {sparse}."
    )
    why = (
        "A dense kernel multiplies zeros like any other number, and a sparse one pays for following indices; fewer "
        "channels are smaller products for the same dense kernels."
    )
    return [said, why]


def span(values: Sequence[float]) -> str:
    """From the least to the largest, or the one that all are."""
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low} to {high}"


def cells(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The rows of the table of speeds."""
    return [
        [
            f"{row['net']}, {row['batch']} image{'' if row['batch'] == 1 else 's'}",
            row["version"],
            milliseconds(row["median_ms"]),
            " to ".join(milliseconds(one) for one in row["quartiles_ms"]),
            f"{row['speedup']:.2f}×",
            products(row["macs"]) if row["macs"] else NONE,
            size_of(row["bytes"]),
        ]
        for row in rows
    ]
