"""A run in a process of its own, which kills itself where a test says, and the comparison of two finished runs."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from bantam.runs.runfolder import rows as read_rows

# Runs the pipeline with a checkpoint after every step, and kills itself at the given step, there in the given place.
RUNS_AND_DIES = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from bantam.pipeline import run as pipeline
from bantam.recipes import recipe
from bantam.runs import checkpoint
from bantam.runs import runlog
from bantam.train import loop
from bantam.train.step import Step

text, root, out, place, at = sys.argv[1:]
loop.SAVE_EVERY = 0.0
count = 0

def die_at(original, before=True):
    def counted(*args, **kwargs):
        global count
        count += 1
        if count == int(at) and place == "save":
            path = args[0]
            path.with_name(f".{path.name}.{os.getpid()}.tmp").write_bytes(b"half")
        if count == int(at) and before:
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **kwargs)
        if count == int(at):
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return counted

if place == "step":
    Step.learn = die_at(Step.learn)
elif place == "save":
    checkpoint.save = loop.checkpoint.save = die_at(checkpoint.save)
elif place == "log":
    runlog.RunLog.append = die_at(runlog.RunLog.append, before=False)
pipeline.run(recipe.parse(text), Path(root), Path(out))
"""


def run_process(text: str, root: Path, out: Path, place: str = "nowhere", at: int = 0) -> int:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", RUNS_AND_DIES, text, str(root), str(out), place, str(at)]
    return subprocess.run(command, env=environment, timeout=300).returncode


def essence(out: Path) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """The shipped weights, and the metrics without their times."""
    rows = read_rows(out / "stages" / "student" / "metrics.jsonl")
    for row in rows:
        row.pop("seconds")
    return torch.load(out / "student_best.ckpt", weights_only=True), rows


def assert_same(one: Path, other: Path) -> None:
    (weights, rows), (others, other_rows) = essence(one), essence(other)
    assert rows == other_rows
    assert weights.keys() == others.keys()
    for name, value in weights.items():
        assert torch.equal(value, others[name]), name
