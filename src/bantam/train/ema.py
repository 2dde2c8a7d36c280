"""Exponential moving average of a net's weights (Polyak and Juditsky, 1992)."""

import copy

import torch
from torch import Tensor, nn


class Ema:
    """A second copy of `net`, in eval mode, whose floating-point state follows the net's slowly.

    BatchNorm's running statistics are averaged like the weights; counters are copied.
    """

    def __init__(self, net: nn.Module) -> None:
        self.net = copy.deepcopy(net).eval().requires_grad_(False)
        pairs = list(zip(self.net.state_dict().values(), net.state_dict().values(), strict=True))
        self.averages = [mine for mine, _ in pairs if mine.is_floating_point()]
        self.sources = [theirs for mine, theirs in pairs if mine.is_floating_point()]
        self.counters = [(mine, theirs) for mine, theirs in pairs if not mine.is_floating_point()]

    @torch.no_grad()
    def update(self, decay: Tensor) -> None:
        """Move the averages towards the net: average = decay * average + (1 - decay) * weight; `decay` is a scalar."""
        difference = torch._foreach_sub(self.sources, self.averages)  # pyright: ignore[reportPrivateImportUsage]
        torch._foreach_mul_(difference, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
        torch._foreach_add_(self.averages, difference)  # pyright: ignore[reportPrivateImportUsage]
        for mine, theirs in self.counters:
            mine.copy_(theirs)
