"""Decode once: the splits of a data folder as uint8 arrays on disk, memory-mapped.

    CACHE/
      lock                    held while something is built, by one process at a time
      hashes/ROOT.json        content hashes already computed, with the file states they belong to
      unpacked/               archives of photographs (see `root`)
      divisions/              how folders without validation images were divided (see `splitting`)
      KEY/training.npy ...    uint8 [N, size, size, 3], rows in the order of the ids; in the training split's file the
                            images without a label, where they were asked for, come after its own
      KEY/index.json          written last: what the entry is, and CRC-32s of its arrays

KEY is a hash of the files' content, ids and labels and of the target size: another content is another entry,
so a stale entry cannot be met. An entry is built under a temporary name and renamed when it is whole and on
the disk, so a killed build cannot be met either; the next build removes what it left. The arrays are held against
their CRC-32s each time an entry is opened, and a damaged entry is built again. CRC-32 reads 1.4 GB a second on one core
where SHA-256 reads 0.7, and it is damage that is looked for; every core takes a part.
"""

import hashlib
import mmap
import os
import shutil
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from bantam.data import images
from bantam.data.contents import Source, hashed, read_table
from bantam.data.folder import Folder, Record, list_images, remarks_on, usable
from bantam.data.layouts.folders import UNLABELLED
from bantam.data.splits import LabelledSplit, SemiLabelledSplit, Splits, UnlabelledSplit
from bantam.data.splitting import divided
from bantam.data.store import ELSEWHERE, TEMPORARY, building_alone, default_cache_dir
from bantam.errors import BadData, BadImage, SplitLeak, typed
from bantam.files import explained, sync_folder, write_json

# Raise it when the same file would give other pixels: decoding, cropping or the layout of an entry changed.
FORMAT = 1

# A CRC-32 is of so many bytes, which one thread reads in pieces.
_PART, _PIECE = 2**24, 2**20

Progress = Callable[[int, int], None]


def open_splits(
    root: Path,
    size: int,
    cache_dir: Path | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    unlabelled: bool = False,
    say: Callable[[str], None] | None = None,
) -> Splits:
    """Open a data folder, archive or table at `size` x `size` pixels, decoding it first if its content is new.

    The images stay on disk: pages are read when they are used, so the data may be larger than the memory. They are
    read-only: a process that writes to them is killed.
    Where the folder has no validation images, they are taken from training (see `splitting`).
    `cache_dir` defaults to the environment's BANTAM_CACHE, then to ~/.cache/bantam. `progress(done, total)`
    is called while images are decoded, in this thread; `say` is told where a damaged entry is made anew. With
    `unlabelled`, the images in the folder of that name belong to what a stage with a teacher trains on.

    Raises BadData (see `folder.scan`), BadImage naming the first of all unreadable files, CannotWrite if the cache
    cannot be written, and SplitLeak if an unlabelled image, by its file or its pixels, is also one that measures.
    """
    cache_dir = cache_dir or default_cache_dir()
    listing = usable(list_images(root, cache_dir), root)
    folder, division = listing.folder, None
    if unlabelled and not folder.unlabelled:
        raise BadData(f"{root / UNLABELLED} holds no image; put some there, or set data.unlabelled = false")
    sources = hashed(folder.root, folder.splits(unlabelled or not folder.divided), cache_dir, workers)
    if not folder.divided:
        division = divided(folder, sources, cache_dir, workers, say)
        folder = division.of(folder)
        known = {row.record: row for rows in sources.values() for row in rows}
        chosen = folder.splits(unlabelled)
        sources = {name: [known[record] for record in records] for name, records in chosen.items()}
    if unlabelled:
        _refuse_copies({name: [(row.record, row.sha256) for row in rows] for name, rows in sources.items()})
        sources["training"] += sources.pop(UNLABELLED)
    fingerprint = _digest({name: sources[name] for name in ("training", "validation")}, size)
    entry = cache_dir / _digest(sources, size)
    if not _is_whole(entry, sources, size):
        with building_alone(cache_dir):
            # Somebody else may have built it while this process waited.
            if not _is_whole(entry, sources, size):
                if say and entry.exists():
                    say(f"decoded images in {entry} are damaged or without check sums, and are made anew")
                _build(entry, folder.root, sources, size, workers, progress)

    arrays = {name: _map(entry / f"{name}.npy", len(rows), size) for name, rows in sources.items() if rows}
    evaluated = {source.sha256 for source in sources["evaluation"]}
    measured = {source.sha256 for source in sources["validation"]}
    training = _labelled("training", arrays["training"][: len(folder.training)], folder.training, folder.classes)
    return Splits(
        training=training,
        taught=_with_unlabelled(training, arrays["training"], folder.unlabelled) if unlabelled else training,
        validation=_labelled("validation", arrays["validation"], folder.validation, folder.classes),
        evaluation=UnlabelledSplit(arrays["evaluation"], tuple(record.id for record in folder.evaluation))
        if folder.evaluation
        else None,
        classes=folder.classes,
        fingerprint=fingerprint,
        leaks=tuple(
            source.record.id
            for name in ("training", "validation")
            for source in sources[name]
            if source.sha256 in evaluated
        ),
        overlap=tuple(row.record.id for row in sources["training"] if row.sha256 in measured),
        division=division,
        remarks=(*(division.lines() if division else _unmeasured(folder)), *remarks_on(listing)),
    )


