"""How good `bantam fit` is after how much time, without and with a given teacher, beside recipes at their times.

    python benchmarks/fit.py --data DIR --runs RUNS [--times 2m 5m 15m 60m] [--teacher CKPT] [--recipes RUN...]

Each fit is a process and a run of its own, RUNS/TIME and RUNS/TIME-taught; one that is finished is taken as it is, and
one that was killed goes on. Its minutes are those of the whole command, from its start to its end. RUN are finished
runs of recipes, with the seconds that their stages took. Accuracies are those on validation, as shipped. Writes
results/benchmarks/fit.json, or --out FILE; benchmarks/pictures.py draws it.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bantam.files import write_json
from bantam.fit.asked import seconds_of
from bantam.runs.finished import open_run
from evidence import RESULTS, write


def fitted(data: Path, asked: str, teacher: Path | None, out: Path) -> dict[str, Any]:
    """Fit for the time `asked`, in the run `out`; gives its row. A fit that fails gives its last line."""
    kept = out.with_name(f"{out.name}.seconds.json")
    if not (out / "fit.json").exists() or not kept.exists():
        command = [sys.executable, "-m", "bantam", "fit", str(data), "--time", asked, "--out", str(out), "--json"]
        command += ["--teacher", str(teacher)] if teacher else []
        out.parent.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        if ran.returncode:
            return {"time": asked, "taught": teacher is not None, "failed": ran.stderr.strip().splitlines()[-1]}
        before = json.loads(kept.read_text())["seconds"] if kept.exists() else 0.0
        write_json(kept, {"seconds": before + time.monotonic() - started})
    page, run = json.loads((out / "fit.json").read_text()), open_run(out)
    return {
        "time": asked,
        "asked_seconds": seconds_of(asked),
        "seconds": json.loads(kept.read_text())["seconds"],
        "taught": teacher is not None,
        "stages": [stage.name for stage in run.recipe.stage],
        "epochs": run.metrics["epochs"],
        **{name: page[name] for name in ("student", "size", "accuracy", "standard_error", "n", "tta", "parameters")},
    }


def of_recipe(folder: Path) -> dict[str, Any]:
    """The row of a finished run of a recipe."""
    metrics = open_run(folder).metrics
    judged = metrics["validation"]
    return {
        "recipe": metrics["recipe"],
        "seconds": metrics["seconds"],
        "accuracy": judged["accuracy"],
        "standard_error": judged["standard_error"],
        "n": judged["n"],
        "epochs": metrics["epochs"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--times", nargs="+", default=["2m", "5m", "15m", "60m"])
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--recipes", type=Path, nargs="*", default=[])
    parser.add_argument("--out", type=Path, default=RESULTS / "benchmarks" / "fit.json")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    recipes = [of_recipe(folder) for folder in options.recipes]
    for teacher in (None, options.teacher) if options.teacher else (None,):
        for asked in options.times:
            row = fitted(options.data, asked, teacher, options.runs / f"{asked}{'-taught' if teacher else ''}")
            rows.append(row)
            print(json.dumps(row), flush=True)
            write(options.out, {"rows": rows, "recipes": recipes})


if __name__ == "__main__":
    main()
