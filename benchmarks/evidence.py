"""Where the benchmarks put what they measured, and what made it."""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bantam.data.splits import LabelledSplit
from bantam.files import replacing, write_json
from bantam.measure.accuracy import hits
from bantam.measure.logits import logits_of
from bantam.runs.environment import environment
from bantam.runs.finished import load_shipped

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"


def made_by() -> dict[str, Any]:
    """The machine, the versions, the commit, and this script's command without any path."""
    words = [Path(word).name if os.path.isabs(word) else word for word in sys.argv[1:]]
    return {**environment(), "command": ["python", f"benchmarks/{Path(sys.argv[0]).name}", *words]}


def write(path: Path, result: Mapping[str, Any]) -> None:
    """Write `result`, with what made it, to `path` as JSON."""
    write_json(path, {**result, "environment": made_by()})


def finished_run(recipe: str, data: Path, out: Path, settings: Sequence[str]) -> dict[str, Any]:
    """Run `recipe` with `settings` in a process of its own, in the folder `out`, or take the run finished there.

    Gives its metrics.json, with its environment.json as "environment"; of a run that failed its last line as "failed".
    """
    if not (out / "metrics.json").exists():
        command = [sys.executable, "-m", "bantam", "run", recipe, "--data", str(data), "--out", str(out)]
        for setting in settings:
            command += ["--set", setting]
        out.parent.mkdir(parents=True, exist_ok=True)
        said = out.with_name(f"{out.name}.log")
        with open(said, "w") as log:
            subprocess.run(command, check=False, stdout=log, stderr=subprocess.STDOUT)
        if not (out / "metrics.json").exists():
            return {"failed": (said.read_text().strip().splitlines() or ["no output"])[-1]}
    environment = json.loads((out / "environment.json").read_text())
    return {**json.loads((out / "metrics.json").read_text()), "environment": environment}


def validation_hits(run: Path, validation: LabelledSplit) -> Tensor:
    """Which validation images a finished run's student has right, in one plain view: boolean [N]; kept beside it."""
    kept = run.with_name(f"{run.name}.hits.pt")
    if not kept.exists():
        net, shipped = load_shipped(run)
        logits = logits_of(net, validation, shipped.student.size, shipped.normalisation)
        with replacing(kept) as temporary, open(temporary, "wb") as file:
            torch.save(hits(logits, validation.labels), file)
    return torch.load(kept, weights_only=True)


def medians(measured: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in measured.items()}


def synchronise() -> None:
    """Wait for the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
