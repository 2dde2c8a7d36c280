"""Training on one thread and on all cores, by how threads wait for one another; alone, and beside a neighbour.

    python benchmarks/cores.py [--net FAMILY] [--rounds N] [--seconds N]

Each way trains the same student in a process of its own that lives as long as the benchmark; they take turns. The
neighbour is a loop that keeps one core busy.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from rich.console import Console

from bantam import SPINS
from bantam.measure.turns import in_turns
from evidence import RESULTS, medians, write

SIZE, BATCH = 64, 64
WAYS = {
    "one thread": {"OMP_NUM_THREADS": "1"},
    "all cores, awake for a moment": {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": str(SPINS)},
    "all cores, asleep": {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"},
    "all cores, spinning": {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "300000"},
}
"""What the OpenMP runtime is told. A training takes the second way where it is alone as it starts, and else the third;
the last is the runtime's own. Spinning without an end would go on in the others' turns."""
PLACES = ("alone", "beside a neighbour")
BUSY = "while True: pass"


def trainer(net: str, folder: Path) -> None:
    """Train for as many seconds as each line of the input says; print the images a second after each."""
    import torch

    from bantam.data.splits import IMAGENET
    from bantam.nets.students import describe
    from bantam.pipeline import run as pipeline
    from bantam.recipes import recipe
    from bantam.train.allocator import keep_memory
    from bantam.train.arithmetic import choose
    from bantam.train.plan import Plan
    from bantam.train.step import Step
    from photographs import array_split

    keep_memory()
    simple = recipe.load("simple", [f"student.net={net}", f"student.batch_size={BATCH}"])
    training = array_split(folder / f"{os.getpid()}.npy", BATCH, SIZE)
    student = describe(net, simple.budget, len(training.classes), SIZE).build().train()
    arithmetic = choose(student, SIZE, "fp32")
    plan = Plan(simple.shipped, training, IMAGENET, pipeline.goals_of(simple.shipped))
    with arithmetic.threading():
        step = Step(student.to(memory_format=arithmetic.format), plan, 1_000_000, arithmetic)
        index = torch.arange(BATCH)
        for line in sys.stdin:
            took: list[float] = []
            until = time.perf_counter() + float(line)
            while not took or time.perf_counter() < until:
                started = time.perf_counter()
                step(index, torch.full_like(index, len(took)))
                took.append(time.perf_counter() - started)
            print(BATCH / statistics.median(took), flush=True)


class Trainer:
    """A process of the way that WAYS names so."""

    def __init__(self, way: str, net: str, folder: Path) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--trainer", net, str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=kept | WAYS[way],
        )  # fmt: skip

    def __call__(self, seconds: float) -> float:
        """Train for so many seconds; gives the images a second of the median step."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(seconds, file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def neighbour(there: bool) -> Iterator[None]:
    """Within it another process keeps a core busy, if it is to be `there`."""
    process = subprocess.Popen([sys.executable, "-c", BUSY]) if there else None
    try:
        yield
    finally:
        if process:
            process.kill()
            process.wait()


def measure(net: str, rounds: int, seconds: float) -> dict[str, dict[str, list[float]]]:
    """Images a second of every round: by place, then by way."""

    def turn(trainer: Trainer, place: str) -> float:
        with neighbour(place != PLACES[0]):
            return trainer(seconds)

    with tempfile.TemporaryDirectory() as folder:
        trainers = {way: Trainer(way, net, Path(folder)) for way in WAYS}
        try:
            turns: dict[str, Callable[[], float]] = {
                f"{place}|{way}": partial(turn, trainer, place) for place in PLACES for way, trainer in trainers.items()
            }
            measured = in_turns(rounds, turns)
        finally:
            for trainer in trainers.values():
                trainer.end()
    return {place: {way: measured[f"{place}|{way}"] for way in WAYS} for place in PLACES}


def main() -> None:
    if sys.argv[1:2] == ["--trainer"]:
        trainer(sys.argv[2], Path(sys.argv[3]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", default="largekernel")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--out", type=Path, default=RESULTS / "benchmarks" / "cores.json")
    options = parser.parse_args()
    rounds = measure(options.net, options.rounds, options.seconds)
    speeds = {place: medians(ways) for place, ways in rounds.items()}
    # Of each round by itself: whatever slowed it met both.
    ratios = {
        place: {
            way: statistics.median(each / one for each, one in zip(values, ways["one thread"], strict=True))
            for way, values in ways.items()
        }
        for place, ways in rounds.items()
    }
    about = {"net": options.net, "size": SIZE, "batch": BATCH, "seconds": options.seconds, "load": os.getloadavg()[0]}
    write(options.out, {**about, "images_per_second": speeds, "against_one_thread": ratios, "rounds": rounds})
    console = Console()
    for place, ways in speeds.items():
        for way, speed in ways.items():
            console.print(f"{place:<20}{way:<22}{speed:>8,.0f} images/s{ratios[place][way]:>7.2f}")


if __name__ == "__main__":
    main()
