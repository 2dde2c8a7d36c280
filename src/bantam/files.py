"""Files that a reader never sees by half, and that show when they were damaged.

Writing: a temporary name that nobody else has, flush to the disk, rename, flush the folder. What is written as a sealed
file holds a SHA-256 of its own content, so a changed bit is found when it is read; files from before there were seals
are read as they are.
"""

import contextlib
import hashlib
import json
import os
import secrets
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

from bantam.errors import CannotWrite, NotFinite

SEAL = "sha256"
"""The key of a sealed file that holds the SHA-256 of all its other keys."""


@contextlib.contextmanager
def explained(path: Path, instead: str = "choose another output folder") -> Iterator[None]:
    """Turn the operating system's refusal to write `path` into a CannotWrite that says what to do."""
    try:
        yield
    except OSError as error:
        raise CannotWrite(f"cannot write {path}: {error.strerror or error}; free some space or {instead}") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary file beside `path`, empty; rename it to `path` when the block ends without an error.

    The old file stays as it was until the rename, and for good if the block raises. After the block the new file is on
    the disk, and so is its name.
    """
    temporary: Path | None = None
    try:
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = _created_beside(path)
            yield temporary
            with open(temporary, "rb") as written:
                os.fsync(written.fileno())
            os.replace(temporary, path)
            sync_folder(path.parent)
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()


def _created_beside(path: Path) -> Path:
    """A new empty file that this call has created: in other containers other processes may have the same number."""
    while True:
        temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
        with contextlib.suppress(FileExistsError):
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            return temporary


def sync_folder(folder: Path) -> None:
    """Flush to the disk which files `folder` has; does nothing where the system cannot."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[IO[str]]:
    """Open `path` for text (UTF-8, no newline translation) under a temporary name, then rename."""
    # Names of files may hold bytes that are no UTF-8: they are written as they are.
    with (
        replacing(path) as temporary,
        open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        yield file


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` whole or not at all."""
    with writing(path) as file:
        file.write(text)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON to `path` whole or not at all. Raises NotFinite for NaN and infinities."""
    try:
        text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    except ValueError as error:
        raise NotFinite(f"cannot write {path}: a number in it is not finite ({error})") from error
    write_text(path, text)


def sealed(value: dict[str, Any]) -> dict[str, Any]:
    """`value` as JSON gives it back, with its seal."""
    rest = json.loads(json.dumps({name: item for name, item in value.items() if name != SEAL}))
    return {**rest, SEAL: _seal_of(rest)}


def write_sealed(path: Path, value: dict[str, Any]) -> dict[str, Any]:
    """Write `value` with its seal as JSON to `path`, whole or not at all; gives what was written."""
    whole = sealed(value)
    write_json(path, whole)
    return whole


def read_sealed(path: Path) -> dict[str, Any]:
    """The table in the JSON file `path`, without its seal. Raises OSError, and ValueError for a damaged file."""
    return unsealed(path.read_bytes())


def unsealed(data: bytes) -> dict[str, Any]:
    """The table in JSON `data`, without its seal. Raises ValueError where it is none, or its seal does not fit."""
    try:
        value = json.loads(data.decode("utf-8"), parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("it is no table")
    seal = value.pop(SEAL, None)
    if seal is not None and seal != _seal_of(value):
        raise ValueError(
            "it was changed after it was written: its sha256 does not fit (take that out if you changed it)"
        )
    return value


def _seal_of(value: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def sha256_of(path: Path) -> str:
    """The hexadecimal SHA-256 of a file. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_whole_archive(source: Path | IO[bytes]) -> None:
    """Raises ValueError unless `source` is a zip archive, as torch.save writes, in which every CRC-32 fits."""
    try:
        with zipfile.ZipFile(source) as archive:
            broken = archive.testzip()
    # The archive's own tables may be damaged too, and then zipfile fails in many ways.
    except Exception as error:
        raise ValueError(one_line(error)) from error
    if broken is not None:
        raise ValueError(f"the CRC-32 of {broken} does not fit")


def one_line(error: Exception) -> str:
    """What `error` says, at most 200 characters in one line; its type where it says nothing."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def sweep(folder: Path) -> None:
    """Delete the temporary files that a killed process left in `folder`."""
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink(missing_ok=True)
