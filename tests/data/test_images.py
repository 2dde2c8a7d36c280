"""Every kind of image becomes the right RGB pixels; every kind of damage becomes one line."""

import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from bantam.data.images import decode, in_parallel, to_rgb
from bantam.errors import BadImage

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def corners(pixels: np.ndarray) -> list[tuple[int, ...]]:
    """Top left, top right, bottom left, bottom right, in the middle of each quarter."""
    a, b = pixels.shape[0] // 4, 3 * pixels.shape[0] // 4
    return [tuple(int(v) for v in pixels[y, x]) for y, x in ((a, a), (a, b), (b, a), (b, b))]


def four_quarters(size: int = 32) -> Image.Image:
    pixels = np.zeros((size, size, 3), np.uint8)
    half = size // 2
    pixels[:half, :half], pixels[:half, half:] = RED, GREEN
    pixels[half:, :half], pixels[half:, half:] = BLUE, WHITE
    return Image.fromarray(pixels)


def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth colours, as photographs have them."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def png(width: int, height: int, depth: int, colour: int, rows: bytes = b"") -> bytes:
    """A PNG file by hand, for what Pillow does not write. `rows` are unfiltered."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    stride = len(rows) // height
    filtered = b"".join(b"\0" + rows[y * stride : (y + 1) * stride] for y in range(height)) if rows else b""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(filtered)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("suffix", [".png", ".webp", ".jpg"])
def test_formats(tmp_path: Path, suffix: str):
    path = tmp_path / f"image{suffix}"
    four_quarters().save(path, quality=95, lossless=True)
    pixels = decode(path, 32)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (32, 32, 3)
    assert np.allclose(corners(pixels), [RED, GREEN, BLUE, WHITE], atol=0 if suffix != ".jpg" else 3)


def test_an_image_of_the_right_size_is_not_resampled(tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 256, (16, 21, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    assert np.array_equal(decode(tmp_path / "noise.png", 16), noise[:, 2:18])


def test_resizing_equals_resize_then_crop(tmp_path: Path):
    image = photograph(96, 64)
    image.save(tmp_path / "image.png")
    plain = image.resize((48, 32), Image.Resampling.BICUBIC).crop((8, 0, 40, 32))
    assert np.abs(decode(tmp_path / "image.png", 32).astype(int) - np.asarray(plain)).max() <= 2


def test_resizing_is_antialiased(tmp_path: Path):
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    pixels = decode(tmp_path / "stripes.png", 16).astype(int)[:, 2:-2]
    assert np.abs(pixels - 127).max() <= 2


def test_a_large_jpeg_decoded_small_looks_the_same(tmp_path: Path):
    photograph(1024, 768).save(tmp_path / "large.jpg", quality=95)
    data = (tmp_path / "large.jpg").read_bytes()
    assert to_rgb(data, tmp_path, at_least=64).size == (128, 96)
    whole = to_rgb(data, tmp_path).resize((32, 32), Image.Resampling.BICUBIC, box=(128, 0, 896, 768))
    assert np.abs(decode(tmp_path / "large.jpg", 32).astype(int) - np.asarray(whole)).mean() < 1


EXIF = {
    1: [RED, GREEN, BLUE, WHITE],
    2: [GREEN, RED, WHITE, BLUE],
    3: [WHITE, BLUE, GREEN, RED],
    4: [BLUE, WHITE, RED, GREEN],
    5: [RED, BLUE, GREEN, WHITE],
    6: [BLUE, RED, WHITE, GREEN],
    7: [WHITE, GREEN, BLUE, RED],
    8: [GREEN, WHITE, RED, BLUE],
}


@pytest.mark.parametrize("orientation", EXIF)
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_exif_orientation(tmp_path: Path, orientation: int, suffix: str):
    """The expected corners follow from the standard: which corner of the scene row 0 and column 0 are."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / f"turned{suffix}"
    four_quarters().save(path, exif=exif, quality=95, lossless=True)
    assert np.allclose(corners(decode(path, 32)), EXIF[orientation], atol=3)


