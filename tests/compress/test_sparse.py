"""A convolution as a product with compressed rows is the convolution."""

import pytest
import torch
from torch import nn

from bantam.compress.sparse import SparseProduct


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("kernel", "padding", "dilation"), [(1, 0, 1), (3, 1, 1), (3, 2, 2), (3, 0, 1), (7, 9, 3)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_product_with_compressed_rows_is_the_convolution(
    kernel: int, padding: int, dilation: int, stride: int, bias: bool
) -> None:
    layer = nn.Conv2d(3, 4, kernel, stride, padding, dilation, bias=bias)
    with torch.no_grad():
        layer.weight[torch.rand_like(layer.weight) < 0.5] = 0
    maps = torch.randn(2, 3, 12, 11)
    with torch.inference_mode():
        torch.testing.assert_close(SparseProduct(layer)(maps), layer(maps), rtol=1e-5, atol=1e-5)
