"""THE PATH of `bantam cascade`: a finished run's student at a lower resolution first, at its own where it is unsure.

RUN/cascade/cascade.json .csv .svg      every curve, the static nets, and the cheapest cascade within the drop
"""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from bantam.data.splits import LabelledSplit
from bantam.files import writing
from bantam.measure.accuracy import accuracy, mcnemar
from bantam.measure.accuracy import hits as hits_of
from bantam.measure.dynamic import Point, curve, held_out, point, require_reached, require_share, within_drop
from bantam.measure.logits import logits_of
from bantam.measure.plots import plot_dynamic
from bantam.nets.footprint import footprint
from bantam.nets.slimmable import Switch, SwitchableNet
from bantam.nets.students import Student
from bantam.runs import runfolder
from bantam.runs.environment import environment
from bantam.runs.finished import FinishedRun
from bantam.runs.shipped import Shipped
from bantam.runs.watcher import Watcher

SHARES = (0.75, 0.625, 0.5)
"""Sides of the first pass as shares of the student's own, where it was trained at one size alone."""


@dataclass(frozen=True)
class Pass:
    """One way in which a net answers.

    It has a name, the side in pixels that it looks at, its logits [N, K] on validation, and the MACs of an image.
    """

    name: str
    side: int
    logits: Tensor
    macs: int


def cascade(run: FinishedRun, root: Path, drop: float, confidence: float | None, watcher: Watcher) -> dict[str, Any]:
    """Measure the cascades of the student that `run` shipped on validation; gives what cascade.json holds.

    The sizes of the first pass are those that the student was trained at, and SHARES of its own where that is one.
    `drop` is the accuracy (0..1) that the chosen threshold may cost. With `confidence` this threshold is measured
    instead of a chosen one. Raises BadData where no image reaches it, and for a `drop` or `confidence` outside 0..1.
    """
    require_share(("--drop", drop), ("--confidence", confidence))
    net, shipped = run.as_shipped()
    splits = run.open_data(root, watcher)
    size, validation = shipped.student.size, splits.validation
    trained_at = {switch.size for switch in shipped.student.switches if switch.width == 1}
    if len(trained_at) > 1 and isinstance(net, SwitchableNet):
        passes = passes_of_switches(net, shipped, validation, lambda switch: switch.width == 1)
    else:
        passes = [
            Pass(f"{side} px", side, logits_of(net, validation, side, shipped.normalisation), footprint(net, side).macs)
            for side in (size, *(round(size * share) for share in SHARES))
        ]
    result = compared(passes, validation.labels, drop, confidence)
    with runfolder.alone_in(run.folder):
        return written(run.cascade, shipped.student, result)


def passes_of_switches(
    net: SwitchableNet,
    shipped: Shipped,
    validation: LabelledSplit,
    wanted: Callable[[Switch], bool] = lambda _: True,
) -> list[Pass]:
    """What the `wanted` switches of `net` answer on validation, the dearest first."""
    size, passes = shipped.student.size, list[Pass]()
    sides = {switch.size for switch in net.switches}
    for number, switch in enumerate(net.switches):
        if not wanted(switch):
            continue
        names = [f"width {switch.width:g}"] if any(wanted(one) and one.width < 1 for one in net.switches) else []
        names += [f"{switch.size} px"] if len(sides) > 1 else []
        with net.using(number):
            logits = logits_of(net, validation, size, shipped.normalisation)
            passes.append(Pass(", ".join(names), switch.size, logits, footprint(net, size).macs))
    return sorted(passes, key=lambda one: -one.macs)


def compared(passes: Sequence[Pass], labels: Tensor, drop: float, confidence: float | None = None) -> dict[str, Any]:
    """Each pass alone, and each followed by the dearest, which is the first of `passes`: the curves and the choice.

    Raises BadData where no image reaches the `confidence`.
    """
    full, *others = passes
    reference, choose = accuracy(full.logits, labels), within_drop(drop)
    rows: list[dict[str, Any]] = []
    for one in reversed(passes):
        alone = accuracy(one.logits, labels)
        p = mcnemar(hits_of(full.logits, labels), hits_of(one.logits, labels)).p
        rows.append({"kind": "static", **row_of(one, Point(0.0, (1.0, 0.0), alone, one.macs, p))})
    chosen: dict[str, Any] | None = None
    for one in reversed(others):
        ways, paid = (one.logits, full.logits), (one.macs, one.macs + full.macs)
        points = curve(ways, labels, paid)
        rows += [{"kind": "cascade", **row_of(one, item)} for item in points]
        if confidence is None:
            found = choose(points, reference)
        else:
            require_reached(ways, confidence)
            found = point(ways, labels, paid, confidence)
        if found and (chosen is None or found.mean_macs < chosen["mean_macs"]):
            outside = held_out(ways, labels, paid, choose) if confidence is None else found.accuracy
            chosen = {**row_of(one, found), "held_out_accuracy": outside.value}
    return {
        "drop": drop,
        "reference": {
            "pass": full.name,
            "accuracy": reference.value,
            "standard_error": reference.standard_error,
            "macs": full.macs,
        },
        "chosen": chosen if chosen and chosen["mean_macs"] < full.macs else None,
        "rows": rows,
    }


def written(path: Path, student: Student, result: dict[str, Any]) -> dict[str, Any]:
    """Write `result` to `path`, a .json file, and as CSV and SVG beside it; gives it with what made it."""
    result = {"student": student.family, "size": student.size, **result, "environment": environment()}
    rows = result["rows"]
    result = runfolder.write(path, result)
    with writing(path.with_suffix(".csv")) as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    static = {row["pass"]: row for row in rows if row["kind"] == "static"}
    lines: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["kind"] == "cascade":
            lines.setdefault(f"{row['pass']} first", []).append(row)
    plot_dynamic(static, lines, path.with_suffix(".svg"))
    return result


def row_of(one: Pass, item: Point) -> dict[str, Any]:
    """One line: `one` is the first pass, or the only one."""
    return {"pass": one.name, "side": one.side, "stopped": item.stopped, **item.to_json()}


def text(result: dict[str, Any]) -> str:
    """What a person reads: the static nets, then the chosen cascade."""
    full, chosen = result["reference"], result["chosen"]
    named = {row["pass"]: f"{row['pass']} alone" for row in result["rows"] if row["kind"] == "static"}
    both = f"{chosen['pass']}, then {full['pass']}" if chosen else ""
    column = max(map(len, [*named.values(), both]))
    lines = [measured(named[row["pass"]], column, row) for row in result["rows"] if row["kind"] == "static"]
    if chosen is None:
        lines.append(f"no cascade saves MACs at a drop of {result['drop']:g} or less: use one pass alone")
    else:
        lines += [
            measured(both, column, chosen),
            f"{chosen['stopped']:.1%} stop at the confidence {chosen['threshold']:.3f}: "
            f"{1 - chosen['mean_macs'] / full['macs']:.1%} fewer mean MACs; on images that did not choose the "
            f"threshold {chosen['held_out_accuracy']:.4f}",
        ]
    return "\n".join(lines)


def measured(name: str, column: int, row: dict[str, Any]) -> str:
    """One line of the text: a row under its `name`, which is padded to `column` letters."""
    return (
        f"{name:<{column}}  {row['accuracy']:.4f} ± {row['standard_error']:.4f}  "
        f"{row['mean_macs'] / 1e6:6.2f} M MACs  p {row['mcnemar_p']:.3f}"
    )
