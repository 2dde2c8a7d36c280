"""Archives that somebody else made: zip and tar, checked before what is in them is trusted.

Of a zip everything is checked by its directory before the first byte is written; a tar has none, so each member is
checked when it is met, in a folder that nobody sees before all of it is there.
"""

import bz2
import contextlib
import errno
import gzip
import io
import lzma
import stat
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from bantam.errors import BantamError, CannotWrite
from bantam.files import one_line

CENTRAL_HEADER = b"PK\x01\x02"
"""Stands at the beginning of each entry of a zip's directory, so there are at most as many entries as of these."""

LOCAL_HEADER = 30
"""Bytes before the name of a file where its packed bytes are."""

RATIO_FROM = 2**20
"""Files up to this size, in bytes, may be packed as well as they like."""

METHODS = {
    zipfile.ZIP_STORED: "stored",
    zipfile.ZIP_DEFLATED: "deflate",
    zipfile.ZIP_BZIP2: "bzip2",
    zipfile.ZIP_LZMA: "lzma",
}

_PIECE = 2**20
_MOST_AT_ONCE = 2**24  # a tar's own headers are read whole
_BLOCK = 512  # POSIX.1-2008, pax: headers and data of a tar come in blocks, and a block of zeros ends it


@dataclass(frozen=True)
class Limits:
    """What an archive may hold, and the error that says that it does not.

    `ratio` is how many times as large as packed a file may be, where it is larger than RATIO_FROM; deflate reaches
    1,032. `caseless` takes two names for one that differ in capitals alone, as some file systems do.
    """

    files: int
    total: int
    ratio: int
    methods: frozenset[int]
    refusal: type[BantamError]
    name_bytes: int = 100
    depth: int = 10
    caseless: bool = True
    needless: Callable[[str], bool] = lambda _name: False
    """Which files, by their names, nobody wants: they are neither unpacked nor looked at."""

    def same(self, name: str) -> str:
        """What two names have in common that would be one file: composed, and perhaps without case."""
        name = name.removeprefix("./").rstrip("/")
        return unicodedata.normalize("NFC", name.casefold() if self.caseless else name)


# --- zip


def check_entries(entries: Sequence[zipfile.ZipInfo], name: str, limits: Limits) -> None:
    """Refuse by what a zip's directory says. `name` is for the messages. Raises the refusal of `limits`."""
    seen: set[str] = set()
    for entry in entries:
        shown = entry.filename[:60]
        # The name as it is stored: zipfile cuts it at a zero byte.
        if why := unsafe_name(entry.orig_filename.removeprefix("./"), limits):
            raise limits.refusal(f"{name} holds {shown!r}, {why}; nothing was unpacked")
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            what = "a link" if kind == stat.S_IFLNK else "a special file"
            raise limits.refusal(f"{name} holds {shown!r}, which is {what}; nothing was unpacked")
        if entry.flag_bits & 1:
            raise limits.refusal(f"{name} holds {shown!r}, which has a password; nothing was unpacked")
        if entry.compress_type not in limits.methods:
            known = " or ".join(METHODS[method] for method in sorted(limits.methods) if method)
            raise limits.refusal(f"{name} holds {shown!r}, packed by a method other than {known}; nothing was unpacked")
        if limits.same(entry.filename) in seen:
            raise limits.refusal(f"{name} holds {shown!r} twice; nothing was unpacked")
        seen.add(limits.same(entry.filename))
        if entry.file_size > RATIO_FROM and entry.file_size > limits.ratio * max(1, entry.compress_size):
            raise limits.refusal(
                f"{name} holds {shown!r}, which would unpack to {entry.file_size:,} bytes from "
                f"{entry.compress_size:,}; nothing was unpacked"
            )
    files = {limits.same(entry.filename) for entry in entries if not entry.is_dir()}
    for entry in entries:
        parts = limits.same(entry.filename).split("/")
        if any("/".join(parts[:depth]) in files for depth in range(1, len(parts))):
            raise limits.refusal(f"{name} holds {entry.filename[:60]!r}, below what is a file; nothing was unpacked")
    total = sum(entry.file_size for entry in entries)
    if total > limits.total:
        raise limits.refusal(
            f"{name} would unpack to {total:,} bytes, more than {limits.total:,}; nothing was unpacked"
        )


