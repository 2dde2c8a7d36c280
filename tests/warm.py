"""Verifying with the package's code in a fork of this process, where torch is loaded already: seconds instead of many.

Everything else is as `verify` does it. What only the real sandbox holds is tested with the real one.
"""

import atexit
import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from bantam.deliver.verify import answering, clean_room, sandbox


def warm(patch: pytest.MonkeyPatch) -> None:
    """Let `verify` run packages' code in forks, and its own side in this process."""
    # What the exporter imports and builds at its first use is then there in every fork.
    clean_room.graph_of(torch.nn.Sequential(torch.nn.Conv2d(3, 1, 1), torch.nn.BatchNorm2d(1)).eval(), (3, 4, 4), {})
    patch.setattr(sandbox, "run", forked)
    patch.setattr(answering, "ask", lambda question, _timeout: answering.answered(question))


def forked(
    argv: Sequence[str], place: Path, shown: Sequence[Path], timeout: float, _confined: bool | None = None
) -> str:
    """`sandbox.run` of clean_room.py, in a fork that is ended with its group."""
    said = place / "said"
    said.touch()
    process = os.fork()
    if not process:
        try:
            become(list(argv[3:]), place / "room", said)
        finally:
            os._exit(1)
    until = time.monotonic() + timeout
    try:
        while True:
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                break
            if time.monotonic() > until:
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
                return "the code did not end"
            time.sleep(0.01)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)
    with open(said, "rb") as file:
        return sandbox.explained(status, "", file)


def become(job: list[str], room: Path, said: Path) -> None:
    """Be the process that clean_room.py is. Never returns."""
    atexit._clear()  # what this process has to do at its end is not the code's
    os.setsid()
    os.chdir(room)
    output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout = sys.stderr = os.fdopen(2, "w", closefd=False)
    status = 0
    try:
        {"run": clean_room.run, "hand_over": clean_room.hand_over}[job[0]](*job[1:])
    except BaseException:
        traceback.print_exc(file=sys.stderr)
        status = 1
    atexit._run_exitfuncs()
    sys.stderr.flush()
    os._exit(status)
