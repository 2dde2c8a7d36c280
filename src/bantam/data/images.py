"""One image file to uint8 RGB pixels, whatever kind of JPEG, PNG or WebP it is."""

import hashlib
import io
import itertools
import os
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import ExifTags, Image

from bantam.errors import BadImage

Item = TypeVar("Item")
Result = TypeVar("Result")

FORMATS = ("JPEG", "PNG", "WEBP")
MAX_PIXELS = 64 * 2**20

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

_opening = threading.Lock()


def decode(path: Path, size: int) -> np.ndarray:
    """Read an image file: upright, RGB, shorter side resized to `size`, centre crop.

    Returns uint8 [size, size, 3]. Raises BadImage if the file cannot be read, is not a whole JPEG, PNG or
    WebP image, or has more than MAX_PIXELS pixels.
    """
    return decode_bytes(read(path), path, size)


def decode_bytes(data: bytes, path: Path, size: int) -> np.ndarray:
    """`decode` for a file already read; `path` is for the messages."""
    # Twice the target leaves the antialiasing filter room below JPEG's own, coarser reduction.
    image = to_rgb(data, path, at_least=2 * size)
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
        return path.read_bytes()
    except OSError as error:
        raise BadImage(f"{path} cannot be read: {error.strerror or error}; correct or remove the file") from error


def to_rgb(data: bytes, path: Path, at_least: int | None = None) -> Image.Image:
    """The whole picture in RGB, upright, transparent parts over white.

    With `at_least`, a large JPEG is decoded at a half, a quarter or an eighth of its size, as long as both
    sides keep that many pixels. Raises BadImage as `decode` does.
    """
    try:
        with _open(data) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadImage(
                    f"{path} has {image.width} x {image.height} pixels, more than the {MAX_PIXELS:,} "
                    "allowed; scale it down or remove it"
                )
            if at_least is not None:
                image.draft(None, (at_least, at_least))
            image.load()
            upright = _UPRIGHT.get(_orientation(image))
            rgb = _over_white(image)
            return rgb if upright is None else rgb.transpose(upright)
    except (BadImage, MemoryError):
        raise
    except Image.UnidentifiedImageError:
        kind = "is empty" if not data else "is not a JPEG, PNG or WebP image"
        raise BadImage(f"{path} {kind}; replace or remove it") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadImage(f"{path} has more than the {MAX_PIXELS:,} pixels allowed; scale it down or remove it") from None
    except Exception as error:
        # On damaged bytes the decoders raise OSError, SyntaxError, ValueError, struct.error and others.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadImage(f"{path} is damaged: {reason}; replace or remove it") from error


def pixel_digest(image: Image.Image) -> str:
    """A hash of an upright RGB picture: equal for the same picture, whatever its file's name, bytes and format."""
    digest = hashlib.sha256(repr(image.size).encode())
    digest.update(image.tobytes())
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


def _open(data: bytes) -> Image.Image:
    """Read the header alone. The filters of warnings belong to the whole process, hence the lock."""
    with _opening, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(io.BytesIO(data), formats=FORMATS)


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        # The picture itself is whole; damaged EXIF data says nothing about its orientation.
        return 1


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return _from_16_bit(image)
    if image.mode == "P" or "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode in ("LA", "PA", "La", "RGBa"):
        image = image.convert("RGBA")
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    """16-bit grey scaled to 8 bits; Pillow's own conversion would cut everything above 255 off."""
    grey = np.asarray(image).astype(np.float32)  # [H, W], 0..65535
    if (transparent := image.info.get("transparency")) is not None:
        grey[grey == transparent] = 65535
    eight_bits = np.rint(grey.clip(0, 65535) / 257).astype(np.uint8)
    return Image.fromarray(eight_bits).convert("RGB")