def _labelled(name: str, array: torch.Tensor, records: tuple[Record, ...], classes: tuple[str, ...]) -> LabelledSplit:
    labels = torch.tensor([record.label for record in records], dtype=torch.int64)  # [N]
    return LabelledSplit(name, array, labels, tuple(record.id for record in records), classes)


def _unmeasured(folder: Folder) -> list[str]:
    """What to say of classes that a folder with validation images of its own has none of."""
    measured = {record.label for record in folder.validation}
    lacking = [name for label, name in enumerate(folder.classes) if label not in measured]
    if not lacking:
        return []
    shown = ", ".join(lacking[:3]) + (", ..." if len(lacking) > 3 else "")
    return [f"warning: no validation image is of class {shown}: how good a student is there, nothing says"]


def _with_unlabelled(training: LabelledSplit, array: torch.Tensor, extra: tuple[Record, ...]) -> SemiLabelledSplit:
    labels = torch.cat([training.labels, torch.full((len(extra),), -1)])
    ids = training.ids + tuple(record.id for record in extra)
    return SemiLabelledSplit(training.name, array, labels, ids, training.classes)


def _refuse_copies(digests: dict[str, list[tuple[Record, str]]]) -> None:
    """Raise SplitLeak where an unlabelled image has the digest of one that measures; an empty one is nobody's."""
    for name in ("evaluation", "validation"):
        measuring = {digest: record.path for record, digest in digests[name] if digest}
        copies = [
            f"{record.path} is {measuring[digest]}" for record, digest in digests[UNLABELLED] if digest in measuring
        ]
        if copies:
            more = f" (and {len(copies) - 3} more)" if len(copies) > 3 else ""
            raise SplitLeak(
                f"{len(copies)} unlabelled image(s) are also in the {name} split, by which results are measured: "
                f"{', '.join(copies[:3])}{more}; remove them from {UNLABELLED}/"
            )


def _map(path: Path, count: int, size: int) -> torch.Tensor:
    # Read-only, because pages that can never be written count against no limit on memory: not against the process'
    # (ulimit -d), nor against what a system without overcommit is willing to promise. Writing to the tensor is a
    # segmentation fault.
    with open(path, "rb") as file:
        pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        flat = torch.frombuffer(pages, dtype=torch.uint8, offset=len(_header(count, size)))
    return flat.view(count, size, size, 3)


# --- what an entry is of


def _digest(sources: dict[str, list[Source]], size: int) -> str:
    digest = hashlib.sha256(f"{FORMAT} {size}\n".encode())
    for name, rows in sources.items():
        digest.update(f"{name} {len(rows)}\n".encode())
        for source in rows:
            id = os.fsencode(source.record.id)
            digest.update(b"%d %s %s " % (len(id), id, str(source.record.label).encode()))
            digest.update(source.sha256.encode() + b"\n")
    return digest.hexdigest()[:32]


# --- building and recognising an entry


def _is_whole(entry: Path, sources: dict[str, list[Source]], size: int) -> bool:
    """Whether the entry is there, every bit as it was written."""
    index = read_table(entry / "index.json")
    if index.get("format") != FORMAT:
        return False
    known = index.get("crc32")
    used = [(name, rows) for name, rows in sources.items() if rows]
    try:
        return isinstance(known, dict) and all(
            (entry / f"{name}.npy").stat().st_size == len(_header(len(rows), size)) + len(rows) * size * size * 3
            and _crcs(entry / f"{name}.npy") == known.get(name)
            for name, rows in used
        )
    except OSError:
        return False


