"""BatchNorm's running statistics, taken anew from training images: a pruned net's maps have other means than before."""

import copy
from typing import TypeVar

import torch
from torch import nn

from bantam.data.augment import plain
from bantam.data.splits import LabelledSplit, Normalisation, require_labelled

BATCH = 100
Net = TypeVar("Net", bound=nn.Module)


def has_statistics(net: nn.Module) -> bool:
    """Whether there is any BatchNorm; a net as it ships mostly has none, for they are folded away."""
    return any(isinstance(module, nn.BatchNorm2d) for module in net.modules())


@torch.no_grad()
def reestimated(net: Net, training: LabelledSplit, size: int, normalisation: Normalisation) -> Net:
    """A copy of `net`, in eval mode, whose BatchNorms hold the mean statistics of the plain views of `training`.

    Every batch of BATCH images counts the same, and an incomplete last one nothing. No weight changes.
    Raises SplitLeak for an unlabelled split.
    """
    training = require_labelled(training, "BatchNorm's statistics")
    fresh = copy.deepcopy(net).eval()
    for module in fresh.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # a plain mean over the batches
            module.train()
    batch = min(BATCH, len(training))
    for start in range(0, len(training) - batch + 1, batch):
        images = training.images[start : start + batch]  # [B, H, W, 3] uint8
        fresh(plain(images, size, normalisation.mean, normalisation.std))
    for before, module in zip(net.modules(), fresh.modules(), strict=True):
        if isinstance(before, nn.BatchNorm2d) and isinstance(module, nn.BatchNorm2d):
            module.momentum = before.momentum
    return fresh.eval()
