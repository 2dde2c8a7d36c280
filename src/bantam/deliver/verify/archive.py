"""Unpacking a zip that somebody else made: everything is checked before the first byte is written."""

import zipfile
import zlib
from io import BytesIO
from pathlib import Path

from bantam.archives import CENTRAL_HEADER, Limits, check_entries, check_places
from bantam.errors import BadPackage

MAX_ARCHIVE = 64 * 2**20
"""Largest zip file, in bytes."""

MAX_TOTAL = 256 * 2**20
"""Most bytes that all files have together once unpacked."""

MAX_RATIO = 200
"""How many times as large as packed a file may be, where it is larger than a mebibyte. Deflate reaches 1,032."""

MAX_FILES = 100

DEFLATED = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""The methods by which files may be packed."""

MOST_HEADERS = 20_000
"""Most of these in the raw bytes: zips that lie unpacked inside have some of their own."""


def read_bytes(path: Path) -> bytes:
    """The bytes of a file of at most MAX_ARCHIVE. Raises BadPackage."""
    try:
        if not path.is_file():  # a device or a pipe has no end
            raise BadPackage(f"cannot read {path}: there is no such file; check the path")
        if path.stat().st_size > MAX_ARCHIVE:
            raise BadPackage(
                f"{path} is larger than {MAX_ARCHIVE:,} bytes, which no code package is; it was not opened"
            )
        return path.read_bytes()
    except OSError as error:
        raise BadPackage(f"cannot read {path}: {error.strerror or error}; check the path") from error


def contents(data: bytes, name: str, max_files: int = MAX_FILES) -> dict[str, bytes]:
    """The files in the zip `data` by their names, which are plain relative ones; folders are left out.

    `name` is for the messages. Raises BadPackage for what is no zip, has a path out of the folder, a link or another
    special file, a name twice, a password, too many files or bytes, files that share bytes, or wrong checksums.
    """
    too_many = BadPackage(f"{name} holds more than {max_files} files; nothing was unpacked")
    # Counted in the raw bytes, because opening a zip with millions of entries would already exhaust the memory.
    if data.count(CENTRAL_HEADER) > MOST_HEADERS:
        raise too_many
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            entries = archive.infolist()
            if len(entries) > max_files:
                raise too_many
            limits = Limits(max_files, MAX_TOTAL, MAX_RATIO, DEFLATED, BadPackage)
            check_entries(entries, name, limits)
            check_places(entries, archive.start_dir, name, limits)
            return {entry.filename: read_entry(archive, entry, name) for entry in entries if not entry.is_dir()}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise BadPackage(f"{name} is not a whole zip file: {reason}; make it anew with `bantam package RUN`") from error


def read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str) -> bytes:
    """The bytes of one entry: at most as many as its directory announces. Raises BadPackage."""
    with archive.open(entry) as file:
        data = file.read(entry.file_size + 1)
    if len(data) != entry.file_size:
        raise BadPackage(
            f"{name} holds {entry.filename[:60]!r} of another size than it announces; nothing was unpacked"
        )
    return data


def write_contents(files: dict[str, bytes], folder: Path) -> None:
    """Write what `contents` returned into the empty `folder`, as ordinary files that nobody may execute."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "xb") as file:
            file.write(data)
