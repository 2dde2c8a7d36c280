"""How often a view, and the teacher's answer about it, may be shown again before accuracy suffers.

    python benchmarks/views.py --data DIR --runs RUNS [--views 1 8 64] [--epochs 96] [--images 2000] [--seed 0]

The same student, recipe, seed and number of steps, with so many views of each image; with as many as there are epochs,
every view is fresh. To make so many epochs affordable the students see every n-th training image at 32 px and their
teacher at 64 px: with fewer images repetition tells sooner, so what is found here errs on the safe side. All runs share
the teacher's answers. Each run is a folder of its own, so the study may be killed and goes on. Validation is the whole
split. Writes results/benchmarks/views.json.
"""

import argparse
from pathlib import Path
from typing import Any

import torch

from bantam.data import cache
from bantam.measure.accuracy import Accuracy, mcnemar
from evidence import RESULTS, finished_run, validation_hits, write

SIZE, TEACHER_SIZE = 32, 64


def every_nth(data: Path, images: int, folder: Path) -> Path:
    """A folder of links: about `images` training photographs, evenly spaced by name, and all else that `data` has."""
    training = sorted((data / "training").iterdir())
    chosen = training[:: max(1, len(training) // images)]
    for path in [*chosen, *(data / "validation").iterdir()]:
        link = folder / path.parent.name / path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to(path.resolve())
    for path in data.glob("*.ckpt"):
        if not (folder / path.name).exists():
            (folder / path.name).symlink_to(path.resolve())
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--views", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--epochs", type=int, default=96)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "benchmarks" / "views.json")
    options = parser.parse_args()
    data = every_nth(options.data, options.images, options.runs / "photographs")
    rows: list[dict[str, Any]] = []
    fresh: torch.Tensor | None = None
    environment: dict[str, Any] = {}
    for views in [options.epochs, *sorted(options.views, reverse=True)]:
        settings = [
            f"seed={options.seed}", f"data.size={SIZE}", f"student.size={SIZE}", f"teacher.size={TEACHER_SIZE}",
            f"student.epochs={options.epochs}", f"student.views={views}", "student.objectives.kd.temperature=2.0",
            "student.objectives.kd.weight=0.9", "student.objectives.supervised.weight=0.1",
        ]  # fmt: skip
        run = options.runs / f"{options.epochs}-epochs-{views}-views-{options.seed}"
        metrics = finished_run("quick", data, run, settings)
        if "failed" in metrics:
            raise SystemExit(f"{run}: {metrics['failed']}")
        correct = validation_hits(run, cache.open_splits(data, SIZE).validation)
        fresh = correct if fresh is None else fresh
        judged, paired = Accuracy(int(correct.sum()), len(correct)), mcnemar(fresh, correct)
        environment = metrics["environment"]
        rows.append(
            {
                "views": views,
                "accuracy": judged.value,
                "standard_error": judged.standard_error,
                "n": judged.n,
                "against_fresh": judged.value - float(fresh.float().mean()),
                "p": paired.p,
                "seconds": metrics["seconds"] - metrics["stages"]["student"]["answers_seconds"],
                "answers_seconds": metrics["stages"]["student"]["answers_seconds"],
            }
        )
        print(f"{views:>4} views  {judged}  p against fresh {paired.p:.3f}", flush=True)
    result = {
        "epochs": options.epochs,
        "images": len(cache.open_splits(data, SIZE).training),
        "size": SIZE,
        "teacher_size": TEACHER_SIZE,
        "seed": options.seed,
        "rows": rows,
        "trained_at": environment["commit"],
    }
    write(options.out, result)


if __name__ == "__main__":
    main()
