"""The view at test time without torch: what `bantam.data.augment.plain` gives before the normalisation, in numpy."""

import functools

import numpy as np


def resized(images: np.ndarray, size: int) -> np.ndarray:
    """Images uint8 [B, H, W, 3] to float32 [B, 3, size, size] in 0..1, whatever their aspect.

    Bilinear with antialiasing where the sizes differ, as `torch.nn.functional.interpolate` has it.
    """
    pixels = images.transpose(0, 3, 1, 2).astype(np.float32)  # [B, 3, H, W]
    height, width = pixels.shape[2:]
    if (height, width) != (size, size):
        pixels = _shares(height, size) @ pixels @ _shares(width, size).T  # [B, 3, size, size]
    return pixels / np.float32(255)


@functools.lru_cache(maxsize=64)
def _shares(whole: int, size: int) -> np.ndarray:
    """How much each of `whole` pixels in a row has of each of `size`: float32 [size, whole], rows that add up to 1.

    A triangle about the new pixel's centre, two old pixels wide, or two new ones where these are wider. In float32
    throughout, as torch has it: with many pixels the centres' rounding is the largest.
    """
    scale = np.float32(whole / size)
    new, old = np.arange(size, dtype=np.float32)[:, None], np.arange(whole, dtype=np.float32)
    away = np.abs(old - scale * (new + np.float32(0.5)) + np.float32(0.5)) / max(scale, np.float32(1))  # [size, whole]
    triangle = np.maximum(1 - away, 0)
    return triangle / triangle.sum(1, keepdims=True)
