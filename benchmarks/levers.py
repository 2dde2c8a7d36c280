"""What each idea of the large-kernel student brings: one changed at a time, at the same budget.

    python benchmarks/levers.py --data DIR --runs RUNS [--recipe strong] [--epochs 6] [--seeds 0 1 2] [--only NAMES]

All ideas but the compared one stay as they are, and the widths are fitted anew, so that every net fills the budget.
Each net and seed is one `bantam run` in a folder of its own: the benchmark may be killed and goes on, and with `--only`
several calls may fill the same folder. Every net is compared with the unchanged one by McNemar's exact test on plain
views of validation, over all seeds that both have. Writes results/benchmarks/levers.json.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from bantam.data import cache
from bantam.measure.accuracy import Accuracy, mcnemar
from bantam.nets.footprint import footprint
from bantam.recipes import recipe as recipes
from bantam.runs.finished import load_shipped
from evidence import RESULTS, finished_run, validation_hits, write

UNCHANGED = "as it is"

LEVERS: dict[str, list[str]] = {
    UNCHANGED: [],
    "kernels of 3": ["student.shape.kernel=3"],
    "kernels of 5": ["student.shape.kernel=5"],
    "kernels of 9": ["student.shape.kernel=9"],
    "early downsampling": ["student.shape.downsampling=early"],
    "no training-only branch": ["student.shape.branches=1"],
    "ReLU gate": ["student.shape.gate=relu"],
    "sigmoid gate": ["student.shape.gate=sigmoid"],
    "squeeze-excite": ["student.shape.squeeze_excite=true"],
    "no wide head": ["student.shape.head=none"],
    "input of 48 px": ["student.size=48"],
    "input of 96 px": ["student.size=96"],
}


def row_of(name: str, hits: dict[int, torch.Tensor], unchanged: dict[int, torch.Tensor], run: Path) -> dict[str, Any]:
    """A lever's line; `hits` and `unchanged` say for each seed which validation images are right."""
    means = [float(right.float().mean()) for right in hits.values()]
    mean, n = statistics.mean(means), len(next(iter(hits.values())))
    both = [seed for seed in hits if seed in unchanged]
    row: dict[str, Any] = {
        "lever": name,
        "settings": LEVERS[name],
        "accuracy": mean,
        "standard_error": (mean * (1 - mean) / n) ** 0.5,
        "accuracies": dict(zip(map(str, hits), means, strict=True)),
        "n": n,
    }
    net, shipped = load_shipped(run)
    row["parameters"] = sum(parameter.numel() for parameter in net.parameters())
    row["macs"] = footprint(net, shipped.student.size).macs
    if both and name != UNCHANGED:
        test = mcnemar(torch.cat([hits[seed] for seed in both]), torch.cat([unchanged[seed] for seed in both]))
        row["against_unchanged"] = {"difference": (test.only_a - test.only_b) / (n * len(both)), "p": test.p}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=RESULTS / "benchmarks" / "levers.json")
    parser.add_argument("--recipe", default="strong")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=list(LEVERS), default=list(LEVERS), metavar="NAME")
    options = parser.parse_args()
    validation = cache.open_splits(options.data, recipes.load(options.recipe).data.size).validation
    found: dict[str, dict[int, torch.Tensor]] = {}
    runs: dict[str, Path] = {}
    for seed in options.seeds:
        for name in dict.fromkeys([UNCHANGED, *options.only]):
            run = options.runs / f"{name.replace(' ', '-')}-{seed}"
            # As many views as there are epochs at most, and those of the recipe if they are fewer.
            views = min(options.epochs, recipes.load(options.recipe).shipped.views or options.epochs)
            settings = [f"seed={seed}", f"student.epochs={options.epochs}", f"student.views={views}", *LEVERS[name]]
            metrics = finished_run(options.recipe, options.data, run, settings)
            if "failed" in metrics:
                raise SystemExit(f"{run}: {metrics['failed']}")
            found.setdefault(name, {})[seed] = validation_hits(run, validation)
            runs[name] = run
            right = found[name][seed]
            print(f"{name}, seed {seed}: {Accuracy(int(right.sum()), len(right))}", flush=True)
    rows = [row_of(name, hits, found[UNCHANGED], runs[name]) for name, hits in found.items()]
    rows.sort(key=lambda row: -row["accuracy"])
    about = {"recipe": options.recipe, "epochs": options.epochs, "seeds": options.seeds}
    write(options.out, {**about, "rows": rows})
    Console(width=110).print(printed(rows))


def printed(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="one idea changed at a time")
    for name in ("lever", "accuracy", "against unchanged", "p", "parameters", "M MACs"):
        table.add_column(name, justify="left" if name == "lever" else "right")
    for row in rows:
        versus = row.get("against_unchanged")
        table.add_row(
            row["lever"],
            f"{row['accuracy']:.4f} ± {row['standard_error']:.4f}",
            f"{100 * versus['difference']:+.2f} points" if versus else "-",
            f"{versus['p']:.2g}" if versus else "-",
            f"{row['parameters']:,}",
            f"{row['macs'] / 1e6:.1f}",
        )
    return table


if __name__ == "__main__":
    main()
