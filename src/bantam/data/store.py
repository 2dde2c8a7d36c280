"""The cache's folder: where it is, and that one process at a time builds in it."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from bantam.files import explained

TEMPORARY = ".building"
"""How the name of whatever is being built begins; it is renamed when it is whole."""

ELSEWHERE = "set BANTAM_CACHE to another folder"
"""What to do where the cache cannot be written."""


def default_cache_dir() -> Path:
    """BANTAM_CACHE from the environment, otherwise ~/.cache/bantam."""
    return Path(os.environ.get("BANTAM_CACHE") or Path.home() / ".cache" / "bantam")


@contextlib.contextmanager
def building_alone(cache_dir: Path) -> Iterator[None]:
    """Hold the cache's lock, which the system releases if this process dies, and remove dead builds."""
    with contextlib.ExitStack() as stack:
        with explained(cache_dir, ELSEWHERE):
            cache_dir.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context(open(cache_dir / "lock", "a"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in cache_dir.glob(f"{TEMPORARY}-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        # One of these may be in use just now; the hashes it holds are then computed once more.
        for leftover in cache_dir.glob("hashes/.*.tmp"):
            leftover.unlink(missing_ok=True)
        yield
