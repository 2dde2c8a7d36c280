"""THE PATH of `bantam bench pruning`: does pruning make a net faster? The course's question 3-2, measured here.

Four versions of one net at the same parameter ratio, one thread, batches of 1 and 64, all in turns. "masked" has zeros
among its weights and computes with them; "sparse" keeps only the others, in compressed rows (CSR), wherever a
convolution is a product of matrices, the depthwise ones staying as they are; "structured" has fewer channels.

RUN/pruning/pruning_speed.json      the table, and what its figures say; `bantam report` takes it from there
"""

import statistics
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bantam.compress.channels import bundles, prune_to
from bantam.compress.masks import masked
from bantam.compress.pruning_curve import Subject
from bantam.compress.sparse import bytes_of, sparse_bytes, stored_sparse
from bantam.deliver.report.units import significant, size_of
from bantam.errors import BadPruning
from bantam.files import write_json
from bantam.measure.cost import one_thread, seconds_of
from bantam.measure.turns import in_turns
from bantam.nets.budget import weigh
from bantam.nets.footprint import footprint
from bantam.runs.environment import environment
from bantam.runs.finished import FinishedRun
from bantam.runs.photographs import open_data
from bantam.runs.watcher import Watcher
from bantam.studies.prune import Source, given_teachers

BATCHES = (1, 64)
FASTER, SLOWER = 1.1, 0.9  # less than a tenth either way counts as no difference


def pruning_speed(
    sources: Sequence[Source], root: Path, ratio: float, rounds: int, out: Path, watcher: Watcher
) -> dict[str, Any]:
    """Measure the nets of `sources` with the share `ratio` of their parameters removed; gives what is written to `out`.

    `rounds` are the turns of each version. Raises BadPruning for a ratio that leaves nothing, or all, and whatever
    opening the sources raises; nothing is written then.
    """
    if not 0 < ratio < 1:
        raise BadPruning(f"--ratio {ratio:g} must lie between 0 and 1: it is the share of the parameters to remove")
    rows: list[dict[str, Any]] = []
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        torch.manual_seed(0)
        for source in sources:
            subject = source.subject(open_data(source.recipe(root), root, watcher))
            watcher.say(f"{subject.student.family}: {len(BATCHES)} batches of 4 versions, {rounds} turns each")
            rows += rows_of(subject.student.family, subject, ratio, rounds)
    result = {
        "what": "dense, masked, sparse and structured nets",
        "ratio": ratio,
        "rounds": rounds,
        "rows": rows,
        "explanation": explained(rows, ratio),
        "environment": environment(),
    }
    write_json(out, result)
    return result


def text(result: dict[str, Any]) -> str:
    """What a person reads: a line for each version and batch, then the sentences."""
    rows = [["net", "version", "images", "ms", "quartiles", "speed", "file"]]
    for row in result["rows"]:
        quartiles = " to ".join(map(significant, row["quartiles_ms"]))
        times = [significant(row["median_ms"]), quartiles, f"{row['speedup']:.2f}x"]
        rows.append([row["net"], row["version"], str(row["batch"]), *times, size_of(row["bytes"])])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    justified = [str.ljust, str.ljust, *[str.rjust] * (len(widths) - 2)]
    lines = [
        "  ".join(put(cell, width) for put, cell, width in zip(justified, cells, widths, strict=True)) for cells in rows
    ]
    return "\n".join([*lines, *result["explanation"]])


def nets_of(run: FinishedRun, root: Path) -> list[Source]:
    """What the course asks about: the run's given teachers whose weights lie in `root`, and its student.

    Raises BadData where there is no run.
    """
    return [*given_teachers(run.recipe, root), Source(run.folder)]


