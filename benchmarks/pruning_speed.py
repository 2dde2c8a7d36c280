"""Does pruning make a net faster? Dense, masked, stored sparse and structurally pruned, at the same parameter ratio.

    python benchmarks/pruning_speed.py --data DIR --teacher CHECKPOINT --run RUN [--ratio 0.8] [--rounds 15]

The given teacher and the student of a finished run, one thread, batches of 1 and 64, all versions in turn. "masked" has
zeros among its weights and computes with them; "sparse" keeps only the others, in compressed rows (CSR), wherever a
convolution is a product of matrices, the depthwise ones staying as they are; "structured" has fewer channels. Writes
results/benchmarks/pruning_speed.json with what the figures say, and prints it.
"""

import argparse
import copy
import io
import statistics
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bantam.compress.channels import bundles, prune_to
from bantam.compress.masks import masked
from bantam.compress.pruning_curve import Subject
from bantam.measure.cost import one_thread, seconds_of
from bantam.nets.budget import weigh
from bantam.nets.footprint import footprint
from bantam.pipeline import run as pipeline
from bantam.studies.prune import Source
from bantam.train.runlog import Watcher
from evidence import RESULTS, interleaved, write

BATCHES = (1, 64)
FASTER, SLOWER = 1.1, 0.9  # less than a tenth either way counts as no difference


class SparseProduct(nn.Module):
    """A convolution with groups = 1, or a linear layer, as a product with a matrix in compressed rows."""

    def __init__(self, layer: nn.Conv2d | nn.Linear) -> None:
        super().__init__()
        self.layer = layer
        self.rows = layer.weight.detach().flatten(1).to_sparse_csr()  # [O, I * k * k]

    def forward(self, maps: Tensor) -> Tensor:
        layer = self.layer
        if isinstance(layer, nn.Linear):
            product = (self.rows @ maps.t()).t()  # [N, O]
            return product if layer.bias is None else product + layer.bias
        assert isinstance(layer.padding, tuple)
        height, width = (
            (side + 2 * padding - kernel) // stride + 1
            for side, padding, kernel, stride in zip(
                maps.shape[2:], layer.padding, layer.kernel_size, layer.stride, strict=True
            )
        )
        if layer.kernel_size == layer.stride == (1, 1):
            columns = maps.flatten(2)  # [N, I, H * W]
        else:
            columns = functional.unfold(maps, layer.kernel_size, padding=layer.padding, stride=layer.stride)
        flat = columns.transpose(0, 1).flatten(1)  # [N, I * k * k, L] -> [I * k * k, N * L]
        product = self.rows @ flat  # [O, N * L]
        if layer.bias is not None:
            product = product + layer.bias[:, None]
        return product.unflatten(1, (len(maps), height, width)).transpose(0, 1)


def stored_sparse(net: nn.Module) -> nn.Module:
    """A copy of `net` whose products are with compressed rows."""
    sparse = copy.deepcopy(net)
    for name, module in list(sparse.named_modules()):
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1):
            parent, _, own = name.rpartition(".")
            setattr(sparse.get_submodule(parent), own, SparseProduct(module))
    return sparse


def sparse_bytes(net: nn.Module) -> int:
    """Bytes of a file with the compressed rows instead of the weights that they stand for."""
    products = {name: module for name, module in net.named_modules() if isinstance(module, SparseProduct)}
    held = {
        name: value for name, value in net.state_dict().items() if name.removesuffix(".layer.weight") not in products
    }
    for name, module in products.items():
        rows = module.rows
        held[f"{name}.values"] = rows.values()
        held[f"{name}.columns"] = rows.col_indices().int()
        held[f"{name}.starts"] = rows.crow_indices().int()
    return bytes_of(held)


def bytes_of(state: dict[str, Tensor]) -> int:
    file = io.BytesIO()
    torch.save(state, file)
    return file.tell()


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
            measured = interleaved(rounds, {version: timed(net) for version, net in found.items()})
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--architecture", default="resnet18")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--ratio", type=float, default=0.8)
    parser.add_argument("--rounds", type=int, default=15, help="at least 2: quartiles are told")
    parser.add_argument("--out", type=Path, default=RESULTS / "benchmarks" / "pruning_speed.json")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error(f"--rounds {options.rounds}: quartiles need at least 2 rounds")
    warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
    torch.manual_seed(0)
    rows: list[dict[str, Any]] = []
    for source in (Source(options.teacher, options.architecture, options.size), Source(options.run)):
        recipe = source.recipe()
        subject = source.subject(recipe, pipeline.open_data(recipe, options.data, Watcher()))
        rows += rows_of(subject.student.family, subject, options.ratio, options.rounds)
    lines = explained(rows, options.ratio)
    write(
        options.out,
        {
            "what": "dense, masked, sparse and structured nets",
            "ratio": options.ratio,
            "rounds": options.rounds,
            "rows": rows,
            "explanation": lines,
        },
    )
    for row in rows:
        low, high = row["quartiles_ms"]
        print(
            f"{row['net']:<14} {row['version']:<11} batch {row['batch']:>2}  {row['median_ms']:9.2f} ms "
            f"({low:.2f} to {high:.2f})  {row['speedup']:.2f}x  {row['bytes']:>11,} bytes"
        )
    print("\n".join(lines))


if __name__ == "__main__":
    main()
