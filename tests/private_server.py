"""A private PostgreSQL server, for the tests that share a study. It ends with the process that started it.

The server is the child of a guard, a process of this file, which is told what to do on its standard input. When that
ends, because the tests have or because they were killed, or when its parent is another, the guard stops the server and
deletes its folder. Where the guard itself is killed, the system stops the server.
"""

import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from children import bound_to_parent

SECONDS = 120


class Server:
    """A running server of the programs in the folder `programs`."""

    def __init__(self, programs: Path) -> None:
        self.programs = programs
        # In a session of its own, so that Ctrl-C and the end of a group of processes do not reach it.
        self.guard = subprocess.Popen(
            [sys.executable, __file__, str(programs)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, start_new_session=True,
        )  # fmt: skip
        self.folder, self.port, self.process = Path(self.reply()), int(self.reply()), int(self.reply())

    def reply(self) -> str:
        assert self.guard.stdout is not None
        line = self.guard.stdout.readline()
        assert line, "the PostgreSQL server did not start; its guard has said why"
        return line.rstrip("\n")

    def url(self, database: str) -> str:
        return f"postgresql://bantam@127.0.0.1:{self.port}/{database}"

    def database(self, name: str) -> str:
        """Make an empty database; gives its URL."""
        words = ["--host", "127.0.0.1", "--port", str(self.port), "--username", "bantam", name]
        done = subprocess.run([self.programs / "createdb", *words], capture_output=True, text=True, timeout=SECONDS)
        assert done.returncode == 0, done.stderr
        return self.url(name)

    def start(self) -> None:
        self.told("start")

    def stop(self) -> None:
        self.told("stop")

    def told(self, what: str) -> None:
        assert self.guard.stdin is not None
        self.guard.stdin.write(f"{what}\n")
        assert self.reply() == what

    def close(self) -> None:
        """Stop the server and delete its folder."""
        assert self.guard.stdin is not None
        self.guard.stdin.close()
        assert self.guard.wait(SECONDS) == 0


class Guarded:
    """The server as its guard knows it: run by an ordinary user, for PostgreSQL refuses to be run by root."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.programs, self.folder = programs, folder
        self.user = "nobody" if os.geteuid() == 0 else None
        if self.user:
            shutil.chown(folder, self.user)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        trusting = ["--auth", "trust", "--username", "bantam", "--no-sync", "--locale", "C", "--encoding", "UTF8"]
        self.begun("initdb", "--pgdata", str(folder / "data"), *trusting).wait(SECONDS)
        self.server = self.start()

    def begun(self, program: str, *words: str) -> subprocess.Popen[bytes]:
        with open(self.folder / "log", "ab") as log:
            return subprocess.Popen(
                [self.programs / program, *words],
                cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, user=self.user,
                extra_groups=[] if self.user else None, umask=0o077,
                preexec_fn=bound_to_parent(signal.SIGQUIT),  # PostgreSQL's "immediate shutdown", children included
            )  # fmt: skip

    def start(self) -> subprocess.Popen[bytes]:
        settings = {"listen_addresses": "127.0.0.1", "port": self.port, "fsync": "off", "unix_socket_directories": ""}
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self.server = self.begun("postgres", "-D", str(self.folder / "data"), *words)
        ready = [self.programs / "pg_isready", "--host", "127.0.0.1", "--port", str(self.port), "--quiet"]
        while subprocess.run(ready, timeout=SECONDS).returncode:
            assert self.server.poll() is None, (self.folder / "log").read_text(errors="replace")
        return self.server

    def stop(self) -> None:
        self.server.send_signal(signal.SIGQUIT)
        self.server.wait(SECONDS)


def guard(programs: Path, parent: int) -> None:
    """Start a server, say where it is, do as told, and end it with the process `parent`."""
    folder = Path(tempfile.mkdtemp(prefix="bantam-postgresql-"))
    try:
        own = Guarded(programs, folder)
        try:
            print(folder, own.port, own.server.pid, sep="\n", flush=True)
            while os.getppid() == parent:
                if not select.select([sys.stdin], [], [], 1)[0]:
                    continue
                if not (told := sys.stdin.readline()):
                    break
                (own.start if told.strip() == "start" else own.stop)()
                print(told, end="", flush=True)
        finally:
            own.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    guard(Path(sys.argv[1]), os.getppid())
