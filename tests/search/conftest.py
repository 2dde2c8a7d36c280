"""A private PostgreSQL server in a temporary folder, run by an ordinary user."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from private_server import Server

DEBIAN = Path("/usr/lib/postgresql")


@pytest.fixture(scope="session")
def postgresql_programs() -> Path:
    """The server's programs; skips where Debian's package postgresql, or something like it, is not installed."""
    places = sorted(DEBIAN.glob("*/bin"), reverse=True)
    on_path = shutil.which("initdb")
    places += [Path(on_path).resolve().parent] if on_path else []
    programs = next((place for place in places if (place / "initdb").exists()), None)
    if programs is None:
        pytest.skip("no PostgreSQL server is installed here (Debian: apt-get install postgresql)")
    return programs


@pytest.fixture(scope="session")
def postgresql(postgresql_programs: Path) -> Iterator[Server]:
    server = Server(postgresql_programs)
    yield server
    server.close()
