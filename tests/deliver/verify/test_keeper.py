"""Others' code is confined, what it starts ends with it, and why it ended is said; with namespaces and without."""

import fcntl
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bantam.deliver.verify import keeper, sandbox

Run = Callable[..., str]

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system shows no processes in /proc")


@pytest.fixture(params=[True, False], ids=["namespaces", "no namespaces"])
def confined(request: pytest.FixtureRequest) -> bool:
    if request.param and not sandbox.namespaces():
        pytest.skip("this system lets this user make no namespaces")
    return request.param


def run(code: str, place: Path, confined: bool, timeout: float = 30.0) -> str:
    (place / "room").mkdir(exist_ok=True)
    (place / "data").mkdir(exist_ok=True)
    return sandbox.run([sandbox.python(), "-I", "-S", "-c", code], place, [place / "data"], timeout, confined)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("while True: pass", "did not end within"),
        ("import sys; print('\\x1b[2Jno', file=sys.stderr); sys.exit(3)", "the code failed: [2Jno"),
        ("import os; os.kill(os.getpid(), 9)", "SIGKILL"),
        ("import os, signal; os.setsid() if os.fork() == 0 else signal.pause()", "did not end within"),
        ("raise ValueError('odd')", "ValueError: odd"),
        ("raise SystemExit(1)", "without a word"),
    ],
)
def test_why_the_code_ended_is_said(tmp_path: Path, confined: bool, code: str, reason: str) -> None:
    assert reason in run(code, tmp_path, confined, timeout=1.0)


