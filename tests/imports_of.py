"""What commands import, each in a fork of one process: a script that reads cases as JSON and answers likewise.

A case is {"lines": [[...], ...]}, command lines that are called in the fork one after the other, and {"import": [...]},
modules. The answer to each has the lines' exit statuses, which names of `watched` it has in sys.modules, and the most
memory it had, in MB. With "warm", modules that are imported before the forks.
"""

import contextlib
import importlib
import json
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any


def imports_of(cases: list[dict[str, Any]], watched: set[str], warm: list[str] | None = None) -> list[dict[str, Any]]:
    """Ask a process of its own."""
    question = {"cases": cases, "watched": sorted(watched), "warm": warm or []}
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    said = subprocess.run(
        [sys.executable, __file__], input=json.dumps(question), capture_output=True, text=True, env=environment
    )
    assert said.returncode == 0, said.stderr[-2000:]
    return json.loads(said.stdout)


def in_a_fork(case: dict[str, Any], watched: list[str]) -> dict[str, Any]:
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        os.close(reading)
        quiet = os.open(os.devnull, os.O_RDWR)
        os.dup2(quiet, 1)
        statuses = done(case)
        found = [name for name in watched if name in sys.modules]
        with os.fdopen(writing, "w") as file, contextlib.suppress(OSError):
            json.dump({"statuses": statuses, "modules": found}, file)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        answer = json.load(file)
    _, _, used = os.wait4(process, 0)
    return {**answer, "megabytes": used.ru_maxrss / 1024}


def done(case: dict[str, Any]) -> list[Any]:
    """The exit status of each line; a traceback where one ended in that."""
    statuses: list[Any] = []
    try:
        for name in case.get("import", ()):
            importlib.import_module(name)
        for line in case.get("lines", ()):
            sys.argv = ["bantam", *line]
            try:
                sys.modules["bantam.cli.main"].main()
                statuses.append(0)
            except SystemExit as ended:
                statuses.append(ended.code or 0)
    except BaseException:
        statuses.append(traceback.format_exc())
    return statuses


if __name__ == "__main__":
    question = json.load(sys.stdin)
    sys.path.remove(str(Path(__file__).parent))
    for name in ("bantam.cli.main", *question["warm"]):
        importlib.import_module(name)
    json.dump([in_a_fork(case, question["watched"]) for case in question["cases"]], sys.stdout)