def check_places(entries: Sequence[zipfile.ZipInfo], directory: int, name: str, limits: Limits) -> None:
    """Refuse entries whose packed bytes overlap, of which bombs are made. `directory` is where that of the zip begins.

    Fifield, A better zip bomb, USENIX WOOT 2019. Raises the refusal of `limits`.
    """
    ordered = sorted(entries, key=lambda entry: entry.header_offset)
    starts = [*(entry.header_offset for entry in ordered), directory]
    for entry, following in zip(ordered, starts[1:], strict=True):
        if entry.header_offset + LOCAL_HEADER + len(entry.orig_filename) + entry.compress_size > following:
            raise limits.refusal(
                f"{name} holds {entry.filename[:60]!r}, whose bytes are another file's too; nothing was unpacked"
            )


def unsafe_name(path: str, limits: Limits) -> str:
    """Why a member named `path` must not be written below a folder, or nothing."""
    if path.startswith(("/", "\\")) or path[1:2] == ":":
        return "an absolute path"
    if ".." in path.replace("\\", "/").split("/"):
        return "a path that leads out of the folder"
    if "\\" in path or any(ord(letter) < 32 or ord(letter) == 127 for letter in path):
        return "a name with a backslash or a control character"
    parts = path.removesuffix("/").split("/")
    if (
        not all(part.strip(" .") for part in parts)
        or any(len(part.encode(errors="surrogateescape")) > limits.name_bytes for part in parts)
        or len(parts) > limits.depth
    ):
        return "an empty, dotted or overlong path"
    return ""


def unpack_zip(path: Path, folder: Path, limits: Limits, room: int) -> None:
    """Write the files of a zip into the empty `folder`, at most `room` bytes.

    Raises the refusal of `limits`, and CannotWrite.
    """
    with _explained(path, limits), open(path, "rb") as file:
        # Counted in the raw bytes, because opening a zip with millions of entries would already exhaust the memory.
        # Zips that lie unpacked inside have some of their own.
        if _headers(file) > 2 * limits.files:
            raise limits.refusal(f"{path} holds more than {limits.files:,} files; nothing was unpacked")
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            if len(entries) > limits.files:
                raise limits.refusal(f"{path} holds more than {limits.files:,} files; nothing was unpacked")
            entries = [entry for entry in entries if not limits.needless(PurePosixPath(entry.filename).name)]
            check_entries(entries, str(path), limits)
            check_places(entries, archive.start_dir, str(path), limits)
            _require_room(sum(entry.file_size for entry in entries), room, path)
            for entry in entries:
                if not entry.is_dir():
                    with archive.open(entry) as source:
                        _write(source, folder / entry.filename, entry.file_size, limits, path)


def _require_room(total: int, room: int, path: Path) -> None:
    if total > room:
        raise CannotWrite(
            f"cannot unpack {path}: it needs {total:,} bytes or more and there are {max(room, 0):,} to spare; "
            "free some space, or set BANTAM_CACHE to another folder"
        )


def _headers(file: IO[bytes]) -> int:
    found, before = 0, b""
    while piece := file.read(_PIECE):
        found += (before + piece).count(CENTRAL_HEADER)
        before = piece[-len(CENTRAL_HEADER) + 1 :]
    file.seek(0)
    return found


