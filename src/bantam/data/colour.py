"""Colour: normalisation, and brightness, contrast, saturation and hue as one affine map of RGB."""

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

_GREY = (0.299, 0.587, 0.114)  # Rec. 601 luma, the Y of YIQ
_YIQ = torch.tensor((_GREY, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)), dtype=torch.float64)
_QUARTER = torch.tensor(((0, 0, 0), (0, 0, -1), (0, 1, 0)), dtype=torch.float64)  # I to Q, Q to -I
# Maps of RGB, row by row: to grey, to what is not grey, and the latter turned by 90 degrees in the I-Q plane.
_QUARTER_TURN: tuple[float, ...] = tuple((_YIQ.inverse() @ _QUARTER @ _YIQ).flatten().tolist())
_TO_GREY: tuple[float, ...] = _GREY * 3
_TO_CHROMA: tuple[float, ...] = tuple(float(i % 4 == 0) - grey for i, grey in enumerate(_TO_GREY))


def recolour(pixels: Tensor, source: Tensor, drawn: Tensor, reaches: Sequence[float], hue: float) -> Tensor:
    """Brightness, contrast, saturation and hue of pixels [B, 3, S, S] (0..255) as one affine map; 0..1.

    With G the map to grey and R(h) the rotation of the chroma, brightness b, contrast c and saturation s
    compose to  x -> b c (G + s R(h) (1 - G)) x + b (1 - c) m,  where m is the mean grey of the whole source
    photograph. The clamp to 0..1 comes once, after all four. `drawn` is uniform [B, 4]; `reaches` are those of b, c and
    s, and `hue` that of h, in turns.
    """
    brightness, contrast, saturation = (
        between(drawn[:, column], (max(0.0, 1 - reach), 1 + reach)) for column, reach in enumerate(reaches)
    )
    turn = (2 * drawn[:, 3] - 1) * (2 * math.pi * hue)

    to_grey, to_chroma, quarter_turn = (
        _constant(values, pixels.device) for values in (_TO_GREY, _TO_CHROMA, _QUARTER_TURN)
    )
    matrix = (
        to_grey + (saturation * turn.cos())[:, None] * to_chroma + (saturation * turn.sin())[:, None] * quarter_turn
    )
    matrix = matrix * (brightness * contrast / 255)[:, None]  # [B, 9]
    # Sums of a row are whole numbers, exact in float32: the mean does not depend on the order of adding.
    total = source.sum(3).double().sum(2)  # [B, 3]
    grey = (total * to_grey[:3]).sum(1) / (255 * source.shape[2] * source.shape[3])
    offset = brightness * (1 - contrast) * grey

    # Not a matrix product: that would run at the reduced precision that training may have switched on.
    matrix = matrix.to(torch.float32).view(-1, 3, 3, 1, 1)  # [B, to, from, 1, 1]
    red, green, blue = pixels.split(1, 1)  # each [B, 1, S, S]
    recoloured = red * matrix[:, :, 0]  # [B, 3, S, S]
    recoloured.addcmul_(green, matrix[:, :, 1]).addcmul_(blue, matrix[:, :, 2])
    return recoloured.add_(offset.to(torch.float32)[:, None, None, None]).clamp_(0, 1)


def normalised(pixels: Tensor, white: float, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Pixels [B, 3, H, W] on the scale 0..white, normalised; the memory is used anew."""
    factor = _constant(tuple(1 / (white * s) for s in std), pixels.device)
    offset = _constant(tuple(-m / s for m, s in zip(mean, std, strict=True)), pixels.device)
    return pixels.mul_(factor[:, None, None]).add_(offset[:, None, None])


@functools.lru_cache(maxsize=64)
def _constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Numbers on the device, float32; kept, because a CUDA graph cannot copy them there each time."""
    return torch.tensor(values, dtype=torch.float32, device=device)


def between(drawn: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Draws in 0..1, float64 [B], as numbers between `bounds`."""
    low, high = bounds
    return low + drawn * (high - low)
