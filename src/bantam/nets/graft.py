"""One net's weights into another of the same family, as far as both have them."""

import torch
from torch import nn


@torch.no_grad()
def graft(net: nn.Module, source: nn.Module) -> None:
    """Give `net` what `source` has by the same name: of each dimension the first entries that both have.

    The head stays as it is, for it knows other classes.
    """
    theirs = source.state_dict()
    for name, own in net.state_dict().items():
        other = theirs.get(name)
        if other is None or other.ndim != own.ndim or name.startswith("head."):
            continue
        shared = tuple(slice(min(pair)) for pair in zip(own.shape, other.shape, strict=True))
        own[shared] = other[shared].to(own)
