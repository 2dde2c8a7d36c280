"""A masked net stored sparse: only the weights that are not 0, in compressed rows (CSR), and products with those."""

import copy
import io

import torch
from torch import Tensor, nn
from torch.nn import functional


class SparseProduct(nn.Module):
    """A convolution with groups = 1, or a linear layer, as a product with a matrix in compressed rows."""

    def __init__(self, layer: nn.Conv2d | nn.Linear) -> None:
        super().__init__()
        self.layer = layer
        self.rows = layer.weight.detach().flatten(1).to_sparse_csr()  # [O, I * k * k]

    def forward(self, maps: Tensor) -> Tensor:
        layer = self.layer
        if isinstance(layer, nn.Linear):
            product = (self.rows @ maps.t()).t()  # [N, O]
            return product if layer.bias is None else product + layer.bias
        assert isinstance(layer.padding, tuple)
        height, width = (
            (side + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
            for side, padding, dilation, kernel, stride in zip(
                maps.shape[2:], layer.padding, layer.dilation, layer.kernel_size, layer.stride, strict=True
            )
        )
        if layer.kernel_size == layer.stride == (1, 1):
            columns = maps.flatten(2)  # [N, I, H * W]
        else:
            columns = functional.unfold(maps, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
        flat = columns.transpose(0, 1).flatten(1)  # [N, I * k * k, L] -> [I * k * k, N * L]
        product = self.rows @ flat  # [O, N * L]
        if layer.bias is not None:
            product = product + layer.bias[:, None]
        return product.unflatten(1, (len(maps), height, width)).transpose(0, 1)


def stored_sparse(net: nn.Module) -> nn.Module:
    """A copy of `net` whose products are with compressed rows."""
    sparse = copy.deepcopy(net)
    for name, module in list(sparse.named_modules()):
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1):
            parent, _, own = name.rpartition(".")
            setattr(sparse.get_submodule(parent), own, SparseProduct(module))
    return sparse


def sparse_bytes(net: nn.Module) -> int:
    """Bytes of a file with the compressed rows instead of the weights that they stand for."""
    products = {name: module for name, module in net.named_modules() if isinstance(module, SparseProduct)}
    held = {
        name: value for name, value in net.state_dict().items() if name.removesuffix(".layer.weight") not in products
    }
    for name, module in products.items():
        rows = module.rows
        held[f"{name}.values"] = rows.values()
        held[f"{name}.columns"] = rows.col_indices().int()
        held[f"{name}.starts"] = rows.crow_indices().int()
    return bytes_of(held)


def bytes_of(state: dict[str, Tensor]) -> int:
    """Bytes of the file that torch writes of `state`."""
    file = io.BytesIO()
    torch.save(state, file)
    return file.tell()