def versions(subject: Subject, ratio: float) -> dict[str, nn.Module]:
    """The four versions in their shipped form; "sparse" gives what "masked" gives."""
    student, net = subject.student, subject.net
    shipped = student.shipped_form(net)
    dense = weigh(shipped, student.size).counted
    zeroed = masked(shipped, dense, "global", ratio).eval()
    for module in zeroed.modules():
        module._forward_pre_hooks.clear()  # the zeros are there; holding them there is for training
    smaller = prune_to(student, net, bundles(student, net, "magnitude"), dense - round(ratio * dense))
    found = {
        "dense": shipped,
        "masked": zeroed,
        "sparse": stored_sparse(zeroed),
        "structured": smaller.student.shipped_form(smaller.net),
    }
    images = torch.randn(2, 3, student.size, student.size)
    with torch.inference_mode():
        torch.testing.assert_close(found["sparse"](images), zeroed(images), rtol=1e-3, atol=1e-3)
    return {name: version.eval().to(memory_format=torch.channels_last) for name, version in found.items()}


def rows_of(name: str, subject: Subject, ratio: float, rounds: int) -> list[dict[str, Any]]:
    """A line for each version and batch: median milliseconds, the quartiles, and how many times as fast as dense."""
    found = versions(subject, ratio)
    size = subject.student.size
    rows: list[dict[str, Any]] = []
    for batch in BATCHES:
        images = torch.randn(batch, 3, size, size).to(memory_format=torch.channels_last)

        def timed(net: nn.Module, images: Tensor = images) -> Callable[[], float]:
            def measure() -> float:
                seconds_of(net, images)  # the caches still hold the version before
                return 1e3 * seconds_of(net, images)

            return measure

        with one_thread(), torch.inference_mode():
            measured = in_turns(rounds, {version: timed(net) for version, net in found.items()})
        middle = statistics.median(measured["dense"])
        for version, times in measured.items():
            low, median, high = statistics.quantiles(times, n=4, method="inclusive")
            net = found[version]
            rows.append(
                {
                    "net": name,
                    "version": version,
                    "batch": batch,
                    "median_ms": median,
                    "quartiles_ms": [low, high],
                    "speedup": middle / median,
                    "macs": footprint(net, size).macs if version in ("dense", "structured") else None,
                    "bytes": sparse_bytes(net) if version == "sparse" else bytes_of(net.state_dict()),
                }
            )
    return rows


def explained(rows: list[dict[str, Any]], ratio: float) -> list[str]:
    """What the figures say, in sentences that are chosen by them."""
    lines: list[str] = []
    for name in dict.fromkeys(row["net"] for row in rows):
        for batch in BATCHES:
            here = {row["version"]: row for row in rows if row["net"] == name and row["batch"] == batch}
            where = f"{name}, batch {batch}"
            fast = {version: row["speedup"] for version, row in here.items()}
            if SLOWER <= fast["masked"] <= FASTER:
                lines.append(
                    f"{where}: with {ratio:.0%} of the parameters zero the masked net takes {1 / fast['masked']:.2f} "
                    "of the dense time: a dense kernel multiplies zeros like any other number."
                )
            else:
                lines.append(
                    f"{where}: the masked net takes {1 / fast['masked']:.2f} of the dense time although it does the "
                    "same products; the zeros change the values that flow, not the work asked for."
                )
            if fast["sparse"] > FASTER:
                why = "skipping zeros outweighs following the indices of what is left"
            elif fast["sparse"] < SLOWER:
                why = "following indices, and laying convolutions out as columns, costs more than skipping zeros saves"
            else:
                why = "what skipping zeros saves, following indices takes again"
            lines.append(f"{where}: stored sparse it is {fast['sparse']:.2f} times as fast as dense: {why}.")
            work = here["dense"]["macs"] / here["structured"]["macs"]
            if fast["structured"] > FASTER:
                kept = fast["structured"] / work
                why = (
                    "fewer channels are less work for the same dense kernels"
                    if kept > 0.7
                    else "less than the work saved, most likely because the cost of calling each layer stays and small "
                    "products fill the processor less well"
                )
            else:
                why = "most likely the cost of calling each layer, which stays, is most of the time"
            lines.append(
                f"{where}: structured it is {fast['structured']:.2f} times as fast with {work:.2f} times fewer "
                f"multiply-accumulates: {why}."
            )
    return lines
