"""The tests' own PostgreSQL server: nothing of it is left, however the tests end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

STARTS = """
import sys
from pathlib import Path
from private_server import Server
server = Server(Path(sys.argv[1]))
server.database("used")
print(server.folder, server.guard.pid, server.process, flush=True)
sys.stdin.read()
"""


def alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def servers_of(folder: Path) -> list[int]:
    """The processes that were started with the data folder, or from within it."""
    found: list[int] = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words, place = (process / "cmdline").read_bytes(), os.readlink(process / "cwd")
        except OSError:
            continue
        if str(folder).encode() in words or place.startswith(str(folder)):
            found.append(int(process.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("killed", ["tests", "tests with their group", "guard"])
def test_no_server_outlives_a_killed_test_process(killed: str, postgresql_programs: Path) -> None:
    tests = subprocess.Popen(
        [sys.executable, "-c", STARTS, str(postgresql_programs)],
        env={**os.environ, "PYTHONPATH": str(TESTS)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert tests.stdout is not None
    folder, guard, server = tests.stdout.readline().split()
    assert servers_of(Path(folder))
    if killed == "guard":
        os.kill(int(guard), signal.SIGKILL)
    elif killed == "tests":
        os.kill(tests.pid, signal.SIGKILL)
    else:
        os.killpg(tests.pid, signal.SIGKILL)
    until = time.monotonic() + 60
    while time.monotonic() < until and (servers_of(Path(folder)) or alive(int(guard))):
        time.sleep(0.05)
    assert not servers_of(Path(folder))
    assert not alive(int(server))
    assert not alive(int(guard))
    assert killed == "guard" or not Path(folder).exists()
    tests.kill()
    tests.communicate()
    if killed == "guard":  # nobody was left who could
        import shutil

        shutil.rmtree(folder)
