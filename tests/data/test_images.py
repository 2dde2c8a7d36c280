"""Every kind of image becomes the right RGB pixels; every kind of damage becomes one line."""

import hashlib
import io
import logging
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import ExifTags, Image

import hostile_images
from bantam.data import images, rgb
from bantam.data.contents import hashed
from bantam.data.folder import Record
from bantam.data.images import FORMATS, MAX_PIXELS, decode, decode_bytes, in_parallel, inspect, to_rgb
from bantam.data.layouts.layout import EXTENSIONS
from bantam.data.remarks import listening
from bantam.data.room import Room
from bantam.errors import BadImage

pillow_heif.register_heif_opener()  # to write HEIC files

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


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


WRITTEN = {
    "JPEG": {"quality": 95},
    "PNG": {},
    "WEBP": {"lossless": True},
    "BMP": {},
    "PPM": {},
    "GIF": {},
    "TIFF": {},
    "AVIF": {"quality": 95},
    "HEIF": {"quality": 95},
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_formats(tmp_path: Path, kind: str):
    """The content decides what a file is: all of them may be called .jpg."""
    path = tmp_path / "image.jpg"
    path.write_bytes(saved(four_quarters(), kind, **WRITTEN[kind]))
    pixels = decode(path, 32)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (32, 32, 3)
    assert np.allclose(corners(pixels), EXIF[1], atol=3 if kind in ("JPEG", "AVIF", "HEIF") else 0)


def test_what_is_named_like_an_image_is_of_a_format_that_is_read():
    """Every suffix that the decoders know for their formats is taken for an image, and no other."""
    known = {suffix for suffix, kind in Image.registered_extensions().items() if kind in (*FORMATS, "HEIF", "MPO")}
    assert known == EXTENSIONS


# Of the decoder that cached images were made with: whoever changes one of these must raise FORMAT in data/cache.py.
AS_BEFORE = {
    "JPEG": "be8687406b7dcc23",
    "large JPEG": "69a1285505a21745",
    "progressive JPEG": "f61c122388f1983e",
    "lying JPEG": "d1b76783332d4b58",
    "grey JPEG": "d42e5f0ba7ac948c",
    "CMYK JPEG": "87f505716e3cda7c",
    "PNG": "3fb3f39f3e41d0cb",
    "portrait PNG": "4de3aa657265acb0",
    "PNG with alpha": "be61f025f63840c5",
    "lying PNG with alpha": "8ee45552f63fef30",
    "LA PNG": "3a53a2eced57c6af",
    "palette PNG": "b1647dfc317f0815",
    "palette PNG with a clear colour": "10a0b1453e44baaf",
    "palette PNG with alpha": "f7ab0ffe057ee0cf",
    "RGB PNG with a clear colour": "e7bd911de18ab92a",
    "1-bit PNG": "5439e7c9a0a3f06f",
    "16-bit grey PNG": "9373f74571580579",
    "16-bit colour PNG": "3f67601f84575ffd",
    "WebP": "118d72aeec777d7d",
    "WebP with alpha": "be61f025f63840c5",
    "small PNG": "05bf6e17a485034e",
    "PNG of the stored size": "f9eca614bf630404",
}


def of_every_mode() -> dict[str, bytes]:
    image = photograph(97, 61)
    clear = image.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(image.size))
    few = image.quantize(5).convert("RGB")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    ramp = np.linspace(0, 65535, 97 * 61).astype(">u2").reshape(61, 97)
    return {
        "JPEG": saved(image, "JPEG", quality=90),
        "large JPEG": saved(photograph(700, 900), "JPEG", quality=90),
        "progressive JPEG": saved(photograph(300, 200), "JPEG", quality=90, progressive=True),
        "lying JPEG": saved(photograph(90, 40), "JPEG", exif=exif),
        "grey JPEG": saved(image.convert("L"), "JPEG"),
        "CMYK JPEG": saved(image.convert("CMYK"), "JPEG"),
        "PNG": saved(image, "PNG"),
        "portrait PNG": saved(photograph(67, 101), "PNG"),
        "PNG with alpha": saved(clear, "PNG"),
        "lying PNG with alpha": saved(clear, "PNG", exif=exif),
        "LA PNG": saved(clear.convert("LA"), "PNG"),
        "palette PNG": saved(image.quantize(17), "PNG"),
        "palette PNG with a clear colour": saved(image.quantize(17), "PNG", transparency=3),
        "palette PNG with alpha": saved(image.quantize(17), "PNG", transparency=bytes(range(0, 170, 10))),
        "RGB PNG with a clear colour": saved(few, "PNG", transparency=few.getpixel((3, 3))),
        "1-bit PNG": saved(image.convert("1", dither=Image.Dither.NONE), "PNG"),
        "16-bit grey PNG": png(97, 61, 16, 0, ramp.tobytes()),
        "16-bit colour PNG": png(97, 61, 16, 2, np.repeat(ramp[..., None], 3, 2).tobytes()),
        "WebP": saved(image, "WEBP", quality=80),
        "WebP with alpha": saved(clear, "WEBP", lossless=True),
        "small PNG": saved(photograph(20, 9), "PNG"),
        "PNG of the stored size": saved(photograph(40, 32), "PNG"),
    }


