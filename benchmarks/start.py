"""How soon the commands answer, and with how much memory: a photograph's class, an export, a report, a training's sign.

    python benchmarks/start.py PHOTO --data DIR [--before CHECKOUT] [--rounds N] [--out FILE]

Each command is a process of its own, as a user starts it, with compiled bytecode in place and photographs decoded; the
first sign is the first byte on its terminal, and whatever is still at work is ended then. What is exported and reported
is the committed run of boss, a new copy each time; what is trained for an epoch is its family, without a teacher. With
--before, the short ones of another checkout's source too, in the same Python. All take turns; medians over the rounds,
with quartiles. Where other processes want the cores too, seconds of a core say more: what a command computes, whoever
else is there.
"""

import argparse
import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from bantam.measure.turns import in_turns
from evidence import RESULTS, ROOT, write

Environment = dict[str, str]
ONE_EPOCH = ["--set", "student.net=largekernel", "--set", "student.epochs=1"]
COMMAND = (sys.executable, "-m", "bantam")
RUN = ROOT / "results" / "food-11" / "boss"

LAUNCH = """
import resource, subprocess, sys, time
began = time.perf_counter()
status = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(time.perf_counter() - began, used.ru_utime + used.ru_stime, used.ru_maxrss)
sys.exit(status)
"""
"""Starts a command from a small process: the peak of a child begins with that of whoever starts it."""


def to_the_end(words: list[str], environment: Environment, used: list[tuple[float, float]]) -> float:
    """Seconds of a command; seconds of a core and its peak memory in MB are added to `used`."""
    launched = subprocess.run(
        [sys.executable, "-c", LAUNCH, *COMMAND, *words], env=environment, stdout=subprocess.PIPE, text=True
    )
    if launched.returncode:
        sys.exit(f"start: bantam {' '.join(words)} ended with status {launched.returncode}")
    seconds, of_a_core, kilobytes = map(float, launched.stdout.split())
    used.append((of_a_core, kilobytes / 1024))
    return seconds


def to_the_first_sign(words: list[str], environment: Environment) -> float:
    """Seconds until a command has written anything to its terminal."""
    ours, theirs = pty.openpty()
    began = time.perf_counter()
    process = subprocess.Popen(
        [*COMMAND, *words], env=environment, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    os.close(theirs)
    os.read(ours, 1)
    seconds = time.perf_counter() - began
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    os.close(ours)
    return seconds


def contestants_of(
    checkout: Path, photo: Path, data: Path, place: Path, used: dict[str, list[tuple[float, float]]]
) -> dict[str, Callable[[], float]]:
    """The commands by what is measured of them, with the source of `checkout`; `used` is filled while they run."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"PYTHONPATH": str(checkout / "src"), "PYTHONPYCACHEPREFIX": str(place / "bytecode")}
    environment |= {"BANTAM_CACHE": str(place / "cache")}
    run = place / "run"
    finished, epoch = place / "finished", place / "epoch"
    lines = {
        "bantam predict PHOTO": ["predict", str(photo)],
        "bantam --help": ["--help"],
        "bantam summary sample": ["summary", "sample"],
    }
    longer = {
        "bantam export RUN": ["export", str(finished), "--data", str(data)],
        "bantam report RUN": ["report", str(finished), "--data", str(data)],
        "bantam run, one epoch": ["run", "simple", "--data", str(data), "--out", str(epoch), *ONE_EPOCH],
    }
    lines |= longer if checkout == ROOT else {}  # before, some of these took minutes
    used.update({what: [] for what in lines})

    def afresh(words: list[str], into: list[tuple[float, float]]) -> float:
        for folder in (finished, epoch):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(RUN, finished)
        return to_the_end(words, environment, into)

    def training() -> float:
        shutil.rmtree(run, ignore_errors=True)
        return to_the_first_sign(["run", "simple", "--data", str(data), "--out", str(run)], environment)

    to_ends = {what: partial(afresh, words, used[what]) for what, words in lines.items()}
    return {**to_ends, "bantam run, to its first sign": training}


def commit_of(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def measured(seconds: list[float], used: list[tuple[float, float]] | None) -> dict[str, Any]:
    quartiles = quantiles(seconds, n=4) if len(seconds) > 1 else seconds * 3
    figures: dict[str, Any] = {"seconds": median(seconds), "quartiles": [quartiles[0], quartiles[2]]}
    if used:  # without the round that warms up
        figures["core_seconds"], figures["megabytes"] = map(median, zip(*used[-len(seconds) :], strict=True))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photo", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULTS / "benchmarks" / "start.json")
    options = parser.parse_args()

    checkouts = {"now": ROOT} | ({"before": options.before.resolve()} if options.before else {})
    used: dict[str, dict[str, list[tuple[float, float]]]] = {version: {} for version in checkouts}
    with tempfile.TemporaryDirectory() as folder:
        found = {
            version: contestants_of(checkout, options.photo, options.data, Path(folder), used[version])
            for version, checkout in checkouts.items()
        }
        turns = {(what, version): turn for version, of in found.items() for what, turn in of.items()}
        seconds = in_turns(options.rounds, {f"{what}: {version}": turn for (what, version), turn in turns.items()})
    rows: list[dict[str, Any]] = [
        {"what": what}
        | {
            version: measured(seconds[f"{what}: {version}"], used[version].get(what))
            for version in checkouts
            if what in found[version]
        }
        for what in found["now"]
    ]
    before = {"before": commit_of(checkouts["before"])} if options.before else {}
    write(options.out, {"rounds": options.rounds, **before, "rows": rows})
    for row in rows:
        shown = [
            f"{version} {row[version]['seconds']:.2f} s"
            + ("" if what is None else f" ({what:.2f} s of a core), {row[version]['megabytes']:.0f} MB")
            for version in checkouts
            if version in row
            for what in [row[version].get("core_seconds")]
        ]
        print(f"{row['what']:<30} {'   '.join(shown)}")


if __name__ == "__main__":
    main()
