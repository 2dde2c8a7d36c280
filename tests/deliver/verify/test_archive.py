"""Every kind of hostile zip is refused before a byte is written."""

import io
import os
import stat
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bantam.deliver.verify import archive
from bantam.errors import BadPackage


def zipped(*entries: tuple[str | zipfile.ZipInfo, bytes], packed: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        with zipfile.ZipFile(buffer, "w", packed) as file:
            for name, data in entries:
                file.writestr(name, data, packed)
    return buffer.getvalue()


def special(kind: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo("link")
    entry.create_system = 3
    entry.external_attr = (kind | 0o777) << 16
    return entry


def patched(data: bytes, offset_in_directory: int, form: str, value: int) -> bytes:
    """`data` with a number of its first directory entry changed."""
    place = data.index(archive.CENTRAL_HEADER) + offset_in_directory
    return data[:place] + struct.pack(form, value) + data[place + struct.calcsize(form) :]


def overlapping() -> bytes:
    """Two names for the same packed bytes: the second entry of the directory points at the first file."""
    data = zipped(("a", b"x" * 5000), ("b", b"x" * 5000))
    second = data.rindex(archive.CENTRAL_HEADER)
    return data[: second + 42] + struct.pack("<I", 0) + data[second + 46 :]


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "traversal": (lambda: zipped(("../evil.py", b"x")), "out of the folder"),
    "deep traversal": (lambda: zipped(("a/../../evil.py", b"x")), "out of the folder"),
    "backslash traversal": (lambda: zipped(("..\\evil.py", b"x")), "out of the folder"),
    "absolute": (lambda: zipped(("/etc/evil", b"x")), "absolute"),
    "drive": (lambda: zipped(("C:evil", b"x")), "absolute"),
    "backslash": (lambda: zipped(("a\\b", b"x")), "backslash"),
    "control character": (lambda: zipped(("a\nb", b"x")), "control character"),
    "dotted part": (lambda: zipped(("a/./b", b"x")), "dotted"),
    "empty part": (lambda: zipped(("a//b", b"x")), "empty"),
    "long name": (lambda: zipped(("a" * 200, b"x")), "overlong"),
    "link": (lambda: zipped((special(stat.S_IFLNK), b"/etc/passwd")), "a link"),
    "device": (lambda: zipped((special(stat.S_IFCHR), b"")), "a special file"),
    "twice": (lambda: zipped(("hw13.py", b"good"), ("hw13.py", b"evil")), "twice"),
    "twice without case": (lambda: zipped(("hw13.py", b"good"), ("HW13.py", b"evil")), "twice"),
    "a file and a folder": (lambda: zipped(("a/", b""), ("a", b"x")), "twice"),
    "twice, composed and not": (lambda: zipped(("\u00e9", b"good"), ("e\u0301", b"evil")), "twice"),
    "below a file": (lambda: zipped(("a", b"x"), ("a/b", b"x")), "below what is a file"),
    "below a file without case": (lambda: zipped(("A/b", b"x"), ("a", b"x")), "below what is a file"),
    "long in bytes": (lambda: zipped(("\U0001f35c" * 60, b"x")), "overlong"),
    "overlapping": (overlapping, "another file's too"),
    "bomb": (lambda: zipped(("zeros", bytes(8 * 2**20))), "would unpack to"),
    "too much": (lambda: zipped(("a", b"x")), "more than"),
    "huge count": (lambda: zipped(*((f"{n}.txt", b"") for n in range(101))), "more than 100 files"),
    "password": (lambda: patched(zipped(("a", b"x")), 8, "<H", 1), "password"),
    "other method": (lambda: zipped(("a", b"x" * 100), packed=zipfile.ZIP_LZMA), "other than deflate"),
    "wrong checksum": (lambda: patched(zipped(("a", b"x" * 100)), 16, "<I", 7), "not a whole zip"),
    "announces less": (lambda: patched(zipped(("a", b"x" * 100)), 24, "<I", 5), "not a whole zip|another size"),
    "announces more": (lambda: patched(zipped(("a", b"x" * 100)), 24, "<I", 500), "not a whole zip|another size"),
    "cut off": (lambda: zipped(("a", b"x" * 100))[:-10], "not a whole zip"),
    "no zip": (lambda: b"#!/bin/sh\n", "not a whole zip"),
    "empty": (lambda: b"", "not a whole zip"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_zip_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, reason = HOSTILE[name]
    if name == "too much":
        monkeypatch.setattr(archive, "MAX_TOTAL", 0)
    with pytest.raises(BadPackage, match=reason) as refused:
        archive.contents(make(), "hw13.zip")
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith("hw13.zip")


def test_a_bomb_that_lies_about_its_size_unpacks_to_what_it_announced_at_most() -> None:
    bomb = patched(zipped(("zeros", bytes(8 * 2**20))), 24, "<I", 1000)
    with pytest.raises(BadPackage):
        archive.contents(bomb, "hw13.zip")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    large = tmp_path / "large.zip"
    with open(large, "wb") as file:
        file.truncate(archive.MAX_ARCHIVE + 1)
    with pytest.raises(BadPackage, match="larger than"):
        archive.read_bytes(large)
    os.mkfifo(tmp_path / "pipe.zip")
    for name in ("none.zip", "pipe.zip"):
        with pytest.raises(BadPackage, match="cannot read"):
            archive.read_bytes(tmp_path / name)


def test_headers_are_counted_before_a_zip_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MOST_HEADERS", 5)
    with pytest.raises(BadPackage, match="more than 100 files"):
        archive.contents(archive.CENTRAL_HEADER * 6, "hw13.zip")


def test_a_zip_with_many_files_may_lie_unpacked_inside() -> None:
    weights = zipped(*((f"w/data/{n}", b"x") for n in range(150)))
    assert archive.contents(zipped(("w.ckpt", weights), packed=zipfile.ZIP_STORED), "hw13.zip") == {"w.ckpt": weights}


def test_a_good_zip_unpacks_to_ordinary_files(tmp_path: Path) -> None:
    executable = zipfile.ZipInfo("run.sh")
    executable.external_attr = (stat.S_IFREG | 0o4777) << 16
    files = archive.contents(zipped(("a/", b""), ("a/b.txt", b"text"), (executable, b"#!")), "hw13.zip")
    assert files == {"a/b.txt": b"text", "run.sh": b"#!"}
    archive.write_contents(files, tmp_path)
    assert (tmp_path / "a" / "b.txt").read_bytes() == b"text"
    assert not (tmp_path / "run.sh").stat().st_mode & 0o6111


def test_the_total_is_of_all_files_together_and_may_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    data = zipped(("a", b"x" * 600), ("b", b"y" * 400))
    monkeypatch.setattr(archive, "MAX_TOTAL", 1000)
    assert sum(map(len, archive.contents(data, "z.zip").values())) == 1000
    monkeypatch.setattr(archive, "MAX_TOTAL", 999)
    with pytest.raises(BadPackage, match="would unpack to 1,000 bytes, more than 999"):
        archive.contents(data, "z.zip")
