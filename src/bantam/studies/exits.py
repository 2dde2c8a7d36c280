"""THE PATH of `bantam exits`: what the early exits of a finished run's student save, and the threshold to use.

RUN/exits/exits.json .csv .svg      the curve, the net alone and each exit alone, and the chosen threshold, which
                                    `bantam serve` takes from there
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bantam.errors import BadData
from bantam.files import writing
from bantam.measure.accuracy import accuracy, hits, mcnemar
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
from bantam.measure.leaving import names_of_exits
from bantam.measure.logits import logits_of
from bantam.measure.plots import plot_dynamic
from bantam.nets.early_exit import macs_alone, macs_of_exits
from bantam.runs import runfolder
from bantam.runs.environment import environment
from bantam.runs.finished import FinishedRun
from bantam.runs.watcher import Watcher

STEPS = 50
"""Points of the curve between all images going to the end and all leaving at once."""


def exits(
    run: FinishedRun, root: Path, drop: float, macs: int | None, confidence: float | None, watcher: Watcher
) -> dict[str, Any]:
    """Measure the early exits of the student that `run` shipped on validation; gives what exits.json holds.

    The threshold is the cheapest one that costs at most `drop` of the accuracy (0..1); with `macs` the most accurate
    one of at most so many mean multiply-accumulates; with `confidence` this one, measured. Raises BadData for a run
    without exits, a target outside its range or out of reach, and a `confidence` that no image reaches; nothing is
    written then.
    """
    require_one_target(drop, macs, confidence)
    net, shipped = run.with_exits()
    splits = run.open_data(root, watcher)
    size, labels = shipped.student.size, splits.validation.labels
    paid = macs_of_exits(net, size)
    require_in_reach(macs, "the first exit", paid[0])

    def look(views: Tensor) -> Tensor:
        shown = net.observe(views)
        return torch.stack((*shown.exits, shown.logits), 1)  # [B, ways, K]

    answers = logits_of(net, splits.validation, size, shipped.normalisation, look=look).unbind(1)
    *names, _ = left_at = names_of_exits(net)
    ways = Ways("early exits", answers, paid, left_at, (*names, "the net"), macs_alone(net, size))
    result = compared(ways, labels, drop, macs, confidence)
    about = {"student": shipped.student.family, "size": size, "after": list(net.after)}
    with runfolder.alone_in(run.folder):
        return written(run.exits, {**about, **result, "environment": environment()}, ways)


def require_one_target(drop: float, macs: int | None, confidence: float | None) -> None:
    """Raises BadData for a share outside 0..1, and where there are two targets."""
    require_share(("--drop", drop), ("--confidence", confidence))
    if macs is not None and confidence is not None:
        raise BadData("--macs chooses a threshold and --confidence is one; give one of them")


def require_in_reach(macs: int | None, first: str, least: int) -> None:
    """Raises BadData where not even the `first` way out, of `least` multiply-accumulates, costs so few."""
    if macs is not None and macs < least:
        raise BadData(
            f"--macs {macs:,} is out of reach: {first} alone takes {least:,} multiply-accumulates; ask for more"
        )


@dataclass(frozen=True)
class Ways:
    """The ways out of a dynamic net, the whole way last.

    `kind` names the dynamic net. Each way has its `logits` [N, K] on validation, what an image costs that leaves there
    (`paid`), and a name (`left_at`); as a net of its own it has the name in `alone`, and costs `macs_alone`.
    """

    kind: str
    logits: Sequence[Tensor]
    paid: tuple[int, ...]
    left_at: tuple[str, ...]
    alone: tuple[str, ...]
    macs_alone: tuple[int, ...]


def compared(ways: Ways, labels: Tensor, drop: float, macs: int | None, confidence: float | None) -> dict[str, Any]:
    """Each way alone, the curve of all thresholds, and the choice; `drop`, `macs`, `confidence` as for `exits`.

    Raises BadData for a confidence that no image reaches.
    """
    reference, whole = accuracy(ways.logits[-1], labels), ways.macs_alone[-1]
    rows: list[dict[str, Any]] = []
    for number, (name, way) in enumerate(zip(ways.alone, ways.logits, strict=True)):
        everywhere = tuple(float(number == place) for place in range(len(ways.logits)))
        p = mcnemar(hits(ways.logits[-1], labels), hits(way, labels)).p
        rows.append(row_of(f"{name} alone", Point(0.0, everywhere, accuracy(way, labels), ways.macs_alone[number], p)))
    points = curve(ways.logits, labels, ways.paid, STEPS)
    rows += [row_of(ways.kind, item) for item in points]

    choose = within_drop(drop) if macs is None else within_macs(macs)
    if confidence is None:
        found, outside = choose(points, reference), held_out(ways.logits, labels, ways.paid, choose, STEPS)
    else:
        require_reached(ways.logits, confidence)
        found = point(ways.logits, labels, ways.paid, confidence)
        outside = found.accuracy
    saves = found is not None and (confidence is not None or found.mean_macs < whole)
    return {
        "target": {"confidence": confidence} if confidence is not None else {"macs": macs} if macs else {"drop": drop},
        "macs": list(ways.paid),
        "left_at": list(ways.left_at),
        "reference": {"accuracy": reference.value, "standard_error": reference.standard_error, "macs": whole},
        "chosen": {**row_of(ways.kind, found), "held_out_accuracy": outside.value} if found and saves else None,
        "rows": rows,
    }


def written(path: Path, result: dict[str, Any], ways: Ways) -> dict[str, Any]:
    """Write `result` to `path`, a .json file, and as CSV and SVG beside it; gives it."""
    rows = result["rows"]
    result = runfolder.write(path, result)
    with writing(path.with_suffix(".csv")) as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "shares": " ".join(f"{share:.4f}" for share in row["shares"])} for row in rows)
    static_rows = dict(zip(ways.alone, rows, strict=False))
    plot_dynamic(static_rows, {ways.kind: rows[len(ways.logits) :]}, path.with_suffix(".svg"))
    return result


def row_of(kind: str, item: Point) -> dict[str, Any]:
    """One line; `shares` are those of the images that leave at each way out."""
    return {"kind": kind, "shares": list(item.shares), **item.to_json()}


def text(result: dict[str, Any]) -> str:
    """What a person reads: each way alone, then the chosen threshold."""
    chosen, *alone = result["chosen"], *result["rows"][: len(result["macs"])]
    shown = [*alone, *([chosen] if chosen else [])]
    column = max(len(row["kind"]) for row in shown)
    lines = [
        f"{row['kind']:<{column}} {row['accuracy']:.4f} ± {row['standard_error']:.4f}  "
        f"{row['mean_macs'] / 1e6:6.2f} M MACs  p {row['mcnemar_p']:.3f}"
        for row in shown
    ]
    if chosen is None:
        (name, value), *_ = result["target"].items()
        return "\n".join([*lines, f"no threshold saves MACs at {name} {value:g}: use {alone[-1]['kind']}"])
    shares = [f"{share:.1%} at {name}" for share, name in zip(chosen["shares"], result["left_at"], strict=True)]
    change = 1 - chosen["mean_macs"] / result["reference"]["macs"]
    return "\n".join(
        [
            *lines,
            f"at the confidence {chosen['threshold']:.4f} {', '.join(shares)} leave: {change:.1%} fewer mean MACs than "
            f"{alone[-1]['kind']}; on images that did not choose the threshold {chosen['held_out_accuracy']:.4f} "
            f"(n = {chosen['n']:,})",
        ]
    )
