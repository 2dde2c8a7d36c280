"""A process of its own for somebody else's code: what it may see and write, and how long it may take.

Within namespaces (Linux, where a user may make them) the code has no network, sees no other process, and of the file
system only Python, the photographs' copies and its own room, of which it can write the room alone. Elsewhere it has the
user's rights. In both, what it started is ended with it, and time, memory, processes and bytes are limited. `keeper.py`
does the work.
"""

import functools
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

PROCESSES = 64
"""Most processes that the code may have at once; threads are not counted."""

DISK = 512 * 2**20
"""Most bytes that it may have in its room."""

SYSTEM = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/sys/devices/system/cpu"
)  # fmt: skip
"""What a Python needs of the system."""

KEEPER = Path(__file__).with_name("keeper.py")


@dataclass(frozen=True)
class Spec:
    """What the keeper is told. `said` is the file descriptor for all that the code prints."""

    argv: list[str]
    environment: dict[str, str]
    room: str
    root: str
    readable: list[str]
    namespaces: bool
    timeout: float
    processes: int
    disk: int
    said: int


def python() -> str:
    """This Python by a path that holds within namespaces too: without symbolic links above the environment's folder."""
    inner = os.path.relpath(sys.executable, sys.prefix)
    return sys.executable if inner.startswith("..") else os.path.join(os.path.realpath(sys.prefix), inner)


def readable() -> list[str]:
    """The folders and files that this Python and its packages need, none below another."""
    wanted = [*SYSTEM, os.path.realpath(sys.prefix), sys.base_prefix, os.path.realpath(sys.base_prefix)]
    link = python()
    while os.path.islink(link):
        link = os.path.normpath(os.path.join(os.path.dirname(link), os.readlink(link)))
        wanted.append(os.path.dirname(os.path.dirname(link)))
    kept: list[str] = []
    for path in sorted({path for path in wanted if os.path.exists(path) and path != "/"}):
        if not any(path.startswith(other + "/") for other in kept):
            kept.append(path)
    return kept


@functools.cache
def namespaces() -> bool:
    """Whether this system lets this user confine a process in namespaces, which is found by doing it."""
    if sys.platform != "linux":
        return False
    with tempfile.TemporaryDirectory(prefix="bantam-try-") as name:
        place = Path(name)
        (place / "room").mkdir()
        return run([python(), "-I", "-S", "-c", "import ctypes"], place, (), 20, confined=True) == ""


def run(argv: Sequence[str], place: Path, shown: Sequence[Path], timeout: float, confined: bool | None = None) -> str:
    """Run a program in the folder `place / "room"`, the only one that it may write; gives why it failed, or nothing.

    `shown` are the files and folders that it may read beside Python. It has an environment without the user's, no
    input, and everything that it started is ended before this returns. `confined` says whether it runs in
    namespaces, by default where there are any.
    """
    room = place.resolve() / "room"
    root = place.resolve() / "root"
    root.mkdir(exist_ok=True)
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(room),
        "TMPDIR": str(room),
        "USER": "student",
        "LANG": "C.UTF-8",
        "FOOD_11": str(shown[0]) if shown else "",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_WAIT_POLICY": "PASSIVE",  # threads that wait do not take the others' processor
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(os.cpu_count() or 1)),
    }
    with tempfile.TemporaryFile() as said:
        spec = Spec(
            argv=list(argv),
            environment=environment,
            room=str(room),
            root=str(root),
            readable=[*readable(), *map(str, shown)],
            namespaces=namespaces() if confined is None else confined,
            timeout=timeout,
            processes=PROCESSES,
            disk=DISK,
            said=said.fileno(),
        )
        kept = subprocess.run(
            [sys.executable, "-I", "-S", str(KEEPER)],
            input=json.dumps(asdict(spec)).encode(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            pass_fds=[said.fileno()], start_new_session=True, check=False,
        )  # fmt: skip
        try:
            found = json.loads(kept.stdout)
        except ValueError:
            return "the code ended its keeper"
        return explained(found["status"], found["why"], said)


def explained(status: int | None, why: str, said: BinaryIO) -> str:
    """Why a process with the wait status `status` failed, or nothing. `said` is what it printed."""
    if why or status is None:
        return why or "the code did not start"
    code = os.waitstatus_to_exitcode(status)
    if code == 0:
        return ""
    if code < 0:
        return f"the code was ended by {signal.Signals(-code).name}: over a limit on time or files, or by itself"
    return f"the code failed: {last_line(said)}"


def last_line(said: BinaryIO) -> str:
    """The last line with something on it of what a program said, printable and short."""
    said.seek(max(0, said.seek(0, os.SEEK_END) - 4096))
    lines = said.read().decode("utf-8", "replace").split("\n")
    spoken = [line for line in lines if line.strip()]
    printable = (
        "".join(letter if letter.isprintable() else " " for letter in spoken[-1]) if spoken else "without a word"
    )
    return " ".join(printable.split())[:200]


def read_left(path: Path, most: int) -> bytes | None:
    """What the code has left at `path`: None where that is no file, is a link or a pipe, or is larger than `most`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return None
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_size > most:
        os.close(descriptor)
        return None
    with os.fdopen(descriptor, "rb") as file:
        return file.read(most)
