"""A private PostgreSQL server, for the tests that share a study."""

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Server:
    """A cluster in `folder`; `as_user` are the words before a command that let an ordinary user run it."""

    folder: Path
    programs: Path
    as_user: list[str]
    port: int

    def url(self, database: str) -> str:
        return f"postgresql://bantam@127.0.0.1:{self.port}/{database}"

    def call(self, program: str, *words: str) -> None:
        command = [*self.as_user, str(self.programs / program), *words]
        done = subprocess.run(command, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=120)
        assert done.returncode == 0, done.stderr.decode()

    def start(self) -> None:
        settings = f"-c listen_addresses=127.0.0.1 -c port={self.port} -c fsync=off -c unix_socket_directories="
        log, data = str(self.folder / "log"), str(self.folder / "data")
        self.call("pg_ctl", "start", "--wait", "--pgdata", data, "--log", log, "--options", settings)

    def stop(self) -> None:
        self.call("pg_ctl", "stop", "--wait", "--mode", "immediate", "--pgdata", str(self.folder / "data"))

    def database(self, name: str) -> str:
        """Make an empty database; gives its URL."""
        self.call("createdb", "--host", "127.0.0.1", "--port", str(self.port), "--username", "bantam", name)
        return self.url(name)
