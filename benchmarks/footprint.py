"""Training from an array that is larger than what the process may have: run by throughput.py and by the tests.

    python benchmarks/footprint.py FOLDER [--megabytes N] [--size N] [--steps N]

After a first step the system is told to give this process N more megabytes and no byte beyond (RLIMIT_DATA: heap,
private memory, stacks). Then it trains on images from all over an array on disk that is half as large again as all that
the process may have, and prints what it took. Read-only pages of a file are no such memory: the system reads and drops
them as it likes.
"""

import argparse
import json
import resource
from pathlib import Path

import torch

from bantam.data import batches
from bantam.data.splits import IMAGENET, LabelledSplit
from bantam.nets.students import describe
from bantam.pipeline import run as pipeline
from bantam.recipes import recipe
from bantam.train.plan import Plan
from bantam.train.step import Step
from photographs import array_split

MEBIBYTE = 2**20


def memory(name: str) -> int:
    """Bytes under `name` in this process's status."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))


def step_on(training: LabelledSplit, size: int) -> Step:
    """The step of recipe `simple` with a fresh student on `training`."""
    simple = recipe.load("simple", [f"student.size={size}"])
    stage = simple.shipped
    net = describe("mobilenet_v1", simple.budget, len(training.classes), size).build().train()
    net = net.to(memory_format=torch.channels_last)
    return Step(net, Plan(stage, training, IMAGENET, pipeline.goals_of(stage), None, simple.seed), 1000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--megabytes", type=int, default=256)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)

    # The libraries load and allocate in the first step; what they take is no part of the data.
    warm = step_on(array_split(options.folder / "few.npy", 64, options.size), options.size)
    warm(torch.arange(64), torch.zeros(64, dtype=torch.int64))
    limit = memory("VmData") + options.megabytes * MEBIBYTE
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))

    count = 3 * limit // 2 // (3 * options.size**2)
    training = array_split(options.folder / "many.npy", count, options.size, sparse=True)
    step = step_on(training, options.size)
    order = batches.epoch(count, 64, 0, 0)  # [steps, 64], from all over the array
    losses = [float(step(index, torch.zeros_like(index))["loss"]) for index in order[: options.steps]]
    try:
        bytearray(training.images.nbytes)
        limited = False
    except MemoryError:
        limited = True
    print(
        json.dumps(
            {
                "limit_bytes": limit,
                "array_bytes": training.images.nbytes,
                "images": count,
                "steps": len(losses),
                "loss": losses[-1],
                "a_copy_of_the_array_is_refused": limited,
                "private_bytes": memory("RssAnon"),
                "peak_bytes": memory("VmHWM"),
            }
        )
    )


if __name__ == "__main__":
    main()
