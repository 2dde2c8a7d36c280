"""Keeps a process that runs somebody's code: confines it, watches it, and ends all that it started.

    python -I -S keeper.py < SPEC        (JSON: the fields of `sandbox.Spec`)

A script of its own that imports nothing of Bantam and little of Python, so that it starts at once. It is the
subreaper of everything below it (prctl(2), PR_SET_CHILD_SUBREAPER): a process that leaves its group, its session or
its parent comes back to the keeper, and is found by its descent, not by a mark that it could take off.
"""

import contextlib
import ctypes
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = (
    0x00020000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000,
)  # fmt: skip
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
KEPT_FLAGS = 2 | 4 | 8 | 1024 | 2048 | 4096
"""Of a mount's flags (statvfs) those that a remount must name again: nosuid, nodev, noexec and the three of times."""

INSIDE_ID = 1000
"""The user's number within the namespace: not 0, so that whatever is executed has no privileges left."""

POLL, LOOK = 0.02, 0.2
"""Seconds between two looks at whether the process has ended, and between two at what it has started and written."""

libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def prctl(option: int, value: int) -> None:
    """Ask the kernel for what one process may ask for itself; nothing where there is no such kernel."""
    if libc is not None:
        libc.prctl(option, value, 0, 0, 0)


def checked(result: int, what: str) -> None:
    """Raise OSError where a call into the C library has failed."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str | None, flags: int, options: str = "") -> None:
    """mount(2). Raises OSError."""
    assert libc is not None
    texts = [text.encode() if text else None for text in (source, target, kind, options)]
    checked(libc.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3]), f"mount {target}")


def enter_namespaces() -> None:
    """Leave the system's users, processes, network, mounts and host name for a set of one's own. Raises OSError."""
    assert libc is not None
    user, group = os.geteuid(), os.getegid()
    everything = CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS
    checked(libc.unshare(everything), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{INSIDE_ID} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{INSIDE_ID} {group} 1")


def build_root(root: str, readable: list[str], writable: str) -> None:
    """Make `root` a file system that holds the paths of `readable`, read-only, the folder `writable`, and little else,
    and make it the root of this process. Raises OSError."""
    mount("", "/", None, MS_REC | MS_PRIVATE)
    mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "size=4m,mode=755")
    for name, size in (("/dev", "1m"), ("/tmp", "256m"), ("/dev/shm", "1g")):
        os.makedirs(root + name)
        mount("tmpfs", root + name, "tmpfs", MS_NOSUID | MS_NODEV, f"size={size},mode=1777")
    for name in ("null", "zero", "random", "urandom"):
        bind(f"/dev/{name}", root, MS_NOSUID)
    for path in readable:
        bind(path, root, MS_NOSUID | MS_NODEV | MS_RDONLY)
    bind(writable, root, MS_NOSUID | MS_NODEV)
    os.makedirs(root + "/proc", exist_ok=True)
    # In some containers the kernel refuses it; then there is none.
    with contextlib.suppress(OSError):
        mount("proc", root + "/proc", "proc", MS_NOSUID | MS_NODEV)
    mount("", root, None, MS_REMOUNT | MS_NOSUID | MS_NODEV | MS_RDONLY)
    os.chroot(root)


def bind(path: str, root: str, flags: int) -> None:
    """Show `path` at the same place below `root`; a symbolic link is copied. Raises OSError."""
    target = root + path
    if os.path.lexists(target):
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.islink(path) and not os.path.isabs(os.readlink(path)):
        os.symlink(os.readlink(path), target)
        return
    if os.path.isdir(path):
        os.makedirs(target)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    mount(os.path.realpath(path), target, None, MS_BIND | MS_REC)
    kept = os.statvfs(target).f_flag & KEPT_FLAGS
    mount("", target, None, MS_BIND | MS_REMOUNT | flags | kept)


def worker(spec: dict[str, Any]) -> None:
    """Become the program that `spec` names. Never returns."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    os.chdir(spec["room"])
    os.execve(spec["argv"][0], spec["argv"], spec["environment"])


