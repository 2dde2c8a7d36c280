"""A decoded picture in any colour mode to RGB: 8 bits, transparent parts over white."""

from collections.abc import Iterator

import numpy as np
from PIL import Image

_STRIP = 2**20
"""Pixels that are converted at a time: a picture is never in memory in three or four modes at once."""

_MIN_IS_WHITE = (262, 0)
"""TIFF 6.0: the tag PhotometricInterpretation, and what it holds where 0 is white."""


def over_white(image: Image.Image) -> Image.Image:
    """The same picture in RGB. Raises ValueError for a mode that has no way to RGB, such as LAB."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    deep = image.mode.startswith("I") or image.mode == "F"
    white = _white(image) if deep else 0.0
    tag, value = _MIN_IS_WHITE
    # Pillow turns such a picture over itself, but for 16 bits.
    inverted = deep and getattr(image, "tag_v2", {}).get(tag) == value
    rgb = Image.new("RGB", image.size)
    for top, strip in _strips(image):
        rgb.paste(_from_deep_grey(strip, white, inverted) if deep else _strip_over_white(strip), (0, top))
    return rgb


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    rows = max(1, _STRIP // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _strip_over_white(image: Image.Image) -> Image.Image:
    if image.mode in ("P", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode == "RGBA":
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _white(image: Image.Image) -> float:
    """What is white in a grey of more than 8 bits: of 16 bits, or as its brightest pixel says, the least of these.

    Whole numbers of 32 bits that are all below 65,536 are taken for 16 bits, as PNG's are given to us. Fractions are
    0..1 by custom, where they are not in the range of 8 or 16 bits.
    """
    if image.mode.startswith("I;16"):
        return 65535.0
    brightest = max(float(np.nan_to_num(np.asarray(strip)).max()) for _, strip in _strips(image))
    customary = (65535.0, 2.0**31 - 1) if image.mode == "I" else (1.0, 255.0, 65535.0)
    return next((white for white in customary if brightest <= white), brightest)


def _from_deep_grey(image: Image.Image, white: float, inverted: bool) -> Image.Image:
    """Grey scaled to 8 bits; Pillow's own conversion would cut everything above 255 off."""
    grey = np.nan_to_num(np.asarray(image).astype(np.float32))  # [H, W]
    if (transparent := image.info.get("transparency")) is not None:
        grey[grey == transparent] = white
    eight_bits = np.rint(grey.clip(0, white) / (white / 255)).astype(np.uint8)
    return Image.fromarray(255 - eight_bits if inverted else eight_bits).convert("RGB")
