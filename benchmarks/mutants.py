"""Mutation testing: small faults in the source, one at a time, and whether any test notices.

    python benchmarks/mutants.py [PATH ...] [--sample N | --all] [--seed 0] [--workers 2] [--list] [--retry]

Without PATH all that SOURCES names is mutated; a path is a file or folder below src/bantam. The checkout stays as it
is: each worker has a copy under build/mutants. What is finished is kept there and not tried again as long as the
mutated file is the same, and of a survivor its tests as well. Faults that change nothing are listed with the reason in
benchmarks/equivalent_mutants.toml. Writes results/benchmarks/mutants.json where neither PATH nor --all makes another
choice; the exit status is 1 where less than ENOUGH of the faults that are not equivalent were noticed.

Each fault is tried in a child that is forked from a process which has imported torch and all else that is slow, and
nothing of Bantam. Why no ready-made tool: docs/dependencies.md.
"""

import argparse
import ast
import contextlib
import fnmatch
import gc
import hashlib
import importlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path
from typing import Any

from mutations import Mutant, mutants_of

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build" / "mutants"
EQUIVALENT = Path(__file__).with_name("equivalent_mutants.toml")
ENOUGH = 0.95

SOURCES: dict[str, tuple[str, ...]] = {
    "objectives/*.py": ("tests/objectives", "tests/train/test_step.py"),
    "nets/budget.py": ("tests/nets/test_budget.py", "tests/nets/test_fit.py", "tests/measure/test_cost.py"),
    "measure/*.py": (
        "tests/measure",
        "tests/studies/test_quantize.py",
        "tests/deliver/report",
        "tests/studies/test_exits.py",
    ),
    "compress/*.py": ("tests/compress", "tests/studies/test_quantize.py", "tests/deliver/export/test_forms.py"),
    "data/*.py": ("tests/data", "tests/train/test_step.py"),
    "data/layouts/*.py": ("tests/data/test_folder.py", "tests/data/test_layouts.py", "tests/data/test_check.py"),
    "archives.py": ("tests/data/test_root.py", "tests/deliver/verify/test_archive.py"),
    "train/step.py": ("tests/train/test_step.py", "tests/train/test_switches.py", "tests/objectives"),
    "deliver/verify/*.py": ("tests/deliver/verify",),
}
"""What is mutated, and the tests that are asked: first the one that mirrors the file, then these in order."""

SPARED = "not killed and not two_processes"
"""Tests that wait for processes, and are not asked about every fault."""

SECONDS, FACTOR, MEMORY = 10.0, 3.0, 6 << 30
"""A child may use SECONDS and FACTOR times what its tests need, and MEMORY bytes more than its parent has mapped."""


SLOW = ("torch._dynamo", "torch.export", "torch.onnx")
"""What is imported for all children besides what sources and tests name; torch itself does so at its first use."""


@dataclass
class Running:
    """A child at work on `mutant` in the copy of the worker `slot`; `until` is when it is ended, whatever it does."""

    mutant: Mutant
    slot: int
    until: float


def tests_for(file: str) -> list[str]:
    """The test files that are asked about a fault in `file`, in order, as paths from the root."""
    inner = Path(file).relative_to("src/bantam")
    wider = next(tests for pattern, tests in SOURCES.items() if fnmatch.fnmatch(inner.as_posix(), pattern))
    files = [ROOT / "tests" / inner.parent / f"test_{inner.name}"]
    for test in wider:
        files += sorted((ROOT / test).glob("test_*.py")) if (ROOT / test).is_dir() else [ROOT / test]
    return [path.relative_to(ROOT).as_posix() for path in dict.fromkeys(files) if path.exists()]


def sources(paths: Sequence[str]) -> list[str]:
    """The files below src/bantam that SOURCES names, or those of them that lie at or below one of `paths`."""
    inside = ROOT / "src" / "bantam"
    files = {path for pattern in SOURCES for path in inside.glob(pattern)}
    chosen = [Path(path).resolve() for path in paths]
    return sorted(
        path.relative_to(ROOT).as_posix()
        for path in files
        if not chosen or any(path == one or one in path.parents for one in chosen)
    )


