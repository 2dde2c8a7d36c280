"""One image file to uint8 RGB pixels, whatever kind of photograph it is; the content decides, not the name."""

import hashlib
import io
import itertools
import os
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import ExifTags, Image
from PIL.JpegImagePlugin import JpegImageFile

from bantam.data.remarks import listening
from bantam.data.rgb import over_white
from bantam.data.room import Room
from bantam.errors import BadImage, NoPicture

Item = TypeVar("Item")
Result = TypeVar("Result")

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "GIF", "BMP", "DIB", "PPM")
"""What Pillow reads, by its names; HEIF is read by pillow-heif. Of several frames or pages the first counts."""

KINDS = "JPEG, PNG, WebP, AVIF, HEIC, TIFF, GIF, BMP or PPM"

MAX_PIXELS = 64 * 2**20

ROOM = Room(MAX_PIXELS)
"""Pixels that are decoded at once, in this process: many large photographs wait for one another."""

# Decoders that hold the picture several times while they work.
_TIMES_HELD = {"WEBP": 3, "AVIF": 2, "HEIF": 2}

# EXIF 2.32, tag 0x0112: what brings the stored picture upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_registering = threading.Lock()


@dataclass(frozen=True)
class Inspected:
    """A readable picture's width and height in pixels, upright; its digest; and what the decoder remarked."""

    size: tuple[int, int]
    digest: str
    remarks: tuple[str, ...]


def decode(path: Path, size: int) -> np.ndarray:
    """Read an image file: upright, RGB, shorter side resized to `size`, centre crop.

    Returns uint8 [size, size, 3]. Raises BadImage if the file cannot be read, is not a whole image of a known
    format, or has more than MAX_PIXELS pixels.
    """
    return decode_bytes(read(path), path, size)


def decode_bytes(data: bytes, path: Path, size: int) -> np.ndarray:
    """`decode` for a file already read; `path` is for the messages."""
    # Twice the target leaves the antialiasing filter room below JPEG's own, coarser reduction.
    return _decoded(data, path, partial(_centre, size=size), at_least=2 * size)


def _centre(image: Image.Image, size: int) -> np.ndarray:
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    if side == size:
        image = image.crop((int(left), int(top), int(left) + size, int(top) + size))
    else:
        box = (left, top, left + side, top + side)
        image = image.resize((size, size), Image.Resampling.BICUBIC, box=box)
    return np.array(image)  # [size, size, 3]


def read(path: Path) -> bytes:
    """The bytes of an image file. Raises BadImage if the system refuses them."""
    try:
        mode = path.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # a pipe has no end
            raise BadImage(f"{path} cannot be read: it is no file; remove it")
        return path.read_bytes()
    except OSError as error:
        raise BadImage(f"{path} cannot be read: {error.strerror or error}; correct or remove the file") from error


def to_rgb(data: bytes, path: Path, at_least: int | None = None) -> Image.Image:
    """The whole picture in RGB, upright, transparent parts over white.

    With `at_least`, a large JPEG is decoded at a half, a quarter or an eighth of its size, as long as both
    sides keep that many pixels. Raises BadImage as `decode` does.
    """
    return _decoded(data, path, lambda image: image, at_least)


def inspect(path: Path) -> Inspected:
    """Decode an image file in full. Raises BadImage as `decode` does."""
    with listening() as remarks:
        size, digest = _decoded(read(path), path, lambda image: (image.size, pixel_digest(image)))
    return Inspected(size, digest, tuple(remarks))