def _crcs(path: Path) -> list[int]:
    """The CRC-32 of each part of a file, several parts at a time."""
    parts = range(0, path.stat().st_size, _PART)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(partial(_crc, path), parts))


def _crc(path: Path, start: int) -> int:
    value = 0
    with open(path, "rb") as file:
        file.seek(start)
        for _ in range(_PART // _PIECE):
            value = zlib.crc32(file.read(_PIECE), value)
    return value


def _build(
    entry: Path,
    root: Path,
    sources: dict[str, list[Source]],
    size: int,
    workers: int | None,
    progress: Progress | None,
) -> None:
    temporary = entry.with_name(f"{TEMPORARY}-{entry.name}")
    total = sum(map(len, sources.values()))
    done = 0
    unreadable: list[str] = []
    pictures: dict[str, list[tuple[Record, str]]] = {name: [] for name in (UNLABELLED, *sources)}
    compared = any(source.record.label is None for source in sources["training"])
    try:
        with explained(entry, ELSEWHERE):
            temporary.mkdir()
        for name, rows in sources.items():
            if not rows:
                continue
            decoded = images.in_parallel(partial(_decode, size=size, compared=compared), rows, workers)
            with explained(entry, ELSEWHERE), open(temporary / f"{name}.npy", "wb") as file:
                file.write(_header(len(rows), size))
                for source, image in zip(rows, decoded, strict=True):
                    if isinstance(image, BadImage):
                        unreadable.append(str(image))
                    else:
                        file.write(image.stored.data)
                        added = name == "training" and source.record.label is None
                        pictures[UNLABELLED if added else name].append((source.record, image.picture))
                    done += 1
                    if progress and (done % 64 == 0 or done == total):
                        progress(done, total)
                file.flush()
                os.fsync(file.fileno())
        if unreadable:
            raise BadImage(_summary(unreadable, total, root))
        _refuse_copies(pictures)
        write_json(temporary / "index.json", _index(root, sources, size, temporary))
        with explained(entry, ELSEWHERE):
            sync_folder(temporary)
            # What is there under the final name has lost a file, or has one cut short.
            shutil.rmtree(entry, ignore_errors=True)
            os.replace(temporary, entry)
            sync_folder(entry.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@dataclass(frozen=True)
class _Decoded:
    """The pixels [size, size, 3] that are stored, and the digest of the whole picture, empty where nobody asks."""

    stored: np.ndarray
    picture: str


def _decode(source: Source, size: int, compared: bool) -> _Decoded | BadImage:
    path = source.record.path
    try:
        data = images.read(path)
        if hashlib.sha256(data).hexdigest() != source.sha256:
            raise BadData(f"{path} changed while the data was being prepared; run the command again")
        picture = images.pixel_digest(images.to_rgb(data, path)) if compared else ""
        return _Decoded(images.decode_bytes(data, path, size), picture)
    except BadImage as error:
        return error


def _summary(unreadable: list[str], total: int, root: Path) -> str:
    if len(unreadable) == 1:
        return unreadable[0]
    first = " | ".join(message.rsplit(";", 1)[0] for message in unreadable[:3])
    more = ", ..." if len(unreadable) > 3 else ""
    return (
        f"{len(unreadable)} of {total} images are unusable: {first}{more}; "
        f"run `bantam data check {typed(root)}` for all of them, then replace or remove them"
    )


def _index(root: Path, sources: dict[str, list[Source]], size: int, entry: Path) -> dict:
    """Opening an entry needs the format and the CRC-32s; the rest is for people who look into the cache."""
    counts = {name: len(rows) for name, rows in sources.items()}
    crcs = {name: _crcs(entry / f"{name}.npy") for name, rows in sources.items() if rows}
    return {"format": FORMAT, "size": size, "source": str(root.resolve()), "images": counts, "crc32": crcs}


def _header(count: int, size: int) -> bytes:
    """The head of a version 1.0 .npy file for uint8 [count, size, size, 3]."""
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({count}, {size}, {size}, 3), }}"
    # Magic, version and length are 10 bytes; the whole head fills a multiple of 64.
    padded = text + " " * (-(10 + len(text) + 1) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded.encode("ascii")
