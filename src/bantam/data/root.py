"""What a user names as photographs, to the folder or the table that says which image is of which class.

CACHE/unpacked/DIGEST/         an archive's files, DIGEST being of its bytes
CACHE/unpacked/DIGEST.json     written last: how many files and bytes these are
"""

import os
import shutil
from pathlib import Path

from bantam import archives
from bantam.archives import Limits
from bantam.data.contents import digest_of, read_table
from bantam.data.layouts.flat import labelled_by_name
from bantam.data.layouts.folders import is_split_folder
from bantam.data.layouts.layout import FOREIGN, TABLES, entries
from bantam.data.layouts.table import TABLE
from bantam.data.store import ELSEWHERE, TEMPORARY, building_alone, default_cache_dir
from bantam.errors import BadData
from bantam.files import explained, write_sealed

LIMITS = Limits(
    files=1_000_000,
    total=256 * 2**30,
    ratio=200,
    methods=frozenset(archives.METHODS),
    refusal=BadData,
    name_bytes=255,
    depth=32,
    caseless=False,
    needless=lambda name: name.casefold() in FOREIGN,
)
"""What an archive of photographs may hold."""

SPARE = 2**28
"""Bytes of the disk that an archive leaves free when it is unpacked."""

_DEEPEST = 32

_FOREIGN = {b"7z\xbc\xaf\x27\x1c": "7z", b"Rar!": "RAR", b"\x28\xb5\x2f\xfd": "zstd"}


def opened(given: Path, cache_dir: Path | None = None) -> Path:
    """The folder or the table of photographs that `given` is or holds.

    An archive is unpacked into the cache, once for its content. Of folders that hold nothing but one folder the
    innermost is meant. Raises BadData where `given` does not exist, or is an archive that is hostile or damaged, and
    CannotWrite.
    """
    if given.is_dir() or not given.exists():
        return without_nesting(given)
    if given.is_file():
        head = _head(given)
        if archives.is_zip(head) or archives.is_tar(head):
            return without_nesting(_unpacked(given, cache_dir or default_cache_dir(), archives.is_zip(head)))
        if given.suffix.lower() in TABLES:
            return given
        foreign = next((kind for magic, kind in _FOREIGN.items() if head.startswith(magic)), None)
        if foreign:
            raise BadData(f"{given} is a {foreign} archive, which is not read; pack the photographs as .zip or .tar")
    raise BadData(
        f"{given} is not a directory, and no whole archive (.zip, .tar, .tar.gz) or table (.csv, .tsv) either; "
        "give the folder that holds the photographs"
    )


def named_as_given(sentence: str, given: Path, root: Path, cache_dir: Path | None = None) -> str:
    """A sentence about `root`, as which `given` was opened: not of the cache, where nobody put anything."""
    unpacked = (cache_dir or default_cache_dir()) / "unpacked"
    if not given.is_file() or unpacked not in root.parents:
        return sentence
    return sentence.replace(str(unpacked / root.relative_to(unpacked).parts[0]), str(given))


def without_nesting(root: Path) -> Path:
    """The innermost of folders that each hold nothing but the next, besides files that are no images."""
    for _ in range(_DEEPEST):
        images, folders, _ = entries(root)
        if images or len(folders) != 1 or is_split_folder(folders[0]) or TABLE.recognises(root):
            break
        inside, deeper, _ = entries(folders[0])
        # A folder of images alone is a class, not a wrapper.
        if not (deeper and not inside) and not labelled_by_name(inside) and not TABLE.recognises(folders[0]):
            break
        root = folders[0]
    return root


def _head(path: Path) -> bytes:
    try:
        return archives.head_of(path)
    except OSError as error:
        raise BadData(f"cannot read {path}: {error.strerror or error}; correct its permissions") from error


# --- archives


def _unpacked(path: Path, cache_dir: Path, is_zip: bool) -> Path:
    """The folder in the cache that holds the files of an archive."""
    folder = cache_dir / "unpacked" / digest_of(path, cache_dir)[:32]
    if not _is_whole(folder):
        with building_alone(cache_dir):
            # Somebody else may have unpacked it while this process waited.
            if not _is_whole(folder):
                _unpack(path, folder, cache_dir, is_zip)
    return folder


def _unpack(path: Path, folder: Path, cache_dir: Path, is_zip: bool) -> None:
    temporary = cache_dir / f"{TEMPORARY}-unpacked-{folder.name}"
    try:
        with explained(folder, ELSEWHERE):
            temporary.mkdir()
            folder.parent.mkdir(exist_ok=True)
            room = shutil.disk_usage(cache_dir).free - SPARE
        (archives.unpack_zip if is_zip else archives.unpack_tar)(path, temporary, LIMITS, room)
        with explained(folder, ELSEWHERE):
            shutil.rmtree(folder, ignore_errors=True)  # files are missing from it
            os.replace(temporary, folder)
        write_sealed(folder.with_suffix(".json"), {"archive": str(path.resolve()), **_extent(folder)})
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_whole(folder: Path) -> bool:
    """Whether nothing is missing: a crash of the machine may leave files without their bytes."""
    told = read_table(folder.with_suffix(".json"))
    return bool(told) and {"files": told.get("files"), "bytes": told.get("bytes")} == _extent(folder)


def _extent(folder: Path) -> dict[str, int]:
    sizes = [os.lstat(os.path.join(place, name)).st_size for place, _, names in os.walk(folder) for name in names]
    return {"files": len(sizes), "bytes": sum(sizes)}
