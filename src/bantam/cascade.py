"""THE PATH of `bantam cascade`: a finished run's student at a lower resolution first, at its own where it is unsure.

RUN/cascade/cascade.json .csv .svg      every curve, the static nets, and the cheapest cascade within the drop
"""

import csv
from pathlib import Path
from typing import Any

from bantam import pipeline
from bantam.deliver.export import require_classes
from bantam.deliver.predict import load_shipped
from bantam.errors import BadData
from bantam.files import write_json, writing
from bantam.measure.accuracy import accuracy, mcnemar
from bantam.measure.accuracy import hits as hits_of
from bantam.measure.curves import plot_dynamic
from bantam.measure.dynamic import Point, curve, held_out, point, require_reached, within_drop
from bantam.measure.logits import logits_of
from bantam.nets.footprint import footprint
from bantam.train.runlog import Watcher, environment

SHARES = (0.5, 0.625, 0.75)
"""Sides of the first pass as shares of the student's own."""


def cascade(run: Path, root: Path, drop: float, confidence: float | None, watcher: Watcher) -> dict[str, Any]:
    """Measure the cascades of the student that `run` shipped on validation; gives what cascade.json holds.

    `drop` is the accuracy (0..1) that the chosen threshold may cost. With `confidence` this threshold is measured
    instead of a chosen one. Raises BadData where no image reaches it, and for a `drop` or `confidence` outside 0..1.
    """
    for name, value in (("--drop", drop), ("--confidence", confidence)):
        if value is not None and not 0 <= value <= 1:
            raise BadData(f"{name} = {value:g} must lie in 0..1")
    net, shipped = load_shipped(run)
    splits = pipeline.open_data(pipeline.recipe_of(run), root, watcher)
    require_classes(shipped, splits)
    size, labels = shipped.student.size, splits.validation.labels
    sizes = [*(round(size * share) for share in SHARES), size]
    logits = {side: logits_of(net, splits.validation, side, shipped.normalisation) for side in sizes}
    macs = {side: footprint(net, side).macs for side in sizes}

    last = logits[size]
    reference, choose = accuracy(last, labels), within_drop(drop)
    rows: list[dict[str, Any]] = []
    for side in sizes:
        alone = accuracy(logits[side], labels)
        p = mcnemar(hits_of(last, labels), hits_of(logits[side], labels)).p
        rows.append({"kind": "static", **row_of(side, Point(0.0, (1.0, 0.0), alone, macs[side], p))})
    chosen: dict[str, Any] | None = None
    for side in sizes[:-1]:
        ways, paid = (logits[side], last), (macs[side], macs[side] + macs[size])
        points = curve(ways, labels, paid)
        rows += [{"kind": "cascade", **row_of(side, item)} for item in points]
        if confidence is None:
            found = choose(points, reference)
        else:
            require_reached(ways, confidence)
            found = point(ways, labels, paid, confidence)
        if found and (chosen is None or found.mean_macs < chosen["mean_macs"]):
            outside = held_out(ways, labels, paid, choose) if confidence is None else found.accuracy
            chosen = {**row_of(side, found), "held_out_accuracy": outside.value}
    result = {
        "student": shipped.student.family,
        "size": size,
        "drop": drop,
        "reference": {"accuracy": reference.value, "standard_error": reference.standard_error, "macs": macs[size]},
        "chosen": chosen if chosen and chosen["mean_macs"] < macs[size] else None,
        "rows": rows,
        "environment": environment(),
    }
    folder = run / "cascade"
    write_json(folder / "cascade.json", result)
    with writing(folder / "cascade.csv") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    static = [row for row in rows if row["kind"] == "static"]
    lines = {
        f"{side} px first": [row for row in rows if row["kind"] == "cascade" and row["side"] == side]
        for side in sizes[:-1]
    }
    plot_dynamic(static, "one pass, " + ", ".join(map(str, sizes)) + " px", lines, folder / "cascade.svg")
    return result


def row_of(side: int, item: Point) -> dict[str, Any]:
    """One line: `side` is that of the first pass, or of the only one, in pixels."""
    return {
        "side": side,
        "threshold": item.threshold,
        "stopped": item.stopped,
        "accuracy": item.accuracy.value,
        "standard_error": item.accuracy.standard_error,
        "n": item.accuracy.n,
        "mean_macs": item.mean_macs,
        "mcnemar_p": item.p,
    }


def text(result: dict[str, Any]) -> str:
    """What a person reads: the static nets, then the chosen cascade."""
    full = result["reference"]["macs"]
    lines = [
        f"{row['side']:>4} px alone      {row['accuracy']:.4f} ± {row['standard_error']:.4f}  "
        f"{row['mean_macs'] / 1e6:6.2f} M MACs  p {row['mcnemar_p']:.3f}"
        for row in result["rows"]
        if row["kind"] == "static"
    ]
    chosen = result["chosen"]
    if chosen is None:
        lines.append(f"no cascade saves MACs at a drop of {result['drop']:g} or less: use the net alone")
    else:
        lines += [
            f"{chosen['side']:>4} px, then {result['size']}  "
            f"{chosen['accuracy']:.4f} ± {chosen['standard_error']:.4f}  "
            f"{chosen['mean_macs'] / 1e6:6.2f} M MACs  p {chosen['mcnemar_p']:.3f}",
            f"{chosen['stopped']:.1%} stop at the confidence {chosen['threshold']:.3f}: "
            f"{1 - chosen['mean_macs'] / full:.1%} fewer mean MACs; on images that did not choose the threshold "
            f"{chosen['held_out_accuracy']:.4f}",
        ]
    return "\n".join(lines)