def pixel_digest(image: Image.Image) -> str:
    """A hash of an upright RGB picture: equal for the same picture, whatever its file's name, bytes and format."""
    digest = hashlib.sha256(repr(image.size).encode())
    rows = max(1, 2**20 // image.width)
    for top in range(0, image.height, rows):
        digest.update(image.crop((0, top, image.width, min(top + rows, image.height))).tobytes())
    return digest.hexdigest()


def in_parallel(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int | None = None
) -> Iterator[Result]:
    """`map` with `workers` threads (default: one a core), in order, holding only a few results at a time.

    Threads are enough: reading, hashing, decoding and resizing all run without Python's lock. And unlike
    processes they need no guarded main module, copy no pixels, and leave nothing behind when killed.
    """
    workers = workers or os.cpu_count() or 1
    if workers == 1:
        yield from map(function, items)
        return
    remaining = iter(items)
    pool = ThreadPoolExecutor(workers)
    try:
        waiting: deque[Future[Result]] = deque()
        for item in itertools.islice(remaining, 16 * workers):
            waiting.append(pool.submit(function, item))
        while waiting:
            yield waiting.popleft().result()
            for item in itertools.islice(remaining, 1):
                waiting.append(pool.submit(function, item))
    finally:
        pool.shutdown(cancel_futures=True)


def _decoded(data: bytes, path: Path, use: Callable[[Image.Image], Result], at_least: int | None = None) -> Result:
    """What `use` makes of the upright RGB picture; it is called while the picture has its place in ROOM."""
    try:
        with listening(), _open(data) as image:
            _require_usable(image, path)
            whole = image.width * image.height
            progressive = _in_several_scans(image, data)
            if at_least is not None and image.format in ("JPEG", "MPO"):
                image.draft(None, (at_least, at_least))
            decoded = whole if progressive else image.width * image.height
            with ROOM.take(decoded * _TIMES_HELD.get(image.format or "", 1)):
                image.load()
                upright = _UPRIGHT.get(_orientation(image))
                rgb = over_white(image)
                return use(rgb if upright is None else rgb.transpose(upright))
    except (BadImage, MemoryError):
        raise
    except Image.UnidentifiedImageError:
        raise _unidentified(data, path) from None
    except Image.DecompressionBombError:
        raise BadImage(f"{path} has more than the {MAX_PIXELS:,} pixels allowed; scale it down or remove it") from None
    except Exception as error:
        # On damaged bytes the decoders raise OSError, SyntaxError, ValueError, struct.error and others.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadImage(f"{path} is damaged: {reason}; replace or remove it") from error


def _open(data: bytes) -> Image.Image:
    """Read the header alone."""
    if data[4:8] == b"ftyp" and "HEIF" not in Image.OPEN:
        # Only whoever meets such a file pays for the import. AVIF files, which Pillow reads, begin likewise.
        with _registering:
            import pillow_heif

            pillow_heif.register_heif_opener()
    formats = (*FORMATS, "HEIF") if "HEIF" in Image.OPEN else FORMATS
    return Image.open(io.BytesIO(data), formats=formats)


def _unidentified(data: bytes, path: Path) -> BadImage:
    if not data:
        return BadImage(f"{path} is empty; replace or remove it")
    accepts = {name: Image.OPEN[name][1] for name in (*FORMATS, "HEIF") if name in Image.OPEN}
    for name, accept in accepts.items():
        if accept is not None and accept(data[:16].ljust(16, b"\0")) is True:
            kind = "HEIC" if name == "HEIF" else name
            return BadImage(f"{path} is damaged: the header of this {kind} cannot be read; replace or remove it")
    return NoPicture(f"{path} is not a {KINDS} image; replace or remove it")


def _require_usable(image: Image.Image, path: Path) -> None:
    """Raise BadImage for what the header says is too large, or in colours that have no way to RGB."""
    if image.width * image.height > MAX_PIXELS:
        raise BadImage(
            f"{path} has {image.width} x {image.height} pixels, more than the {MAX_PIXELS:,} "
            "allowed; scale it down or remove it"
        )
    if image.mode == "LAB":
        raise BadImage(f"{path} has its colours in LAB, which is not read; save it in RGB or remove it")


def _in_several_scans(image: Image.Image, data: bytes) -> bool:
    """Whether this is a JPEG that is held whole while it is decoded, however small it is asked for."""
    if not isinstance(image, JpegImageFile):
        return False
    at = 2
    # ITU-T T.81, B.2: segments with their lengths, up to SOS, which says how many components the first scan has.
    while data[at : at + 1] == b"\xff" and data[at : at + 2] != b"\xff\xda":
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    components = data[at + 4 : at + 5]
    return "progressive" in image.info or not components or components[0] < image.layers


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        # The picture itself is whole; damaged EXIF data says nothing about its orientation.
        return 1
