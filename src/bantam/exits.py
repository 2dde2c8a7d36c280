"""THE PATH of `bantam exits`: what the early exits of a finished run's student save, and the threshold to use.

RUN/exits/exits.json .csv .svg      the curve, the net alone and each exit alone, and the chosen threshold, which
                                    `bantam serve` takes from there
"""

import csv
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bantam import pipeline
from bantam.deliver.exits import RESULT, require_exits
from bantam.deliver.export import require_classes
from bantam.deliver.predict import load_shipped
from bantam.errors import BadData
from bantam.files import write_json, writing
from bantam.measure.accuracy import accuracy, hits, mcnemar
from bantam.measure.curves import plot_dynamic
from bantam.measure.dynamic import (
    Point,
    curve,
    held_out,
    point,
    require_reached,
    require_share,
    within_drop,
    within_macs,
)
from bantam.measure.logits import logits_of
from bantam.nets.early_exit import macs_alone, macs_of_exits
from bantam.train.runlog import Watcher, environment

STEPS = 50
"""Points of the curve between all images going to the end and all leaving at once."""


def exits(
    run: Path, root: Path, drop: float, macs: float | None, confidence: float | None, watcher: Watcher
) -> dict[str, Any]:
    """Measure the early exits of the student that `run` shipped on validation; gives what exits.json holds.

    The threshold is the cheapest one that costs at most `drop` of the accuracy (0..1); with `macs` the most accurate
    one of at most so many mean multiply-accumulates; with `confidence` this one, measured. Raises BadData for a run
    without exits, a target outside its range or out of reach, and a `confidence` that no image reaches; nothing is
    written then.
    """
    require_share(("--drop", drop), ("--confidence", confidence))
    if macs is not None and confidence is not None:
        raise BadData("--macs chooses a threshold and --confidence is one; give one of them")
    loaded, shipped = load_shipped(run)
    net = require_exits(loaded, run)
    splits = pipeline.open_data(pipeline.recipe_of(run), root, watcher)
    require_classes(shipped, splits)
    size, labels = shipped.student.size, splits.validation.labels
    paid = macs_of_exits(net, size)
    if macs is not None and macs < paid[0]:
        raise BadData(
            f"--macs {macs / 1e6:g} is out of reach: the first exit alone takes {paid[0] / 1e6:.2f} million "
            "multiply-accumulates; ask for more"
        )

    def look(views: Tensor) -> Tensor:
        shown = net.observe(views)
        return torch.stack((*shown.exits, shown.logits), 1)  # [B, ways, K]

    ways = logits_of(net, splits.validation, size, shipped.normalisation, look=look).unbind(1)
    reference, static = accuracy(ways[-1], labels), macs_alone(net, size)
    alone = static[-1]
    names = [f"exit {number}" for number in range(1, len(ways))]
    rows: list[dict[str, Any]] = []
    for number, (name, way) in enumerate(zip([*names, "the net"], ways, strict=True)):
        everywhere = tuple(float(number == place) for place in range(len(ways)))
        p = mcnemar(hits(ways[-1], labels), hits(way, labels)).p
        rows.append(row_of(f"{name} alone", Point(0.0, everywhere, accuracy(way, labels), static[number], p)))
    points = curve(ways, labels, paid, STEPS)
    rows += [row_of("early exits", item) for item in points]

    choose = within_drop(drop) if macs is None else within_macs(macs)
    if confidence is None:
        found, outside = choose(points, reference), held_out(ways, labels, paid, choose, STEPS)
    else:
        require_reached(ways, confidence)
        found = point(ways, labels, paid, confidence)
        outside = found.accuracy
    saves = found is not None and (confidence is not None or found.mean_macs < alone)
    result = {
        "student": shipped.student.family,
        "size": size,
        "after": list(net.after),
        "target": {"confidence": confidence} if confidence is not None else {"macs": macs} if macs else {"drop": drop},
        "macs": list(paid),
        "reference": {"accuracy": reference.value, "standard_error": reference.standard_error, "macs": alone},
        "chosen": {**row_of("early exits", found), "held_out_accuracy": outside.value} if found and saves else None,
        "rows": rows,
        "environment": environment(),
    }
    path = run / RESULT
    write_json(path, result)
    with writing(path.with_suffix(".csv")) as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "shares": " ".join(f"{share:.4f}" for share in row["shares"])} for row in rows)
    static_rows = dict(zip([*names, "the net"], rows, strict=False))
    plot_dynamic(static_rows, {"early exits": rows[len(ways) :]}, path.with_suffix(".svg"))
    return result


def row_of(kind: str, item: Point) -> dict[str, Any]:
    """One line; `shares` are those of the images that leave at each exit and at the end."""
    return {"kind": kind, "shares": list(item.shares), **item.to_json()}


def text(result: dict[str, Any]) -> str:
    """What a person reads: the net and each exit alone, then the chosen threshold."""
    full, ways = result["reference"]["macs"], len(result["macs"])
    lines = [
        f"{row['kind']:<13} {row['accuracy']:.4f} ± {row['standard_error']:.4f}  "
        f"{row['mean_macs'] / 1e6:6.2f} M MACs  p {row['mcnemar_p']:.3f}"
        for row in [*result["rows"][:ways], *([result["chosen"]] if result["chosen"] else [])]
    ]
    chosen = result["chosen"]
    if chosen is None:
        (name, value), *_ = result["target"].items()
        return "\n".join([*lines, f"no threshold saves MACs at {name} {value:g}: use the net alone"])
    shares = ", ".join(
        f"{share:.1%} at {'the end' if place == ways - 1 else f'exit {place + 1}'}"
        for place, share in enumerate(chosen["shares"])
    )
    change = 1 - chosen["mean_macs"] / full
    return "\n".join(
        [
            *lines,
            f"at the confidence {chosen['threshold']:.4f} {shares} leave: {change:.1%} fewer mean MACs than the net "
            f"alone; on images that did not choose the threshold {chosen['held_out_accuracy']:.4f} "
            f"(n = {chosen['n']:,})",
        ]
    )