def test_a_turned_image_changes_its_sides(tmp_path: Path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    photograph(40, 20).save(tmp_path / "turned.jpg", exif=exif)
    assert to_rgb((tmp_path / "turned.jpg").read_bytes(), tmp_path).size == (20, 40)


def test_damaged_exif_data_does_not_lose_the_picture(tmp_path: Path):
    four_quarters().save(tmp_path / "odd.jpg", quality=95, exif=b"Exif\0\0II*\0\xff\xff\xff\xff broken")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.allclose(corners(decode(tmp_path / "odd.jpg", 32)), EXIF[1], atol=3)


def test_grey(tmp_path: Path):
    for mode, value, expected in (("L", 77, 77), ("1", 1, 255)):
        Image.new(mode, (8, 8), value).save(tmp_path / "grey.png")
        assert (decode(tmp_path / "grey.png", 8) == expected).all()


@pytest.mark.parametrize("quality", [75, 95])
def test_cmyk_jpeg(tmp_path: Path, quality: int):
    """Pillow writes CMYK as Adobe programs do, inverted and marked so."""
    ink = np.zeros((16, 16, 4), np.uint8)
    ink[..., 1] = 255
    ink[..., 2] = 255  # magenta and yellow: red
    Image.fromarray(ink, mode="CMYK").save(tmp_path / "cmyk.jpg", quality=quality)
    assert np.abs(decode(tmp_path / "cmyk.jpg", 16).astype(int) - RED).max() <= 3


def test_transparency_lies_over_white(tmp_path: Path):
    rgba = Image.new("RGBA", (8, 8), (255, 0, 0, 128))
    for suffix in (".png", ".webp"):
        rgba.save(tmp_path / f"clear{suffix}", lossless=True)
        assert np.abs(decode(tmp_path / f"clear{suffix}", 8).astype(int) - (255, 127, 127)).max() <= 1
    Image.new("LA", (8, 8), (0, 0)).save(tmp_path / "la.png")
    assert (decode(tmp_path / "la.png", 8) == 255).all()


def test_palette(tmp_path: Path):
    palette = four_quarters().quantize(8)
    palette.save(tmp_path / "palette.png")
    assert corners(decode(tmp_path / "palette.png", 32)) == EXIF[1]
    red = palette.getpixel((0, 0))
    palette.save(tmp_path / "clear.png", transparency=red)
    assert corners(decode(tmp_path / "clear.png", 32)) == [WHITE, GREEN, BLUE, WHITE]


def test_one_transparent_colour(tmp_path: Path):
    four_quarters().save(tmp_path / "rgb.png", transparency=GREEN)
    assert corners(decode(tmp_path / "rgb.png", 32)) == [RED, WHITE, BLUE, WHITE]
    Image.new("L", (8, 8), 9).save(tmp_path / "grey.png", transparency=9)
    assert (decode(tmp_path / "grey.png", 8) == 255).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_16_bits_are_scaled_not_cut(tmp_path: Path, channels: int):
    ramp = np.linspace(0, 65535, 64).astype(">u2")
    rows = np.broadcast_to(ramp[None, :, None], (64, 64, channels)).tobytes()
    (tmp_path / "ramp.png").write_bytes(png(64, 64, 16, 0 if channels == 1 else 2, rows))
    pixels = decode(tmp_path / "ramp.png", 64)
    assert np.abs(pixels[0, :, 1] - np.linspace(0, 255, 64)).max() <= 1
    assert (pixels == pixels[:1, :, :1]).all()


def truncated_jpeg(path: Path) -> None:
    photograph(200, 200).save(path)
    path.write_bytes(path.read_bytes()[:-2000])


def truncated_png(path: Path) -> None:
    photograph(200, 200).save(path, "PNG")
    path.write_bytes(path.read_bytes()[:-2000])


def truncated_webp(path: Path) -> None:
    photograph(200, 200).save(path, "WEBP", quality=95)
    path.write_bytes(path.read_bytes()[:-500])


DAMAGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated JPEG": (truncated_jpeg, "damaged"),
    "truncated PNG": (truncated_png, "damaged"),
    "truncated WebP": (truncated_webp, "replace or remove"),
    "half a header": (lambda path: path.write_bytes(png(8, 8, 8, 2)[:20]), "replace or remove"),
    "no pixels": (lambda path: path.write_bytes(png(8, 8, 8, 2)), "damaged"),
    "text": (lambda path: path.write_text("not an image"), "is not a JPEG, PNG or WebP image"),
    "another format": (lambda path: four_quarters().save(path, "GIF"), "is not a JPEG, PNG or WebP image"),
    "empty": (lambda path: path.touch(), "is empty"),
    "missing": (lambda path: None, "cannot be read: No such file"),
    "folder": (lambda path: path.mkdir(), "cannot be read: Is a directory"),
    "bomb above our limit": (lambda path: path.write_bytes(png(9000, 8000, 8, 2)), "9000 x 8000 pixels"),
    "bomb Pillow warns of": (lambda path: path.write_bytes(png(10000, 10000, 8, 2)), "pixels"),
    "bomb Pillow refuses": (lambda path: path.write_bytes(png(60000, 60000, 8, 2)), "pixels"),
}


@pytest.mark.parametrize(("make", "message"), DAMAGED.values(), ids=DAMAGED)
def test_damage(tmp_path: Path, make: Callable[[Path], object], message: str):
    path = tmp_path / "bad.jpg"
    make(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(BadImage, match=message) as caught:
            decode(path, 32)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [None, 1, 3])
def test_in_parallel_keeps_the_order_and_little_in_memory(workers: int | None):
    taken = 0

    def numbers():
        nonlocal taken
        for n in range(1000):
            taken += 1
            yield n

    results = in_parallel(lambda n: n * n, numbers(), workers)
    assert next(results) == 0
    assert taken < 1000
    assert list(results) == [n * n for n in range(1, 1000)]


def test_in_parallel_passes_errors_on():
    with pytest.raises(ZeroDivisionError):
        list(in_parallel(lambda n: 1 // n, [1, 0, 2], 2))
