"""Image files that are damaged, lie about themselves or are something else, in every format; the same at every call.

`python tests/hostile_images.py` tries them all and prints how many were tried and how many held: each is either read,
as uint8 [side, side, 3], or refused with BadImage, whose message is one line; and nothing reaches the screen.
"""

import io
import os
import struct
import sys
import tempfile
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pillow_heif
from PIL import Image

from bantam.data.images import decode_bytes
from bantam.errors import BadImage

SIDE = 32
FLIPS = 12

SAVED: dict[str, tuple[str, dict[str, object]]] = {
    "JPEG": ("JPEG", {"quality": 90}),
    "progressive JPEG": ("JPEG", {"progressive": True}),
    "MPO": ("MPO", {"save_all": True}),
    "PNG": ("PNG", {}),
    "APNG": ("PNG", {"save_all": True}),
    "WebP": ("WEBP", {"quality": 80}),
    "animated WebP": ("WEBP", {"save_all": True}),
    "AVIF": ("AVIF", {"speed": 10}),
    "HEIC": ("HEIF", {}),
    "TIFF": ("TIFF", {}),
    "TIFF, LZW": ("TIFF", {"compression": "tiff_lzw"}),
    "TIFF, deflate": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    "TIFF, JPEG": ("TIFF", {"compression": "jpeg"}),
    "GIF": ("GIF", {"save_all": True}),
    "BMP": ("BMP", {}),
}


def photograph(width: int = 48, height: int = 40, seed: int = 0) -> Image.Image:
    """Smooth colours, as photographs have them."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def whole() -> Iterator[tuple[str, bytes]]:
    """A sound file of each kind, of one picture; those of several frames have another after it."""
    pillow_heif.register_heif_opener()
    for name, (kind, options) in SAVED.items():
        file = io.BytesIO()
        several = {"append_images": [photograph(seed=1)]} if options.get("save_all") else {}
        photograph().save(file, kind, **options, **several)
        yield name, file.getvalue()


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file of 8 bits RGB with any chunks between its head and its end."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"".join([b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", head), *(chunk(*one) for one in chunks), chunk(b"IEND", b"")])


def strange() -> Iterator[tuple[str, bytes]]:
    """Files that are no photograph, or one that would take all memory."""
    yield "nothing", b""
    yield "text", b"no photograph\n"
    yield "one byte", b"\xff"
    yield "zeros", bytes(4096)
    yield "a PDF", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj"
    yield "a ZIP", b"PK\x03\x04" + bytes(60)
    yield "an SVG", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
    yield "an MP4", b"\0\0\0\x18ftypisom\0\0\0\0isomiso2" + bytes(64)
    yield "HEIC without content", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)
    yield "AVIF without content", b"\0\0\0\x18ftypavif\0\0\0\0mif1avif" + bytes(64)
    yield "PNG of no pixels", png(0, 0)
    yield "PNG of 2^31 pixels a side", png(2**31 - 1, 2**31 - 1)
    yield "PNG without data", png(9, 9)
    yield "PNG, a bomb of text", png(9, 9, (b"zTXt", b"a\0\0" + zlib.compress(bytes(10**8), 9)))
    yield "PNG, a bomb of pixels", png(60_000, 60_000, (b"IDAT", zlib.compress(bytes(1000))))
    yield (
        "BMP of a huge size",
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 99, 0, 0, 54, 40, 2**30, 2**30, 1, 24, 0, 0, 0, 0, 0, 0),
    )
    yield (
        "BMP of a negative size",
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 99, 0, 0, 54, 40, -9, -9, 1, 24, 0, 0, 0, 0, 0, 0),
    )
    yield "GIF of a huge size", b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b";"
    yield "PPM of a huge size", b"P6\n60000 60000\n255\n" + bytes(100)
    yield "PPM of no size", b"P6\n0 0\n255\n"
    yield "PPM without data", b"P6\n9 9\n255\n"
    yield "PPM of words", b"P3\n2 2\n255\n1 2 x 4\n"
    yield "PPM without an end", b"P3\n2 2\n255\n" + b"1" * 10_000
    yield "PGM of no brightness", b"P5\n2 2\n0\n" + bytes(4)
    yield "PFM of no scale", b"Pf\n2 2\n0\n" + bytes(16)
    yield "PFM of what is no number", b"Pf\n2 2\n-1.0\n" + struct.pack("<4f", float("nan"), float("inf"), -1e30, 1)
    yield "TIFF that points to itself", b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + bytes(12) + struct.pack("<I", 8)
    yield "TIFF that points beyond itself", b"II*\0\xff\xff\xff\x7f"
    yield "TIFF of many tags", b"II*\0\x08\0\0\0\xff\xff" + bytes(500)


def damaged() -> Iterator[tuple[str, bytes]]:
    """Each sound file cut off, with bits flipped, with bytes overwritten, and with garbage at its end or its start."""
    for number, (name, data) in enumerate(whole()):
        draw = np.random.default_rng(number)
        for share in (0.02, 0.1, 0.3, 0.6, 0.9, 0.99):
            yield f"{name}, {share:.0%} of it", data[: int(len(data) * share)]
        yield f"{name}, without its last byte", data[:-1]
        # Most of what decoders believe without looking stands at the start.
        for limit in (64, 400, len(data)):
            for _ in range(FLIPS // 3):
                place, bit = int(draw.integers(min(limit, len(data)))), int(draw.integers(8))
                flipped = bytearray(data)
                flipped[place] ^= 1 << bit
                yield f"{name}, bit {bit} of byte {place} flipped", bytes(flipped)
        for value in (0x00, 0xFF):
            start = int(draw.integers(len(data) // 2))
            yield f"{name}, 40 bytes of {value} at {start}", data[:start] + bytes([value]) * 40 + data[start + 40 :]
        yield f"{name}, garbage behind it", data + draw.bytes(500)
        yield f"{name}, garbage before it", draw.bytes(7) + data


def everything() -> Iterator[tuple[str, bytes]]:
    """All of them, with their names."""
    yield from whole()
    yield from strange()
    yield from damaged()


def fault_of(data: bytes) -> str | None:
    """What is wrong with how Bantam takes this file, or None."""
    try:
        pixels = decode_bytes(data, Path("hostile.jpg"), SIDE)
    except BadImage as error:
        return None if "\n" not in str(error) and str(error).startswith("hostile.jpg ") else f"not one line: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None if (pixels.shape, pixels.dtype) == ((SIDE, SIDE, 3), np.uint8) else f"{pixels.shape}, {pixels.dtype}"


def tried() -> dict[str, str | None]:
    """Every file by its name, with what is wrong, or None; what reaches the screen meanwhile is a fault of its own."""
    faults: dict[str, str | None] = {}
    screen = os.dup(2)
    with tempfile.TemporaryFile() as caught, warnings.catch_warnings():
        warnings.simplefilter("default")
        os.dup2(caught.fileno(), 2)
        try:
            for name, data in everything():
                before = caught.seek(0, os.SEEK_END)
                faults[name] = fault_of(data)
                sys.stderr.flush()
                caught.seek(before)
                if shown := caught.read():
                    faults[name] = f"on the screen: {shown[:200]!r}"
        finally:
            os.dup2(screen, 2)
            os.close(screen)
    return faults


if __name__ == "__main__":
    found = tried()
    for name, fault in found.items():
        if fault is not None:
            print(f"{name}: {fault}")
    held = sum(fault is None for fault in found.values())
    print(f"{len(found)} images tried, {held} held")
    sys.exit(held < len(found))