def test_what_was_read_before_gives_the_same_pixels(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rgb, "_STRIP", 97 * 7)  # several strips, the last of them not whole
    for name, data in of_every_mode().items():
        assert hashlib.sha256(decode_bytes(data, Path(name), 32).tobytes()).hexdigest()[:16] == AS_BEFORE[name], name


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
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_exif_orientation(orientation: int, kind: str):
    """The expected corners follow from the standard: which corner of the scene row 0 and column 0 are."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    # AVIF and HEIC turn by a property of their own, which their writers make of the tag.
    data = saved(four_quarters(), kind, exif=exif.tobytes(), **WRITTEN[kind])
    assert np.allclose(corners(decode_bytes(data, Path("turned"), 32)), EXIF[orientation], atol=3)


def test_a_turned_image_changes_its_sides(tmp_path: Path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    photograph(40, 20).save(tmp_path / "turned.jpg", exif=exif)
    assert to_rgb((tmp_path / "turned.jpg").read_bytes(), tmp_path).size == (20, 40)


def test_damaged_exif_data_does_not_lose_the_picture(tmp_path: Path):
    odd(tmp_path / "odd.jpg")
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


def test_frames_after_the_first_do_not_count():
    first, second = four_quarters(), four_quarters().rotate(180)
    for kind in ("GIF", "PNG", "WEBP", "TIFF", "AVIF", "MPO", "HEIF"):
        data = saved(first, kind, save_all=True, append_images=[second], quality=95)
        with Image.open(io.BytesIO(data)) as image:
            assert (image.format, getattr(image, "n_frames", 1)) == (kind, 2)
        assert np.allclose(corners(decode_bytes(data, Path(kind), 32)), EXIF[1], atol=4), kind


def test_a_large_mpo_is_decoded_small():
    data = saved(photograph(1024, 768), "MPO", save_all=True, append_images=[photograph(1024, 768, 1)])
    assert to_rgb(data, Path("stereo.jpg"), at_least=64).size == (128, 96)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "PA", "RGB", "RGBA", "CMYK", "YCbCr"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
def test_tiff_of_every_mode(mode: str, compression: str | None):
    grey = mode in ("1", "L", "LA")
    image = (
        Image.fromarray(np.kron([[0, 255], [255, 0]], np.ones((16, 16))).astype(np.uint8)) if grey else four_quarters()
    )
    image = image.convert("RGBA").convert(mode) if mode in ("LA", "PA") else image.convert(mode)
    options = {} if compression is None else {"compression": compression}
    pixels = decode_bytes(saved(image, "TIFF", **options), Path("image.tif"), 32)
    expected = [(0,) * 3, WHITE, WHITE, (0,) * 3] if grey else EXIF[1]
    assert np.allclose(corners(pixels), expected, atol=2)


RAMP = np.linspace(0, 1, 32 * 32, dtype=np.float64).reshape(32, 32)


@pytest.mark.parametrize(
    "grey",
    [
        (RAMP * 65535).astype(np.uint16),
        (RAMP * 65535).astype(">u2"),
        (RAMP * 65535).astype(np.int32),
        (RAMP * (2**31 - 1)).astype(np.int32),
        RAMP.astype(np.float32),
        (RAMP * 255).astype(np.float32),
        (RAMP * 65535).astype(np.float32),
        (RAMP * 1e6).astype(np.float32),
    ],
    ids=["16 bits", "big endian", "32 bits of 16", "32 bits", "0..1", "0..255", "0..65535", "0..a million"],
)
def test_deep_grey_is_scaled_not_cut(grey: np.ndarray, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rgb, "_STRIP", 96)
    pixels = decode_bytes(saved(Image.fromarray(grey), "TIFF"), Path("deep.tif"), 32)
    assert np.abs(pixels - RAMP[..., None] * 255).max() <= 1


def test_a_dark_picture_of_32_bits_stays_dark():
    pixels = decode_bytes(saved(Image.fromarray((RAMP * 2**30).astype(np.int32)), "TIFF"), Path("dark.tif"), 32)
    assert np.abs(pixels - RAMP[..., None] * 127.5).max() <= 1


def test_fractions_that_are_no_numbers_are_black_and_beyond_white_is_white():
    grey = np.array([[np.nan, -5, 0.25, 1.0], [np.nan] * 4], np.float32).repeat(2, 0)
    pixels = decode_bytes(saved(Image.fromarray(grey), "TIFF"), Path("odd.tif"), 4)
    assert pixels[0, :, 0].tolist() == [0, 0, 64, 255]
    assert (pixels[2:] == 0).all()


def test_a_16_bit_tiff_in_which_0_is_white():
    data = bytearray(saved(Image.fromarray((RAMP * 65535).astype(np.uint16)), "TIFF"))
    tag = data.index(struct.pack("<HHII", 262, 3, 1, 1))
    data[tag + 8] = 0
    assert np.abs(decode_bytes(bytes(data), Path("negative.tif"), 32) - (1 - RAMP[..., None]) * 255).max() <= 1


def test_a_bitmap_with_alpha():
    """BITMAPV4HEADER, 32 bits a pixel with a mask for alpha, which Pillow reads and does not write."""
    head = struct.pack("<IiiHHIIiiIIIIII", 108, 8, 8, 1, 32, 3, 256, 0, 0, 0, 0, 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    head += bytes(108 - len(head))
    data = b"BM" + struct.pack("<IHHI", 14 + 108 + 256, 0, 0, 14 + 108) + head + bytes((0, 0, 255, 128)) * 64
    assert np.abs(decode_bytes(data, Path("clear.bmp"), 8).astype(int) - (255, 127, 127)).max() <= 1


def test_colours_that_have_no_way_to_rgb_are_named():
    data = saved(four_quarters().convert("LAB"), "TIFF")
    with pytest.raises(BadImage, match=r"print\.tif has its colours in LAB, .*save it in RGB"):
        decode_bytes(data, Path("print.tif"), 32)


def test_a_picture_in_rgb_is_not_copied():
    image = four_quarters()
    assert rgb.over_white(image) is image


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
    "text": (
        lambda path: path.write_text("not an image"),
        "is not a JPEG, PNG, WebP, AVIF, HEIC, TIFF, GIF, BMP or PPM image",
    ),
    "another format": (lambda path: four_quarters().save(path, "PCX"), "is not a JPEG, PNG"),
    "empty": (lambda path: path.touch(), "is empty"),
    "missing": (lambda path: None, "cannot be read: No such file"),
    "folder": (lambda path: path.mkdir(), "cannot be read: Is a directory"),
    "bomb above our limit": (lambda path: path.write_bytes(png(9000, 8000, 8, 2)), "9000 x 8000 pixels"),
    "bomb Pillow warns of": (lambda path: path.write_bytes(png(10000, 10000, 8, 2)), "pixels"),
    "bomb Pillow refuses": (lambda path: path.write_bytes(png(60000, 60000, 8, 2)), "pixels"),
}


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_what_has_no_end_is_not_waited_for(tmp_path: Path, make: Callable[[Path], object]):
    path = tmp_path / "endless.jpg"
    make(path)
    with pytest.raises(BadImage, match="cannot be read: it is no file"):
        decode(path, 8)
    record = Record(path, "endless", 0)
    (source,) = hashed(tmp_path, {"training": (record,)}, tmp_path / "cache", 1)["training"]
    assert source.sha256 == ""


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


def test_hostile_files_are_read_or_refused_and_nothing_reaches_the_screen():
    faults = hostile_images.tried()
    assert len(faults) > 300
    assert {name: fault for name, fault in faults.items() if fault is not None} == {}


# --- what the decoders remark


def odd(path: Path, cause: bytes = b"\xff\xff") -> Path:
    """A JPEG that is whole, with EXIF data of which Pillow warns."""
    four_quarters().save(path, "JPEG", quality=95, exif=b"Exif\0\0II*\0" + cause + b"\xff\xff broken")
    return path


@pytest.mark.parametrize("action", ["default", "error", "once", "ignore"])
def test_remarks_belong_to_the_file_and_not_to_the_screen(
    tmp_path: Path, action: str, capfd: pytest.CaptureFixture[str]
):
    """Also of a second file with the same flaw, whatever the process does with warnings."""
    paths = [odd(tmp_path / f"{n}.jpg") for n in range(2)]
    four_quarters().save(tmp_path / "good.jpg")
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter(action)  # pyright: ignore[reportArgumentType]
        for path in paths:
            assert inspect(path).remarks == ("Corrupt EXIF data. Expecting to read 2 bytes but only got 0",)
            decode(path, 32)
        assert inspect(tmp_path / "good.jpg").remarks == ()
    assert shown == []
    assert capfd.readouterr() == ("", "")


def test_remarks_of_many_threads_stay_apart(tmp_path: Path):
    for n in range(40):
        odd(tmp_path / f"{n:02}.jpg") if n % 2 else four_quarters().save(tmp_path / f"{n:02}.jpg")
    found = list(in_parallel(inspect, sorted(tmp_path.iterdir()), 4))
    assert [bool(one.remarks) for one in found] == [bool(n % 2) for n in range(40)]


def test_warnings_of_others_and_elsewhere_are_shown_as_ever(tmp_path: Path):
    inspect(odd(tmp_path / "odd.jpg"))
    with pytest.warns(UserWarning, match="not of a decoder"):
        warnings.warn("not of a decoder", stacklevel=1)
    with pytest.warns(UserWarning, match="Corrupt EXIF"), Image.open(tmp_path / "odd.jpg") as image:
        image.getexif()


def test_what_is_logged_is_a_remark(capfd: pytest.CaptureFixture[str]):
    with listening() as remarks:
        logging.getLogger("PIL.TiffImagePlugin").error("More samples per pixel than\ncan be decoded: %s", 9)
    assert remarks == ["More samples per pixel than can be decoded: 9"]
    logging.getLogger("PIL.TiffImagePlugin").error("nobody listens")
    assert capfd.readouterr().err == ""


# --- how much is decoded at once


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Room:
    room = Room(MAX_PIXELS)
    monkeypatch.setattr(images, "ROOM", room)
    return room


def several_scans(data: bytes) -> bytes:
    """A baseline JPEG whose components stand in scans of their own, as few programs write it: of three grey ones."""
    planes = [saved(plane, "JPEG", quality=90) for plane in Image.open(io.BytesIO(data)).convert("RGB").split()]
    first = planes[0]
    frame = first.index(b"\xff\xc0")
    height_width = first[frame + 5 : frame + 9]
    tables = first[2:frame] + b"".join(
        first[at : at + 2 + struct.unpack(">H", first[at + 2 : at + 4])[0]]
        for at in range(frame, first.index(b"\xff\xda"))
        if first[at : at + 2] == b"\xff\xc4"
    )
    head = (
        b"\xff\xc0"
        + struct.pack(">HB", 17, 8)
        + height_width
        + b"\3"
        + b"".join(bytes((n, 0x11, 0)) for n in (1, 2, 3))
    )
    scans = b""
    for number, plane in enumerate(planes, start=1):
        start = plane.index(b"\xff\xda")
        scans += b"\xff\xda\0\x08\x01" + bytes((number, 0)) + b"\0\x3f\0" + plane[start + 10 : -2]
    return b"\xff\xd8" + tables + head + scans + b"\xff\xd9"


def test_the_pixels_that_are_decoded_are_counted(room: Room):
    image = photograph(1024, 512)
    counted = {}
    for name, data in {
        "PNG": saved(image, "PNG"),
        "JPEG": saved(image, "JPEG"),
        "MPO": saved(image, "MPO", save_all=True, append_images=[image]),
        "progressive JPEG": saved(image, "JPEG", progressive=True),
        "JPEG in several scans": several_scans(saved(image, "JPEG")),
        "WebP": saved(image, "WEBP"),
        "grey JPEG": saved(image.convert("L"), "JPEG"),
    }.items():
        room.most_taken = 0
        assert decode_bytes(data, Path(name), 32).shape == (32, 32, 3)
        counted[name] = room.most_taken
    whole = 1024 * 512
    assert counted == {
        "PNG": whole,
        "JPEG": whole // 64,
        "MPO": whole // 64,
        "progressive JPEG": whole,  # its coefficients are held whole
        "JPEG in several scans": whole,
        "WebP": 3 * whole,
        "grey JPEG": whole // 64,
    }
    assert room.taken == 0


def test_many_large_pictures_wait_for_one_another(monkeypatch: pytest.MonkeyPatch):
    room = Room(100 * 100 * 2 + 50)
    monkeypatch.setattr(images, "ROOM", room)
    data = saved(photograph(100, 100), "PNG")
    damaged = data[:-40]
    results: list[object] = []

    def one(number: int) -> None:
        try:
            results.append(decode_bytes(damaged if number % 3 == 0 else data, Path("x.png"), 16).shape)
        except BadImage:
            results.append(None)

    threads = [threading.Thread(target=one, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results.count((16, 16, 3)) == 8
    assert results.count(None) == 4
    assert 100 * 100 <= room.most_taken <= 2 * 100 * 100
    assert room.taken == 0


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