def start(spec: dict[str, Any], told: int) -> None:
    """What the keeper's child does: become the worker, or within namespaces the parent of it. Never returns.

    The parent is the first process of its namespace: when it ends, the kernel ends all others there. It writes the
    worker's exit status to `told`, which the worker does not have.
    """
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(spec["said"], 1)
        os.dup2(spec["said"], 2)
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if not spec["namespaces"]:
            worker(spec)
        enter_namespaces()
        first = os.fork()
        if first:
            _, status = os.waitpid(first, 0)
            os._exit(0 if status == 0 else 1)
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        prctl(PR_SET_DUMPABLE, 0)
        build_root(spec["root"], spec["readable"], spec["room"])
        only = os.fork()
        if not only:
            worker(spec)
        while True:
            ended, status = os.wait()
            if ended == only:
                os.write(told, b"%d" % status)
                os._exit(0)
    except BaseException as error:
        os.write(told, f"cannot start: {error}".encode()[:300])
        os._exit(1)


def below(ancestor: int) -> list[int]:
    """All processes that descend from `ancestor`, zombies included, where the system shows processes (/proc)."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if entry.isdigit():
            # A process that ends while it is looked at is none.
            with contextlib.suppress(OSError, ValueError, IndexError):
                with open(f"/proc/{entry}/stat", "rb") as file:
                    parent = int(file.read().rpartition(b")")[2].split()[1])  # its name may hold any letters
                children.setdefault(parent, []).append(int(entry))
    found, waiting = list[int](), [ancestor]
    while waiting:
        inner = children.get(waiting.pop(), [])
        found += inner
        waiting += inner
    return found


def reap(main: int) -> int | None:
    """Bury what has ended. Gives the wait status of `main` where it is among them."""
    status = None
    with contextlib.suppress(ChildProcessError):
        while True:
            ended, said = os.waitpid(-1, os.WNOHANG)
            if ended == 0:
                break
            if ended == main:
                status = said
    return status


def end_all(main: int) -> bool:
    """End `main`, its group and every process that descends from the keeper. Gives whether none is left."""
    until = time.monotonic() + 30
    while True:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(main, signal.SIGKILL)
        reap(main)
        left = below(os.getpid())
        # All are stopped before the first is killed, so that none can start another meanwhile.
        for sign in (signal.SIGSTOP, signal.SIGKILL):
            for process in left:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(process, sign)
        if not left or time.monotonic() > until:
            return not left
        time.sleep(0.002)


def size_of(folder: str) -> int:
    """The bytes that all files in `folder` take on the disk."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_blocks * 512
    return total


def watch(spec: dict[str, Any], main: int) -> tuple[int | None, str]:
    """Wait for `main`: its wait status where it ended by itself, or what it did that ended it."""
    until, looked = time.monotonic() + spec["timeout"], 0.0
    while True:
        status = reap(main)
        if status is not None:
            return status, ""
        now = time.monotonic()
        if now > until:
            return None, f"the code did not end within {spec['timeout']:g} s"
        if now - looked > LOOK:
            looked = now
            if len(below(os.getpid())) > spec["processes"]:
                return None, f"the code started more than {spec['processes']} processes"
            if size_of(spec["room"]) > spec["disk"]:
                return None, f"the code wrote more than {spec['disk']:,} bytes"
        time.sleep(POLL)


def keep(spec: dict[str, Any]) -> dict[str, Any]:
    """Run what `spec` names to its end. Gives `status`, as of os.wait, or None, and `why` it was ended."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    prctl(PR_SET_DUMPABLE, 0)
    heard, told = os.pipe()
    main = os.fork()
    if not main:
        os.close(heard)
        start(spec, told)
    os.close(told)
    status, why = watch(spec, main)
    clean = end_all(main)
    with os.fdopen(heard, "rb") as file:
        message = file.read(400).decode(errors="replace")
    if message.startswith("cannot start"):
        status, why = None, message
    elif spec["namespaces"] and not why:
        status, why = (int(message), "") if message.isdigit() else (None, "the code ended its keeper")
    if not clean:
        why = "the code left a process that could not be ended"
    return {"status": status, "why": why}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(keep(json.load(sys.stdin))))
