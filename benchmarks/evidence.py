"""Where the benchmarks put what they measured, and what made it."""

import os
import statistics
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from bantam.files import write_json
from bantam.train.runlog import environment

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"


def made_by() -> dict[str, Any]:
    """The machine, the versions, the commit, and this script's command without any path."""
    words = [Path(word).name if os.path.isabs(word) else word for word in sys.argv[1:]]
    return {**environment(), "command": ["python", f"benchmarks/{Path(sys.argv[0]).name}", *words]}


def write(path: Path, result: Mapping[str, Any]) -> None:
    """Write `result`, with what made it, to `path` as JSON."""
    write_json(path, {**result, "environment": made_by()})


def interleaved(rounds: int, contestants: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """What each contestant returns, in `rounds` rounds of all of them; one more round before them warms up.

    On a shared machine the speed drifts. It drifts for all that stand in the same round, so ratios hold.
    """
    measured: dict[str, list[float]] = {name: [] for name in contestants}
    for round_ in range(rounds + 1):
        for name, contestant in contestants.items():
            value = contestant()
            if round_:
                measured[name].append(value)
    return measured


def medians(measured: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in measured.items()}


def synchronise() -> None:
    """Wait for the GPU, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
