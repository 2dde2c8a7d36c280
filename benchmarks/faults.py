"""Faults put into Bantam's surroundings, and how many it held against: what docs/reliability.md promises, counted.

    python benchmarks/faults.py [--kills 20] [--seed 0] [--only KIND...]

Kinds: kills at random moments (the same command then ends with the same bits), damaged files of a run (one line, or the
right answer), hostile recipes, pictures, requests, ways of saving a teacher, and hostile code packages. Prints what did
not hold, writes results/benchmarks/faults.json, and ends with status 1 where something did not.
"""

import argparse
import contextlib
import io
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from bantam.data import cache
from bantam.deliver.serve import browser
from bantam.deliver.serve.app import make_app
from bantam.deliver.serve.desk import Desk, Setting
from bantam.errors import BadCheckpoint
from bantam.nets.weights import load_weights
from bantam.pipeline import run as pipeline
from bantam.recipes.recipe import parse
from bantam.runs.finished import open_run
from evidence import RESULTS, ROOT, write

sys.path.insert(0, str(ROOT / "tests"))

import damage
import hostile
import hostile_images
import hostile_recipes
import hostile_requests
import saved_teachers
from killed_run import RUNS_AND_DIES, assert_same
from run_readers import READERS, commands_on
from tiny_run import RECIPE, write_photographs

Found = dict[str, str]
"""Each fault by its name, and what happened where it did not hold; "" where it did."""

Kind = Callable[[Path, Path, argparse.Namespace], Found]
"""Called with small photographs, an empty folder and the options."""


def begun(root: Path, out: Path) -> subprocess.Popen[bytes]:
    """A small run in a process of its own, with a checkpoint after every step."""
    command = [sys.executable, "-c", RUNS_AND_DIES, RECIPE, str(root), str(out), "nowhere", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, start_new_session=True)


def kills(root: Path, place: Path, options: argparse.Namespace) -> Found:
    """Kill a run at random moments, once or twice, and let it end: the same weights and rows as without."""
    started = time.monotonic()
    assert begun(root, place / "whole").wait() == 0
    lasts = time.monotonic() - started
    draw, found = random.Random(options.seed), Found()
    for number in range(options.kills):
        out = place / f"run {number}"
        moments = sorted(draw.uniform(0.2, 1.0) * lasts for _ in range(1 + number % 2))
        for moment in moments:
            process = begun(root, out)
            try:
                process.wait(moment)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        name = f"killed after {', '.join(f'{moment:.1f}' for moment in moments)} of {lasts:.1f} s"
        process = begun(root, out)
        said = process.communicate()[1].decode("utf-8", "replace")
        try:
            assert process.returncode == 0, said[-300:]
            assert_same(out, place / "whole")
            found[name] = ""
        except AssertionError as error:
            found[name] = f"other bits, or none: {str(error)[:300]}"
    return found


def files(root: Path, place: Path, options: argparse.Namespace) -> Found:
    """Damage every file of a finished run, for every command that reads it."""
    pipeline.run(parse(RECIPE), root, place / "finished")
    commands = commands_on(root, place)
    found = Found()
    for file, readers in READERS.items():
        asked = {name: commands[name] for name in readers}
        for case in damage.tried(place / "finished", [file], asked, place / "copies"):
            found[f"{case.file}, {case.damage}: {case.command}"] = case.outcome
    return found


def recipes(root: Path, place: Path, options: argparse.Namespace) -> Found:
    """Read recipes, settings and paths that no run may begin with."""
    return hostile_recipes.tried(place, hostile_recipes.by_name)


def pictures(root: Path, place: Path, options: argparse.Namespace) -> Found:
    """Decode pictures of every kind, whole, strange and damaged."""
    return {name: fault or "" for name, fault in hostile_images.tried().items()}


def requests(root: Path, place: Path, options: argparse.Namespace) -> Found:
    """Ask the page for everything that its routes do not expect."""
    pipeline.run(parse(RECIPE), root, place / "run")
    browser.RUNTIME = place / "nowhere"  # nobody asks for the browser's graph here, which takes seconds to make
    app = make_app(Desk(Setting(open_run(place / "run"), cache.open_splits(root, 32).validation)))
    return {name: fault or "" for name, fault in hostile_requests.faults(app).items()}


def teachers(root: Path, place: Path, options: argparse.Namespace) -> Found:
    """Load a classifier's weights in every way in which people save them."""
    torch.manual_seed(0)
    net, found = saved_teachers.Small().eval(), Found()
    for name, way in saved_teachers.WAYS.items():
        path, said = place / "teacher.ckpt", list[str]()
        way.save(net, path)
        asked = path.with_name(f"{path.name}#{way.name}") if way.name else path
        loaded = True
        try:
            load_weights(saved_teachers.Small(), asked, said.append)
        except BadCheckpoint as error:
            loaded, said = False, [str(error)]
        held = loaded == way.loads and len(said) == bool(way.says) and way.says in "".join(said)
        found[name] = "" if held and "\n" not in "".join(said) else f"{'taken' if loaded else 'refused'}: {said}"
        path.unlink()
    return found


def packages(root: Path, place: Path, options: argparse.Namespace) -> Found:
    """Verify hostile code packages, their code run in the real sandbox."""
    passed = hostile.try_all(root, place)
    return {name: passed.get(name, "") for name in hostile.PACKAGES}


KINDS: dict[str, Kind] = {
    "kills at random moments": kills,
    "damaged files of a run": files,
    "hostile recipes and settings": recipes,
    "pictures, whole, strange and damaged": pictures,
    "hostile requests to the page": requests,
    "ways of saving a teacher": teachers,
    "hostile code packages": packages,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="runs that are killed, every second one twice")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--only", nargs="*", default=[], help="words of the kinds to try; all by default")
    parser.add_argument("--out", type=Path, default=RESULTS / "benchmarks" / "faults.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for kind, try_all in KINDS.items():
        if options.only and not any(word in kind for word in options.only):
            continue
        with tempfile.TemporaryDirectory(prefix="bantam-faults-") as name:
            place = Path(name)
            os.environ["BANTAM_CACHE"] = str(place / "cache")
            (place / "empty").mkdir()
            with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = try_all(write_photographs(place / "photographs"), place / "empty", options)
        fallen = {fault: outcome for fault, outcome in found.items() if outcome}
        rows.append({"kind": kind, "tried": len(found), "held": len(found) - len(fallen), "fallen": fallen})
        print(f"{kind}: {len(found):,} tried, {len(found) - len(fallen):,} held", flush=True)
        for fault, outcome in fallen.items():
            print(f"    {fault}: {outcome}", flush=True)
    write(options.out, {"seed": options.seed, "rows": rows})
    sys.exit(any(row["fallen"] for row in rows))


if __name__ == "__main__":
    main()