def test_the_code_sees_neither_the_user_s_environment_nor_input(
    tmp_path: Path, confined: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hush")
    code = "import os, sys, json; json.dump([dict(os.environ), sys.stdin.read(), os.getcwd()], open('out', 'w'))"
    assert run(code, tmp_path, confined) == ""
    environment, stdin, folder = json.loads((tmp_path / "room" / "out").read_text())
    assert "SECRET_TOKEN" not in environment
    assert environment["HOME"] == folder == str(tmp_path / "room")
    assert stdin == ""


LEAVES = {
    "a child": "import subprocess, sys\nsubprocess.Popen(['sleep', '300'])",
    "a session": "import subprocess, sys\nsubprocess.Popen(['sleep', '300'], start_new_session=True)",
    "a double fork": """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve('/bin/sleep', ['harmless', '300'], {})
    os._exit(0)
os.wait()
""",
    "many": """
import os, time
for _ in range(40):
    if os.fork() == 0:
        os.setsid()
        os.fork()
        time.sleep(300)
""",
    "ones that ignore signals": """
import os, signal, time
if os.fork() == 0:
    for number in (1, 2, 3, 15, 17, 18, 20):
        signal.signal(number, signal.SIG_IGN)
    os.setsid()
    time.sleep(300)
""",
}


@needs_proc
@pytest.mark.parametrize("name", LEAVES)
def test_whatever_the_code_leaves_running_ends_with_it(tmp_path: Path, confined: bool, name: str) -> None:
    """They would hold a lock, which they cannot take off as they can a name."""
    assert run(HOLDS + LEAVES[name], tmp_path, confined) in ("", "the code started more than 64 processes")
    assert not held(tmp_path)


HOLDS = """
import fcntl, os
lock = os.open('lock', os.O_CREAT | os.O_WRONLY)
os.set_inheritable(lock, True)
fcntl.flock(lock, fcntl.LOCK_EX)
"""


def held(place: Path) -> bool:
    """Whether a process holds the lock that HOLDS took in the room, in whatever namespace it is."""
    try:
        with (place / "room" / "lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


@needs_proc
def test_a_verification_that_is_killed_leaves_no_code_running(tmp_path: Path, confined: bool) -> None:
    code = f"{HOLDS}import time\ntime.sleep(300)"
    verifying = f"""
from pathlib import Path
from bantam.deliver.verify import sandbox
place = Path({str(tmp_path)!r})
sandbox.run([sandbox.python(), "-I", "-S", "-c", {code!r}], place, [place / "data"], 300.0, {confined})
"""
    (tmp_path / "room").mkdir()
    (tmp_path / "data").mkdir()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", verifying], env=environment) as process:
        assert soon(lambda: held(tmp_path))
        process.kill()
    assert soon(lambda: not held(tmp_path))


def soon(holds: Callable[[], bool]) -> bool:
    """Whether something holds within a minute."""
    ends = time.monotonic() + 60
    while not (held := holds()) and time.monotonic() < ends:
        time.sleep(0.05)
    return held


@needs_proc
def test_too_many_processes_end_the_code(tmp_path: Path, confined: bool) -> None:
    started = time.monotonic()
    code = "import os, time\nwhile True:\n    os.fork()\n    time.sleep(0.05)"
    assert "more than 64 processes" in run(code, tmp_path, confined)
    assert time.monotonic() - started < 25


def test_too_many_bytes_end_the_code(tmp_path: Path, confined: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "DISK", 2**20)
    code = "import time\nfor n in range(8): open(f'f{n}', 'wb').write(bytes(2**18))\ntime.sleep(20)"
    assert "wrote more than 1,048,576 bytes" in run(code, tmp_path, confined)


CONFINED = {
    "the network": ("import socket; socket.create_connection(('192.0.2.1', 80), 2)", "unreachable"),
    "this machine's services": ("import socket; socket.create_connection(('127.0.0.1', 22), 2)", "Network is unreach"),
    "the photographs": ("open('{place}/data/x', 'w')", "Read-only"),
    "what lies beside the room": ("open('{place}/secret', 'w').write('x'); raise SystemExit('shadow')", "shadow"),
    "the system": ("open('/usr/x', 'w')", "Read-only"),
    "the user's folder": ("import os; os.listdir('{home}')", "No such file"),
    "a secret by its path": ("open('{place}/secret')", "No such file"),
    "other processes": ("import os; os.kill({pid}, 0)", "No such process"),
    "more rights": ("import ctypes, os; assert ctypes.CDLL(None).unshare(0x10000000) == 0, 'refused'", "refused"),
    "another root": ("import os; os.chroot('.')", "not permitted"),
}


@pytest.mark.parametrize("name", CONFINED)
def test_within_namespaces_the_code_reaches_nothing_else(tmp_path: Path, name: str) -> None:
    if not sandbox.namespaces():
        pytest.skip("this system lets this user make no namespaces")
    (tmp_path / "secret").write_text("hush")
    (tmp_path / "home").mkdir()
    code, reason = CONFINED[name]
    code = code.format(place=tmp_path, home=tmp_path / "home", pid=os.getpid())
    assert reason in run(code, tmp_path, True)
    assert (tmp_path / "secret").read_text() == "hush"  # what it may write there is its own, and gone with it


def test_namespaces_are_used_where_the_system_s_own_command_can_make_them(tmp_path: Path) -> None:
    command = ["unshare", "-U", "-r", "-m", "-p", "-n", "-i", "-u", "-f", "sh", "-c"]
    make = f"mount -t tmpfs none {shlex.quote(str(tmp_path))} && mount --bind /usr {shlex.quote(str(tmp_path))}"
    if not shutil.which("unshare") or subprocess.run([*command, make], capture_output=True, check=False).returncode:
        pytest.skip("this system lets this user make no namespaces, or has no unshare(1)")
    assert sandbox.namespaces()


def test_where_there_is_no_linux_nothing_is_asked_of_its_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "libc", None)
    keeper.prctl(keeper.PR_SET_CHILD_SUBREAPER, 1)
    monkeypatch.setattr("sys.platform", "darwin")
    assert sandbox.namespaces.__wrapped__() is False


def test_where_namespaces_are_refused_the_code_runs_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "namespaces", lambda: False)
    (tmp_path / "room").mkdir()
    code = "import os; open('out', 'w').write(str(os.getuid()))"
    assert sandbox.run([sandbox.python(), "-I", "-S", "-c", code], tmp_path, [], 30) == ""
    assert (tmp_path / "room" / "out").read_text() == str(os.getuid())


@pytest.mark.parametrize("left", ["os.mkfifo('out')", "os.symlink('/dev/zero', 'out')", "os.mkdir('out')", "pass"])
def test_what_the_code_leaves_is_read_only_where_it_is_a_file(tmp_path: Path, left: str) -> None:
    assert run(f"import os; {left}", tmp_path, False) == ""
    assert sandbox.read_left(tmp_path / "room" / "out", 100) is None


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(bytes(11))
    assert sandbox.read_left(tmp_path / "out", 10) is None
    assert sandbox.read_left(tmp_path / "out", 11) == bytes(11)