def _write(source: IO[bytes], path: Path, size: int, limits: Limits, archive: Path) -> None:
    """An ordinary file of exactly `size` bytes, which nobody may execute."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with open(path, "xb") as file:
        while written <= size and (piece := source.read(_PIECE)):
            written += len(piece)
            file.write(piece)
    if written != size:
        raise limits.refusal(f"{archive} holds {path.name[:60]!r} of another size than it announces; pack it anew")


# --- tar


def unpack_tar(path: Path, folder: Path, limits: Limits, room: int) -> None:
    """Write the files of a tar, packed or not, into the empty `folder`, at most `room` bytes.

    Raises the refusal of `limits`, and CannotWrite; `folder` then holds a part, which the caller removes.
    """
    size = path.stat().st_size
    most = min(limits.total, max(RATIO_FROM, limits.ratio * size)) + _PIECE
    with _explained(path, limits), contextlib.ExitStack() as stack:
        stream = _Bounded(stack.enter_context(_unpacked(path)), most)
        archive = stack.enter_context(tarfile.open(fileobj=stream, mode="r:"))
        seen: dict[str, bool] = {}
        total = 0
        for number, member in enumerate(archive, start=1):
            if number > limits.files:
                raise limits.refusal(f"{path} holds more than {limits.files:,} files; nothing was unpacked")
            name = member.name.removeprefix("./")
            if limits.needless(PurePosixPath(name).name) or (name in ("", ".") and member.isdir()):
                continue
            total += member.size
            _check_member(member, name, path, limits)
            _check_place(name, member.isdir(), seen, path, limits)
            if total > most:
                raise limits.refusal(
                    f"{path} would unpack to {total:,} bytes or more from {size:,}; nothing was unpacked"
                )
            _require_room(total, room, path)
            archive.extract(member, folder, set_attrs=False, filter="data")
        # tarfile takes whatever is no header for the end, so a damaged or shortened archive would end early.
        stream.seek(archive.offset)
        if stream.read(_BLOCK) != bytes(_BLOCK):
            raise limits.refusal(f"{path} is damaged or cut short; get it anew, or pack it anew")
        while stream.read(_PIECE):  # to the check sum behind the packed bytes
            pass


def _check_member(member: tarfile.TarInfo, name: str, path: Path, limits: Limits) -> None:
    why = unsafe_name(name, limits)
    if not why and (member.issparse() or not (member.isfile() or member.isdir())):
        why = "which is a link" if member.issym() or member.islnk() else "which is a special file"
    if not why and member.size < 0:
        why = "of a size below 0"
    if why:
        raise limits.refusal(f"{path} holds {member.name[:60]!r}, {why}; nothing was unpacked")


def _check_place(name: str, is_folder: bool, seen: dict[str, bool], path: Path, limits: Limits) -> None:
    """Refuse a file that is there already, or lies below one. `seen` has the names so far, and which are folders."""
    same = limits.same(name)
    parts = same.split("/")
    for above in ("/".join(parts[:depth]) for depth in range(1, len(parts))):
        if not seen.setdefault(above, True):
            raise limits.refusal(f"{path} holds {name[:60]!r}, below what is a file; nothing was unpacked")
    if same in seen and not (is_folder and seen[same]):
        raise limits.refusal(f"{path} holds {name[:60]!r} twice; nothing was unpacked")
    seen[same] = is_folder


class _Bounded(io.RawIOBase):
    """A stream that ends in an error after `most` bytes, and where much is asked for at once, as forged headers do."""

    def __init__(self, inner: IO[bytes], most: int) -> None:
        self.inner, self.most = inner, most

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MOST_AT_ONCE:
            raise ValueError("a header announces an impossible size")
        data = self.inner.read(size)
        if self.inner.tell() > self.most:
            raise ValueError(f"it would unpack to more than {self.most:,} bytes")
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        if not 0 <= offset <= self.most:
            raise ValueError("a header announces an impossible size")
        return self.inner.seek(offset, whence)

    def tell(self) -> int:
        return self.inner.tell()


_PACKED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}


def _unpacked(path: Path) -> IO[bytes]:
    head = head_of(path)
    opened = next((opened for magic, opened in _PACKED.items() if head.startswith(magic)), open)
    return opened(path, "rb")  # pyright: ignore[reportReturnType]


# --- what a file is


def head_of(path: Path) -> bytes:
    """The first block of a file."""
    with open(path, "rb") as file:
        return file.read(_BLOCK)


def is_zip(head: bytes) -> bool:
    """Whether a file that begins so is a zip, perhaps an empty one."""
    return head.startswith((b"PK\x03\x04", b"PK\x05\x06"))


def is_tar(head: bytes) -> bool:
    """Whether a file that begins so is a tar, or is packed as these are."""
    return head[257:262] == b"ustar" or head.startswith(tuple(_PACKED))


@contextlib.contextmanager
def _explained(path: Path, limits: Limits) -> Iterator[None]:
    """Turn whatever zipfile, tarfile and the decoders raise on damaged bytes into one line."""
    try:
        yield
    except BantamError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS, errno.EPERM, errno.EIO):
            raise CannotWrite(
                f"cannot unpack {path}: {error.strerror or error}; "
                "free some space, or set BANTAM_CACHE to another folder"
            ) from error
        raise limits.refusal(f"{path} is no whole archive: {one_line(error)}; pack it anew") from error
    except (
        *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError),
        *(ValueError, IndexError, KeyError, RuntimeError, NotImplementedError, OverflowError),
    ) as error:
        raise limits.refusal(f"{path} is no whole archive: {one_line(error)}; pack it anew") from error
