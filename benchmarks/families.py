"""The tournament: every family at the same budget, with the same recipe, epochs, teacher and cached views.

    python benchmarks/families.py --data DIR --runs RUNS [--recipe quick] [--epochs N] [--seeds 0 1 2] [--parallel N]

Each family and seed is one `bantam run` of the recipe with another net, in a folder of its own, so the tournament may
be killed and goes on, and several calls with other families may fill the same folder. Writes
results/benchmarks/families.json and prints its table; the families that it has already, of the same recipe, epochs,
seeds, settings and photographs, stay in it, so that a tournament may be held in parts.
"""

import argparse
import json
import statistics
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bantam.files import write_json
from bantam.nets.footprint import footprint
from bantam.nets.students import STUDENTS, describe
from evidence import finished_run

ROOT = Path(__file__).parents[1]


def one_run(family: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    settings = [f"student.net={family}", f"seed={seed}", f"student.epochs={options.epochs}", *options.set]
    return finished_run(options.recipe, options.data, options.runs / f"{family}-{seed}", settings)


def row_of(family: str, found: list[dict[str, Any]], size: int, budget: int) -> dict[str, Any]:
    """A family's line: the mean over seeds, and the standard error of that mean."""
    good = [metrics for metrics in found if "failed" not in metrics]
    if not good:
        return {"family": family, "failed": found[0]["failed"]}
    accuracies = [metrics["validation"]["plain"] for metrics in good]
    n = good[0]["validation"]["n"]
    mean = statistics.mean(accuracies)
    between = statistics.stdev(accuracies) / len(accuracies) ** 0.5 if len(accuracies) > 1 else None
    return {
        "family": family,
        "accuracy": mean,
        "standard_error": (mean * (1 - mean) / n) ** 0.5,
        "between_seeds": between,
        "accuracies": accuracies,
        "n": n,
        "parameters": good[0]["parameters"],
        "macs": footprint(describe(family, budget, 11, size).shipped_net(), size).macs,
        "commits": sorted({metrics["environment"]["commit"] for metrics in good}),
        "seconds": statistics.median(metrics["stages"]["student"]["seconds"] for metrics in good),
    }


def with_earlier(report: dict[str, Any], earlier: Mapping[str, Any]) -> dict[str, Any]:
    """`report` with the rows of an `earlier` one for other families, if both are parts of the same tournament.

    A family that failed now keeps its earlier row.
    """
    photographs = {part["environment"]["data"] for part in (report, earlier) if part.get("environment")}
    if len(photographs) > 1 or any(report[key] != earlier.get(key) for key in ("what", "epochs", "seeds", "settings")):
        return report
    rows = {row["family"]: row for row in earlier["rows"]}
    rows |= {row["family"]: row for row in report["rows"] if "failed" not in row or row["family"] not in rows}
    ranked = sorted(rows.values(), key=lambda row: -row.get("accuracy", 0.0))
    return {**report, "environment": report["environment"] or earlier["environment"], "rows": ranked}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "benchmarks" / "families.json")
    parser.add_argument("--recipe", default="quick")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--families", nargs="+", default=list(STUDENTS))
    parser.add_argument("--parallel", type=int, default=1, help="runs at a time; more than 1 pays on a large GPU")
    parser.add_argument("--set", nargs="*", default=[], help="further settings for every run")
    options = parser.parse_args()

    jobs = [(family, seed) for seed in options.seeds for family in options.families]
    results: dict[str, list[dict[str, Any]]] = {family: [] for family in options.families}
    for seed in options.seeds:
        one_run(options.families[0], seed, options)  # builds the cached views that all others of this seed share
    with ThreadPoolExecutor(options.parallel) as pool:
        done = pool.map(lambda job: one_run(job[0], job[1], options), jobs)
        for (family, _), metrics in zip(jobs, done, strict=True):
            results[family].append(metrics)

    rows = [row_of(family, found, 64, 60_000) for family, found in results.items()]
    environments = [
        metrics["environment"] for found in results.values() for metrics in found if "environment" in metrics
    ]
    report = {
        "what": f"families at 60,000 parameters, recipe {options.recipe}, same teacher, epochs and cached views",
        "epochs": options.epochs,
        "seeds": options.seeds,
        "settings": options.set,
        "environment": environments[0] if environments else None,
        "rows": sorted(rows, key=lambda row: -row.get("accuracy", 0.0)),
    }
    if options.out.exists():
        report = with_earlier(report, json.loads(options.out.read_text(encoding="utf-8")))
    write_json(options.out, report)
    table = Table(title=report["what"])
    for name in ("family", "accuracy", "between seeds", "parameters", "M MACs", "seconds"):
        table.add_column(name, justify="left" if name == "family" else "right")
    for row in report["rows"]:
        if "failed" in row:
            table.add_row(row["family"], "failed", row["failed"][:60])
            continue
        spread = f"± {row['between_seeds']:.4f}" if row["between_seeds"] is not None else "-"
        accuracy = f"{row['accuracy']:.4f} ± {row['standard_error']:.4f}"
        parameters = f"{max(row['parameters'].values()):,}"
        table.add_row(row["family"], accuracy, spread, parameters, f"{row['macs'] / 1e6:.1f}", f"{row['seconds']:.0f}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
