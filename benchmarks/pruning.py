"""Pruned to 60,000 parameters, or designed with 60,000? The same epochs in all, the same teacher, a paired test.

    python benchmarks/pruning.py --data DIR --runs RUNS [--recipe quick] [--epochs 60] [--wide 240000] [--seed 0]

Three students of one recipe, as accurate as E epochs make them:
"designed" is trained at the budget for E epochs; "pruned" is trained at the wide budget for E / 2 epochs, pruned, and
trained for E / 2 more; "teacher pruned" is the given teacher, pruned and trained for E epochs. Each is a run in a
folder of its own, so a killed benchmark goes on. Writes results/benchmarks/pruning.json and prints its lines.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from torch import Tensor

from bantam.data import cache
from bantam.measure.accuracy import accuracy, hits, mcnemar
from bantam.measure.logits import logits_of
from bantam.nets.footprint import footprint
from bantam.recipes import recipe as recipes
from bantam.recipes.kinds.given_teacher import GivenTeacher
from bantam.runs.finished import load_shipped
from evidence import RESULTS, write

DESIGNED, PRUNED, TEACHER = "designed", "pruned", "teacher pruned"


def bantam(out: Path, *words: str) -> None:
    """Call a command that makes the run `out`, unless it is finished."""
    if (out / "metrics.json").exists():
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([sys.executable, "-m", "bantam", *words, "--out", str(out)], check=True)


def make(options: argparse.Namespace) -> dict[str, Path]:
    """Make the runs that are missing; gives the folder of each route."""
    seed, data = ("--set", f"seed={options.seed}"), ("--data", str(options.data))
    half = options.epochs // 2
    folders = {name: options.runs / name.replace(" ", "-") for name in (DESIGNED, PRUNED, TEACHER)}
    wide = options.runs / "wide"
    run = ("run", options.recipe, *data, *seed)
    bantam(folders[DESIGNED], *run, "--set", f"student.epochs={options.epochs}")
    bantam(wide, *run, "--set", f"student.epochs={half}", "--set", f"budget={options.wide}")
    to = ("--to-params", str(options.budget), "--importance", options.importance)
    bantam(folders[PRUNED], "prune", str(wide), *data, *to, "--finetune", str(options.epochs - half))
    if options.without_teacher:
        return {name: folders[name] for name in (DESIGNED, PRUNED)}
    given = next(stage for stage in recipes.load(options.recipe).stage if isinstance(stage, GivenTeacher))
    weights = ("--architecture", given.architecture, "--size", str(given.size))
    whole = ("prune", str(options.data / given.checkpoint), *data, *to, *weights)
    bantam(folders[TEACHER], *whole, "--finetune", str(options.epochs))
    return folders


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--recipe", default="quick")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--budget", type=int, default=60_000)
    parser.add_argument("--wide", type=int, default=240_000)
    parser.add_argument("--importance", default="taylor")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--without-teacher", action="store_true", help="leave out the third, whose maps are large")
    parser.add_argument("--out", type=Path, default=RESULTS / "benchmarks" / "pruning.json")
    options = parser.parse_args()

    rows: list[dict[str, Any]] = []
    right: dict[str, Tensor] = {}
    for name, folder in make(options).items():
        net, shipped = load_shipped(folder)
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        size = shipped.student.size
        validation = cache.open_splits(options.data, recipes.load(str(folder / "recipe.toml")).data.size).validation
        logits = logits_of(net, validation, size, shipped.normalisation)
        judged = accuracy(logits, validation.labels)
        right[name] = hits(logits, validation.labels)
        test = mcnemar(right[name], right[DESIGNED])
        rows.append(
            {
                "route": name,
                "family": shipped.student.family,
                "size": size,
                "accuracy": judged.value,
                "standard_error": judged.standard_error,
                "n": judged.n,
                "parameters": metrics["parameters"],
                "macs": footprint(net, size).macs,
                "seconds": metrics["seconds"],
                "against_designed": {"only_this": test.only_a, "only_designed": test.only_b, "p": test.p},
            }
        )
    report = {
        "what": "students pruned to the budget against one designed for it",
        "epochs": options.epochs,
        "wide": options.wide,
        "rows": rows,
    }
    write(options.out, {**report, "importance": options.importance, "recipe": options.recipe, "seed": options.seed})
    for row in rows:
        print(
            f"{row['route']:<15} {row['accuracy']:.4f} ± {row['standard_error']:.4f}  "
            f"{max(row['parameters'].values()):,} parameters  {row['macs'] / 1e6:.1f} M MACs  "
            f"p = {row['against_designed']['p']:.3f} against designed"
        )


if __name__ == "__main__":
    main()