def equivalent() -> dict[tuple[str, str, str], str]:
    """The reasons why some faults change nothing, by file, line and mutation."""
    listed = tomllib.loads(EQUIVALENT.read_text(encoding="utf-8")).get("equivalent", [])
    return {(item["file"], item["line"], item["mutation"]): item["reason"] for item in listed}


def warm_up() -> None:
    """Import all that sources and tests import and that is not Bantam's own."""
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    names = {"pytest", *SLOW}
    for path in (*(ROOT / "src").rglob("*.py"), *(ROOT / "tests").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {item.name for item in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module)
    own = {path.stem for folder in ("tests", "benchmarks") for path in (ROOT / folder).glob("*.py")} | {"bantam"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in sorted(names):
            if name.split(".")[0] not in own:
                try:
                    importlib.import_module(name)
                except Exception:  # an extra that is not installed here, whose tests are skipped
                    continue
    gc.collect()
    gc.freeze()  # no child looks through what it shares with its parent


def copied(slot: int) -> Path:
    """A fresh copy of the files that git knows, for one worker."""
    folder = BUILD / str(slot)
    shutil.rmtree(folder, ignore_errors=True)
    listed = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return folder


class Failures:
    """Notes the tests that fail, for pytest."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.found.append(report.nodeid)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.found.append(report.nodeid)


def child(folder: Path, tests: list[str], left_out: list[str], first: bool, cpu: float) -> None:
    """Run `tests` in `folder`, the mirroring file before the others, and end the process with pytest's status.

    `first` says whether the first failure is enough. The tests that failed are written to failed.json.
    """
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.chdir(folder)
    log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    resource.setrlimit(resource.RLIMIT_CPU, (int(cpu), int(cpu) + 5))
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY, mapped + MEMORY))
    os.environ["PYTHONPATH"] = str(folder / "src")
    sys.path[:] = [str(folder / "src"), *(path for path in sys.path if path not in ("", str(Path(__file__).parent)))]
    import pytest

    failures = Failures()
    words = ["-p", "no:cacheprovider", "-k", SPARED, "--basetemp", str(folder / "tmp"), "--rootdir", str(folder)]
    words += ["-x"] * first + [word for name in left_out for word in ("--deselect", name)]
    status = 0
    for part in (tests[:1], tests[1:]):
        if part and (not status or not first):
            code = int(pytest.main([*part, *words], plugins=[failures]))
            status = max(status, 0 if code == pytest.ExitCode.NO_TESTS_COLLECTED else code)
    Path("failed.json").write_text(json.dumps(failures.found))
    os._exit(status)


def forked(folder: Path, *asked: Any) -> int:
    """The process that runs tests in `folder`, as `child` says."""
    (folder / "failed.json").unlink(missing_ok=True)
    process = os.fork()
    if process == 0:
        try:
            child(folder, *asked)
        finally:
            os._exit(70)
    return process


def ended(process: int) -> None:
    """End whatever the child's tests have started and left behind."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process, signal.SIGKILL)


def unharmed(folder: Path, tests: list[str]) -> tuple[float, list[str]]:
    """What `tests` need on the unchanged source, in seconds of the processor, and which of them fail there."""
    process = forked(folder, tests, [], False, 3600.0)
    _, status, usage = os.wait4(process, 0)
    ended(process)
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, 1):
        raise SystemExit(f"the tests do not run without a fault (status {code}): see {folder / 'log.txt'}")
    return usage.ru_utime + usage.ru_stime, json.loads((folder / "failed.json").read_text())


def outcome(code: int, folder: Path, late: bool) -> tuple[str, str]:
    """What became of a child with the exit status `code`: "killed" or "survived", and by what."""
    if late or code == -signal.SIGXCPU or code == -signal.SIGKILL:
        return "killed", "time"
    if code == 0:
        return "survived", ""
    try:
        failed = json.loads((folder / "failed.json").read_text())
    except FileNotFoundError:
        failed = []
    return "killed", failed[0] if failed else f"status {code}"


def trying(mutants: list[Mutant], texts: dict[str, str], workers: int) -> Iterator[tuple[Mutant, str, str]]:
    """Try each of `mutants`, several at once, and give what became of it and by what."""
    warm_up()
    folders = [copied(slot) for slot in range(workers)]
    clean: dict[frozenset[str], tuple[float, list[str]]] = {}
    for mutant in mutants:
        tests = frozenset(tests_for(mutant.file))
        if tests not in clean:
            clean[tests] = unharmed(folders[0], sorted(tests))
            if clean[tests][1]:
                print(f"left out, for they fail without a fault: {', '.join(clean[tests][1])}", flush=True)
    sys.dont_write_bytecode = True  # of a mutated file none may be left, and the tests' are there now

    waiting, running, free = list(reversed(mutants)), dict[int, Running](), list(range(workers))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        while waiting or running:
            while waiting and free:
                mutant, slot = waiting.pop(), free.pop()
                tests = tests_for(mutant.file)
                seconds, failing = clean[frozenset(tests)]
                write_source(folders[slot] / mutant.file, mutant.applied(texts[mutant.file]))
                cpu = SECONDS + FACTOR * seconds
                process = forked(folders[slot], tests, failing, True, cpu)
                running[process] = Running(mutant, slot, time.monotonic() + 60 + 10 * cpu)
            time.sleep(0.02)
            for process, work in list(running.items()):
                late = time.monotonic() > work.until
                if late:
                    ended(process)
                done, status = os.waitpid(process, 0 if late else os.WNOHANG)
                if done:
                    ended(process)
                    del running[process]
                    free.append(work.slot)
                    folder = folders[work.slot]
                    write_source(folder / work.mutant.file, texts[work.mutant.file])
                    yield work.mutant, *outcome(os.waitstatus_to_exitcode(status), folder, late)
    finally:
        for process in running:
            ended(process)


def write_source(path: Path, text: str) -> None:
    """Write a module and forget what was compiled of it: two texts of a size within a second would be taken for one."""
    path.write_text(text, encoding="utf-8")
    for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        compiled.unlink()


def digest_of(tests: Sequence[str]) -> str:
    """A digest of the test files' contents."""
    return hashlib.sha256(b"\0".join((ROOT / test).read_bytes() for test in tests)).hexdigest()


def sampled(mutants: list[Mutant], number: int, seed: int) -> list[Mutant]:
    """`number` of `mutants`, drawn by a hash of what each is: another line elsewhere leaves the sample as it is."""

    def drawn(mutant: Mutant) -> str:
        return hashlib.sha256(f"{seed}\n{mutant.file}\n{mutant.text}\n{mutant.mutation}".encode()).hexdigest()

    return sorted(sorted(mutants, key=drawn)[:number])


def compiles(mutant: Mutant, source: str) -> bool:
    """Whether the file is still Python with the fault: what no interpreter reads is no test's merit."""
    try:
        ast.parse(mutant.applied(source))
    except SyntaxError:
        return False
    return True


def difference(mutant: Mutant, source: str) -> str:
    """The lines that differ, as a diff without its heads."""
    lines = unified_diff(source.splitlines(), mutant.applied(source).splitlines(), n=0, lineterm="")
    return "\n".join(line for line in list(lines)[2:] if not line.startswith("@@"))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("paths", nargs="*")
    parser.add_argument("--sample", type=int, default=200)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--list", action="store_true", help="only show the faults")
    parser.add_argument("--retry", action="store_true", help="try survivors again although nothing changed")
    asked = parser.parse_args()

    texts = {file: (ROOT / file).read_text(encoding="utf-8") for file in sources(asked.paths)}
    everything = [mutant for file, text in texts.items() for mutant in mutants_of(file, text)]
    chosen = everything if asked.all else sampled(everything, asked.sample, asked.seed)
    chosen = [mutant for mutant in chosen if compiles(mutant, texts[mutant.file])]
    reasons = equivalent()
    same = [mutant for mutant in chosen if (mutant.file, mutant.text, mutant.mutation) in reasons]
    tried = [mutant for mutant in chosen if mutant not in same]
    if asked.list:
        print("\n".join(f"{mutant.file}:{mutant.line}: {mutant.mutation}" for mutant in chosen))
        return 0

    kept = BUILD / "finished.jsonl"
    BUILD.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, Any]] = {}
    for line in kept.read_text(encoding="utf-8").splitlines() if kept.exists() else ():
        row = json.loads(line)
        found[row["key"]] = row
    digests = {file: digest_of(tests_for(file)) for file in texts}

    def known(mutant: Mutant) -> bool:
        row = found.get(mutant.key(texts[mutant.file]))
        held = row is not None and not asked.retry and row["tests"] == digests[mutant.file]
        return held or (row is not None and row["outcome"] == "killed")

    new = [mutant for mutant in tried if not known(mutant)]
    print(f"{len(everything):,} faults, {len(chosen)} chosen, {len(same)} equivalent, {len(new)} to try", flush=True)
    for number, (mutant, became, by) in enumerate(trying(new, texts, asked.workers) if new else (), 1):
        key = mutant.key(texts[mutant.file])
        found[key] = {"key": key, "outcome": became, "by": by, "tests": digests[mutant.file]}
        with kept.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found[key]) + "\n")
        print(f"{number}/{len(new)} {became} {mutant.file}:{mutant.line} {mutant.mutation} {by}", flush=True)
    return told(asked, everything, chosen, same, found, texts)


