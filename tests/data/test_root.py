"""Archives of photographs: unpacked once, into the cache, and refused in one line where they are hostile or damaged."""

import bz2
import gzip
import io
import lzma
import os
import shutil
import stat
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bantam import archives
from bantam.data import contents, root
from bantam.data.folder import list_images, scan
from bantam.data.root import opened
from bantam.errors import BadData, CannotWrite

Member = tuple[str | zipfile.ZipInfo | tarfile.TarInfo, bytes]

PHOTOS: tuple[Member, ...] = tuple(
    (f"photos/{kind}/{n}.jpg", f"{kind} {n}".encode()) for kind in ("cat", "dog") for n in range(3)
)
JUNK: tuple[Member, ...] = (
    *(("__MACOSX/photos/cat/._0.jpg", b"x"), ("photos/.DS_Store", b"x")),
    *(("photos/Icon\r", b""), ("photos/cat/Icon\r", b""), ("__MACOSX/photos/Icon\r", b"")),
)


def zipped(*members: Member, packed: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        with zipfile.ZipFile(buffer, "w", packed) as file:
            for name, data in members:
                assert not isinstance(name, tarfile.TarInfo)
                file.writestr(name, data, packed)
    return buffer.getvalue()


def tarred(*members: Member, form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as file:
        for name, data in members:
            assert not isinstance(name, zipfile.ZipInfo)
            member = tarfile.TarInfo(name) if isinstance(name, str) else name
            member.size = len(data) if member.isfile() else 0
            file.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def member(kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo("thing")
    info.type, info.linkname = kind, link
    return info


def special(kind: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo("thing")
    entry.create_system, entry.external_attr = 3, (kind | 0o777) << 16
    return entry


def patched(data: bytes, offset: int, form: str, value: int) -> bytes:
    """A zip with a number of its first directory entry changed."""
    place = data.index(archives.CENTRAL_HEADER) + offset
    return data[:place] + struct.pack(form, value) + data[place + struct.calcsize(form) :]


def header(data: bytes, start: int, value: bytes) -> bytes:
    """A tar with bytes of its first header changed, and the header's check sum set right."""
    block = bytearray(data[:512])
    block[start : start + len(value)] = value
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block) + data[512:]


GOOD: dict[str, Callable[[tuple[Member, ...]], bytes]] = {
    "x.zip": lambda members: zipped(*members),
    "stored.zip": lambda members: zipped(*members, packed=zipfile.ZIP_STORED),
    "lzma.ZIP": lambda members: zipped(*members, packed=zipfile.ZIP_LZMA),
    "x.tar": lambda members: tarred(*members),
    "old.tar": lambda members: tarred(*members, form=tarfile.USTAR_FORMAT),
    "gnu.tar": lambda members: tarred(*members, form=tarfile.GNU_FORMAT),
    "x.tar.gz": lambda members: gzip.compress(tarred(*members)),
    "x.tgz": lambda members: gzip.compress(tarred(*members)),
    "x.tar.bz2": lambda members: bz2.compress(tarred(*members)),
    "x.tar.xz": lambda members: lzma.compress(tarred(*members)),
    "dots.zip": lambda members: zipped(*((f"./{name}", data) for name, data in members)),
    "dots.tar": lambda members: tarred(*((f"./{name}", data) for name, data in members)),
    "named otherwise": lambda members: zipped(*members),
    "no suffix in time.zip": lambda members: gzip.compress(tarred(*members)),
}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.mark.parametrize("name", GOOD)
def test_an_archive_is_unpacked_into_the_cache(tmp_path: Path, store: Path, name: str):
    path = tmp_path / name
    path.write_bytes(GOOD[name]((*PHOTOS, *JUNK)))
    folder = scan(path, store)
    assert (folder.layout, folder.classes, len(folder.training)) == ("bare", ("cat", "dog"), 6)
    assert [record.path.read_bytes() for record in folder.training][:2] == [b"cat 0", b"cat 1"]
    assert folder.root.name == "photos"
    assert store in folder.root.parents
    assert {stat.S_IMODE(record.path.stat().st_mode) & 0o111 for record in folder.training} == {0}


def test_it_is_unpacked_once_for_its_content(tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(contents, "_TIMESTAMP_GRANULARITY_NS", 0)
    path = tmp_path / "x.zip"
    path.write_bytes(zipped(*PHOTOS))
    first = opened(path, store)
    with monkeypatch.context() as patch:
        patch.setattr(archives, "unpack_zip", lambda *_: pytest.fail("unpacked again"))
        shutil.copy(path, tmp_path / "copy.zip")
        assert opened(tmp_path / "copy.zip", store) == opened(path, store) == first
    path.write_bytes(zipped(*PHOTOS, ("photos/cow/0.jpg", b"x")))
    assert opened(path, store) != first
    # A file that is missing, or lost its bytes, is unpacked again.
    for damage in (Path.unlink, lambda lost: lost.write_bytes(b"")):
        damage(first / "cat" / "0.jpg")
        assert opened(tmp_path / "copy.zip", store) == first
        assert (first / "cat" / "0.jpg").read_bytes() == b"cat 0"


def test_a_table_in_an_archive(tmp_path: Path, store: Path):
    (tmp_path / "x.zip").write_bytes(
        zipped(
            ("labels.csv", b"a,b\n1.jpg,x\n2.jpg,x\n3.jpg,y\n4.jpg,y\n"),
            *((f"images/{n}.jpg", b"") for n in range(1, 5)),
        )
    )
    assert scan(tmp_path / "x.zip", store).classes == ("x", "y")


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ((*PHOTOS, ("photos/cow/notes.txt", b"x")), "x.zip/photos/cow holds no photographs"),
        ((("train.zip", b"x"),), "x.zip is empty but for 1 .zip"),
        ((("labels.csv", b"a,b\n1.jpg,x\n"), ("1.jpg", b"")), "x.zip/labels.csv cannot be used|x.zip has one"),
    ],
)
def test_what_is_wrong_in_an_archive_is_said_of_the_archive(
    tmp_path: Path, store: Path, members: tuple[Member, ...], said: str
):
    (tmp_path / "x.zip").write_bytes(zipped(*members))
    with pytest.raises(BadData, match=said) as refused:
        scan(tmp_path / "x.zip", store)
    assert str(store) not in str(refused.value)


def truncated_in_a_member() -> bytes:
    return tarred(*((f"cat/{n}.jpg", bytes(3000)) for n in range(4)))[:5000]


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "zip: traversal": (lambda: zipped(("../evil.jpg", b"x")), "out of the folder"),
    "zip: backslashes": (lambda: zipped(("a\\..\\..\\evil.jpg", b"x")), "out of the folder"),
    "zip: absolute": (lambda: zipped(("/tmp/evil.jpg", b"x")), "absolute"),
    "zip: drive": (lambda: zipped(("C:/evil.jpg", b"x")), "absolute"),
    "zip: link": (lambda: zipped((special(stat.S_IFLNK), b"/etc/passwd")), "a link"),
    "zip: device": (lambda: zipped((special(stat.S_IFCHR), b"")), "a special file"),
    "zip: password": (lambda: patched(zipped(("a.jpg", b"x")), 8, "<H", 1), "password"),
    "zip: unknown method": (lambda: patched(zipped(("a.jpg", b"x")), 10, "<H", 9), "a method other than"),
    "zip: twice": (lambda: zipped(("a.jpg", b"x"), ("a.jpg", b"y")), "twice"),
    "zip: twice, with a dot": (lambda: zipped(("a.jpg", b"x"), ("./a.jpg", b"y")), "twice"),
    "zip: below a file": (lambda: zipped(("a", b"x"), ("a/b.jpg", b"y")), "below what is a file"),
    "zip: bomb": (lambda: zipped(("a.bmp", bytes(8 * 2**20))), "would unpack to"),
    "zip: wrong check sum": (lambda: patched(zipped(("a.jpg", b"x" * 100)), 16, "<I", 7), "no whole archive"),
    "zip: cut": (lambda: zipped(*PHOTOS)[:-40], "no whole archive"),
    "zip: too many": (lambda: zipped(*((f"{n}.jpg", b"") for n in range(60))), "more than 50 files"),
    "zip: too much": (lambda: zipped(("a.jpg", os.urandom(2**17))), "more than 100,000"),
    "zip: deep": (lambda: zipped(("/".join("a" * 40) + ".jpg", b"x")), "overlong"),
    "tar: traversal": (lambda: tarred(("../evil.jpg", b"x")), "out of the folder"),
    "tar: hidden traversal": (lambda: tarred(("./a/../../evil.jpg", b"x")), "out of the folder"),
    "tar: absolute": (lambda: tarred(("/tmp/evil.jpg", b"x")), "absolute"),
    "tar: link": (lambda: tarred((member(tarfile.SYMTYPE, "/etc"), b"")), "a link"),
    "tar: hard link": (lambda: tarred((member(tarfile.LNKTYPE, "a.jpg"), b"")), "a link"),
    "tar: device": (lambda: tarred((member(tarfile.CHRTYPE), b"")), "a special file"),
    "tar: pipe": (lambda: tarred((member(tarfile.FIFOTYPE), b"")), "a special file"),
    "tar: twice": (lambda: tarred(("a.jpg", b"x"), ("a.jpg", b"y")), "twice"),
    "tar: below a file": (lambda: tarred(("a", b"x"), ("a/b.jpg", b"y")), "below what is a file"),
    "tar: a file that was a folder": (lambda: tarred(("a/", b""), ("a", b"x")), "twice"),
    "tar: a file over what holds others": (lambda: tarred(("a/b.jpg", b"x"), ("a", b"x")), "twice"),
    "zip: a file over what holds others": (lambda: zipped(("a/b.jpg", b"x"), ("a", b"x")), "below what is a file"),
    "tar: a folder that was a file": (lambda: tarred(("a", b"x"), ("a/", b"")), "twice|below"),
    "tar: too many": (lambda: tarred(*((f"{n}.jpg", b"") for n in range(60))), "more than 50 files"),
    "tar: bomb": (lambda: gzip.compress(tarred(("a.bmp", bytes(8 * 2**20)))), "unpack to"),
    "tar: too much": (lambda: tarred(("a.jpg", bytes(2 * 2**20))), "unpack to"),
    "tar: a huge header": (
        lambda: header(tarred(("a.jpg", b"x")), 124, b"77777777777\0"), "unpack to|whole"
    ),
    "tar: a huge long name": (
        lambda: header(header(tarred(("a.jpg", b"x")), 156, b"L"), 124, b"00777777777\0"), "no whole archive"
    ),
    "tar: a size below 0": (lambda: header(tarred(("a.jpg", b"x")), 124, b"\xff" * 12), "below 0|no whole"),
    "tar: cut in a file": (truncated_in_a_member, "no whole archive"),
    "tar: cut between files": (lambda: tarred(("a.jpg", b"x"), ("b.jpg", b"x"))[:1024], "damaged or cut short"),
    "tar: damaged later": (
        lambda: (data := tarred(("a.jpg", b"x"), ("b.jpg", b"x")))[:1030] + b"?" + data[1031:], "damaged or cut short"
    ),
    "gz: cut": (lambda: gzip.compress(tarred(("a.jpg", os.urandom(5000))))[:-400], "no whole archive"),
    "gz: wrong check sum": (lambda: gzip.compress(tarred(("a.jpg", b"x")))[:-8] + bytes(8), "no whole archive"),
    "gz: no tar": (lambda: gzip.compress(b"hello" * 300), "no whole archive"),
    "xz: cut": (lambda: lzma.compress(tarred(("a.jpg", os.urandom(5000))))[:-900], "no whole archive"),
    "bz2: cut": (lambda: bz2.compress(tarred(("a.jpg", os.urandom(5000))))[:-900], "no whole archive"),
    "text": (lambda: b"hello\n", "not a directory, and no whole archive"),
    "nothing": (lambda: b"", "not a directory, and no whole archive"),
    "7z": (lambda: b"7z\xbc\xaf\x27\x1c" + bytes(100), "a 7z archive, which is not read"),
    "an empty zip": (lambda: zipped(), "is empty"),
    "an empty tar": (lambda: gzip.compress(tarred()), "is empty"),
}  # fmt: skip


def test_the_limits_are_those_that_the_docs_name() -> None:
    page = (Path(__file__).parents[2] / "docs" / "own-data.md").read_text(encoding="utf-8")
    assert f"{root.LIMITS.total // 2**30} GiB or {root.LIMITS.files:,} files" in " ".join(page.split())
    assert f"more than {root.LIMITS.ratio} times as many" in " ".join(page.split())


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_or_damaged_archive_is_one_line(
    tmp_path: Path, store: Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    make, reason = HOSTILE[name]
    limits = replace(root.LIMITS, files=50)
    if "too much" in name:
        limits = replace(limits, total=100_000)
    monkeypatch.setattr(root, "LIMITS", limits)
    path = tmp_path / "data" / "x.zip"
    path.parent.mkdir()
    path.write_bytes(make())
    with pytest.raises(BadData, match=reason) as refused:
        list_images(path, store)
    assert "\n" not in str(refused.value)
    assert sorted(one.name for one in tmp_path.iterdir()) in (["data"], ["cache", "data"])
    left = [one for one in store.rglob("*") if one.is_file() and one.name != "lock" and one.suffix != ".json"]
    assert left == []
    assert not Path("/tmp/evil.jpg").exists()


@pytest.mark.parametrize("make", [zipped, tarred])
def test_a_full_disk_is_said_and_leaves_nothing(
    tmp_path: Path, store: Path, make: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "x"
    path.write_bytes(make(*PHOTOS))
    usage = shutil.disk_usage(tmp_path)._replace(free=root.SPARE + 8)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage)
        with pytest.raises(CannotWrite, match=r"needs .* bytes or more and there are 8 to spare; free some space"):
            opened(path, store)
    assert [one.name for one in store.iterdir() if one.name.startswith(".building")] == []
    assert scan(path, store).classes == ("cat", "dog")


def test_a_cache_that_cannot_be_written(tmp_path: Path):
    (tmp_path / "x.zip").write_bytes(zipped(*PHOTOS))
    (tmp_path / "file").touch()
    with pytest.raises(CannotWrite, match="free some space or set BANTAM_CACHE to another folder"):
        opened(tmp_path / "x.zip", tmp_path / "file" / "cache")


def test_a_pipe_is_no_archive(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe.zip")
    with pytest.raises(BadData, match="is not a directory"):
        opened(tmp_path / "pipe.zip")
