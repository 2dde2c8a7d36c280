"""Unpacking a zip that somebody else made: everything is checked before the first byte is written."""

import stat
import unicodedata
import zipfile
import zlib
from io import BytesIO
from pathlib import Path

from bantam.errors import BadPackage

MAX_ARCHIVE = 64 * 2**20
"""Largest zip file, in bytes."""

MAX_TOTAL = 256 * 2**20
"""Most bytes that all files have together once unpacked."""

MAX_RATIO = 200
"""How many times as large as packed a file may be, where it is larger than RATIO_FROM. Deflate reaches 1,032."""

RATIO_FROM = 2**20

MAX_FILES = 100

CENTRAL_HEADER = b"PK\x01\x02"
"""Stands at the beginning of each entry of a zip's directory, so there are at most as many entries as of these."""

MOST_HEADERS = 20_000
"""Most of these in the raw bytes: zips that lie unpacked inside have some of their own."""

LOCAL_HEADER = 30
"""Bytes before the name of a file where its packed bytes are."""


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
            check_entries(entries, name)
            check_places(entries, archive.start_dir, name)
            return {entry.filename: read_entry(archive, entry, name) for entry in entries if not entry.is_dir()}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise BadPackage(f"{name} is not a whole zip file: {reason}; make it anew with `bantam package RUN`") from error


def check_entries(entries: list[zipfile.ZipInfo], name: str) -> None:
    """Refuse by what the directory says, before anything is unpacked. Raises BadPackage."""
    seen: set[str] = set()
    for entry in entries:
        shown = entry.filename[:60]
        if why := unsafe_name(entry):
            raise BadPackage(f"{name} holds {shown!r}, {why}; nothing was unpacked")
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            what = "a link" if kind == stat.S_IFLNK else "a special file"
            raise BadPackage(f"{name} holds {shown!r}, which is {what}; nothing was unpacked")
        if entry.flag_bits & 1:
            raise BadPackage(f"{name} holds {shown!r}, which has a password; nothing was unpacked")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise BadPackage(f"{name} holds {shown!r}, packed by a method other than deflate; nothing was unpacked")
        # Without case and composed, because not every file system keeps them apart.
        same = unicodedata.normalize("NFC", entry.filename.rstrip("/").casefold())
        if same in seen:
            raise BadPackage(f"{name} holds {shown!r} twice; nothing was unpacked")
        seen.add(same)
        if entry.file_size > RATIO_FROM and entry.file_size > MAX_RATIO * max(1, entry.compress_size):
            raise BadPackage(
                f"{name} holds {shown!r}, which would unpack to {entry.file_size:,} bytes from "
                f"{entry.compress_size:,}; nothing was unpacked"
            )
    files = {entry.filename.casefold() for entry in entries if not entry.is_dir()}
    for entry in entries:
        parts = entry.filename.casefold().split("/")
        if any("/".join(parts[:depth]) in files for depth in range(1, len(parts))):
            raise BadPackage(f"{name} holds {entry.filename[:60]!r}, below what is a file; nothing was unpacked")
    total = sum(entry.file_size for entry in entries)
    if total > MAX_TOTAL:
        raise BadPackage(f"{name} would unpack to {total:,} bytes, more than {MAX_TOTAL:,}; nothing was unpacked")


def check_places(entries: list[zipfile.ZipInfo], directory: int, name: str) -> None:
    """Refuse entries whose packed bytes overlap, of which bombs are made. `directory` is where that of the zip begins.

    Fifield, A better zip bomb, USENIX WOOT 2019. Raises BadPackage.
    """
    ordered = sorted(entries, key=lambda entry: entry.header_offset)
    for entry, following in zip(ordered, [*[other.header_offset for other in ordered[1:]], directory], strict=True):
        if entry.header_offset + LOCAL_HEADER + len(entry.orig_filename) + entry.compress_size > following:
            raise BadPackage(
                f"{name} holds {entry.filename[:60]!r}, whose bytes are another file's too; nothing was unpacked"
            )


def unsafe_name(entry: zipfile.ZipInfo) -> str:
    """Why the name of `entry` must not be written below a folder, or nothing."""
    # The name as it is stored: zipfile cuts it at a zero byte.
    path = entry.orig_filename
    if path.startswith(("/", "\\")) or path[1:2] == ":":
        return "an absolute path"
    if ".." in path.replace("\\", "/").split("/"):
        return "a path that leads out of the folder"
    if "\\" in path or any(ord(letter) < 32 or ord(letter) == 127 for letter in path):
        return "a name with a backslash or a control character"
    parts = path.removesuffix("/").split("/")
    if (
        not all(part.strip(" .") for part in parts)
        or any(len(part.encode()) > 100 for part in parts)
        or len(parts) > 10
    ):
        return "an empty, dotted or overlong path"
    return ""


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