def told(
    asked: argparse.Namespace,
    everything: list[Mutant],
    chosen: list[Mutant],
    same: list[Mutant],
    found: dict[str, dict[str, Any]],
    texts: dict[str, str],
) -> int:
    """Show the survivors and the shares, write the result, and give the exit status."""
    rows: dict[str, dict[str, int]] = {}
    survivors: list[dict[str, Any]] = []
    for mutant in chosen:
        room = "/".join(Path(mutant.file).relative_to("src/bantam").parts[:1])
        row = rows.setdefault(room, {"tried": 0, "killed": 0, "equivalent": 0})
        if mutant in same:
            row["equivalent"] += 1
            continue
        row["tried"] += 1
        if found[mutant.key(texts[mutant.file])]["outcome"] == "killed":
            row["killed"] += 1
            continue
        survivors.append(
            {
                "file": mutant.file,
                "line": mutant.line,
                "text": mutant.text,
                "mutation": mutant.mutation,
                "diff": difference(mutant, texts[mutant.file]),
            }
        )
    for item in survivors:
        print(f"\n{item['file']}:{item['line']}\n{item['diff']}")
    for room, row in rows.items():
        print(f"{room}: {row['killed']} of {row['tried']} noticed, {row['equivalent']} equivalent")
    total, killed = len(chosen) - len(same), len(chosen) - len(same) - len(survivors)
    print(f"{killed} of {total} noticed ({killed / max(total, 1):.1%}), {len(same)} equivalent")
    if not asked.paths and not asked.all:
        from evidence import RESULTS, write

        result = {
            "seed": asked.seed,
            "faults": len(everything),
            "sampled": len(chosen),
            "equivalent": len(same),
            "tried": total,
            "killed": killed,
            "rooms": rows,
            "survivors": survivors,
        }
        write(RESULTS / "benchmarks" / "mutants.json", result)
    return 0 if killed >= ENOUGH * total else 1


if __name__ == "__main__":
    raise SystemExit(main())
