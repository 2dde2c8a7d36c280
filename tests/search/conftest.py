"""A private PostgreSQL server in a temporary folder, run by an ordinary user."""

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from private_server import Server

DEBIAN = Path("/usr/lib/postgresql")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A running server; skips where Debian's package postgresql, or something like it, is not installed."""
    places = sorted(DEBIAN.glob("*/bin"), reverse=True)
    on_path = shutil.which("initdb")
    places += [Path(on_path).resolve().parent] if on_path else []
    programs = next((place for place in places if (place / "initdb").exists()), None)
    if programs is None:
        pytest.skip("no PostgreSQL server is installed here (Debian: apt-get install postgresql)")
    as_user: list[str] = []
    folder = Path(tempfile.mkdtemp(prefix="bantam-postgresql-"))
    if os.geteuid() == 0:
        # The server refuses to be run by root.
        as_user = ["runuser", "-u", "nobody", "--"]
        shutil.chown(folder, "nobody")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Server(folder, programs, as_user, port)
    try:
        trusting = ["--auth", "trust", "--username", "bantam", "--no-sync"]
        server.call("initdb", "--pgdata", str(folder / "data"), *trusting)
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
