"""The view at test time in numpy is that of torch, but for rounding."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from bantam.data.augment import plain
from bantam.data.resize import _shares, resized


def pictures(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (2, height, width, 3), np.uint8)


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(64, 64, 64), (56, 56, 64), (112, 112, 64), (128, 96, 64), (33, 200, 64), (64, 63, 64), (7, 5, 32), (1, 1, 9),
     (300, 201, 17), (65, 64, 64), (97, 97, 96), (40, 64, 1)],
)  # fmt: skip
def test_it_is_the_plain_view_before_the_normalisation(height: int, width: int, size: int) -> None:
    images = pictures(height, width)
    expected = plain(torch.from_numpy(images), size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)).numpy()
    seen = resized(images, size)
    assert (seen.shape, seen.dtype) == ((2, 3, size, size), np.float32)
    np.testing.assert_allclose(seen, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("whole", "size"), [(56, 64), (112, 64), (201, 17), (65, 64), (5, 32)])
def test_each_pixel_is_shared_out_as_torch_does_in_float64(whole: int, size: int) -> None:
    row = torch.eye(whole, dtype=torch.float64)[None, :, None]  # one picture a pixel
    shares = functional.interpolate(row, (1, size), mode="bilinear", antialias=True)[0, :, 0].T  # [size, whole]
    np.testing.assert_allclose(_shares(whole, size), shares.numpy(), rtol=0, atol=2e-5)
    np.testing.assert_allclose(_shares(whole, size).sum(1), 1, rtol=0, atol=1e-6)
