"""What the files of a data folder hold: hashes of their content, remembered for as long as a file stays as it is."""

import contextlib
import hashlib
import itertools
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bantam.data import images
from bantam.errors import BadData, BadImage, CannotWrite
from bantam.files import read_sealed, sha256_of, write_sealed

if TYPE_CHECKING:
    from bantam.data.folder import Record

# A file system may give two writes this close together the same time, so a hash of a file changed that
# recently is not remembered.
_TIMESTAMP_GRANULARITY_NS = 2_000_000_000


@dataclass(frozen=True)
class Source:
    """A record with the hash of its file's content; an empty hash stands for a file that cannot be read."""

    record: "Record"
    sha256: str


def hashed(
    root: Path, splits: "dict[str, tuple[Record, ...]]", cache_dir: Path, workers: int | None
) -> dict[str, list[Source]]:
    """Hash every file, except those whose state is still the one that a remembered hash was computed for."""
    root_hash = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:32]
    memo = cache_dir / "hashes" / f"{root_hash}.json"
    known = read_table(memo)
    records = [record for records in splits.values() for record in records]

    started = time.time_ns()
    names = [str(record.path.relative_to(root)) for record in records]
    states = [_state(record.path) for record in records]
    hashes = [
        line[-1] if state and isinstance(line := known.get(name), list) and line[:-1] == state else None
        for name, state in zip(names, states, strict=True)
    ]
    unknown = [n for n, sha256 in enumerate(hashes) if sha256 is None]
    contents = images.in_parallel(_sha256, (records[n].path for n in unknown), workers)
    for n, sha256 in zip(unknown, contents, strict=True):
        hashes[n] = sha256

    remembered = {
        name: [*state, sha256]
        for name, state, sha256 in zip(names, states, hashes, strict=True)
        if state and sha256 and max(state[1:3]) + _TIMESTAMP_GRANULARITY_NS < started
    }
    if remembered != known:
        # A shared cache that cannot be written still serves what it holds.
        with contextlib.suppress(CannotWrite):
            write_sealed(memo, remembered)
    rows = (Source(record, sha256 or "") for record, sha256 in zip(records, hashes, strict=True))
    return {name: list(itertools.islice(rows, len(splits[name]))) for name in splits}


def digest_of(path: Path, cache_dir: Path) -> str:
    """The SHA-256 of a file, which may be large; remembered as those of `hashed` are. Raises BadData."""
    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]
    memo = cache_dir / "hashes" / f"{name}.json"
    started, state = time.time_ns(), _state(path)
    known = read_table(memo).get("file")
    if state and isinstance(known, list) and known[:-1] == state:
        return known[-1]
    try:
        sha256 = sha256_of(path)
    except OSError as error:
        raise BadData(f"cannot read {path}: {error.strerror or error}; correct its permissions") from error
    if state and max(state[1:3]) + _TIMESTAMP_GRANULARITY_NS < started:
        with contextlib.suppress(CannotWrite):
            write_sealed(memo, {"file": [*state, sha256]})
    return sha256


def _state(path: Path) -> list[int] | None:
    """What changes when a file is rewritten; None if it cannot be asked.

    Programs can set the modification time back, but not the change time.
    """
    try:
        state = os.stat(path)
    except OSError:
        return None
    return [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino, state.st_dev]


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(images.read(path)).hexdigest()
    except BadImage:
        return ""


def read_table(path: Path) -> dict:
    """The table in a JSON file; an empty one if there is none, or it is damaged."""
    try:
        return read_sealed(path)
    except (OSError, ValueError):
        return {}
