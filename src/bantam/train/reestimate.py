"""BatchNorm's statistics estimated anew, for the finished weights.

While a net trains, its running statistics trail behind the weights and see augmented views; those of averaged weights
are averages of other nets' statistics. The statistics of the finished net on plain views are another choice, which
costs one pass without gradients and no parameters ("precise BatchNorm": Wu and Johnson, 2021, arXiv:2105.07576).
"""

from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bantam.data.augment import plain
from bantam.data.splits import LabelledSplit, Normalisation, require_labelled
from bantam.nets.output import StagedNet
from bantam.nets.slimmable import each_switch

Net = TypeVar("Net", bound=nn.Module)

BATCH = 256
IMAGES = 10_000
"""At most so many images are looked at: the mean of so many is exact enough."""


def has_statistics(net: nn.Module) -> bool:
    """Whether there is any BatchNorm; a net as it ships mostly has none, for they are folded away."""
    return any(isinstance(module, _BatchNorm) for module in net.modules())


@torch.no_grad()
def reestimated(
    net: Net, training: LabelledSplit, size: int, normalisation: Normalisation, images: int = IMAGES
) -> Net:
    """`net` itself, in eval mode, its BatchNorm statistics now the means over plain views of `images` of `training`.

    The mean and the variance are averages over batches of one size, drawn from all classes; an incomplete last batch is
    left out. Every switch of a switchable net gets its own. A net without BatchNorm stays as it is. Raises SplitLeak
    for an unlabelled split.
    """
    training = require_labelled(training, "the estimation of BatchNorm statistics")
    layers = [module for module in net.modules() if isinstance(module, _BatchNorm)]
    net.eval()
    if not layers:
        return net
    device = next(net.parameters()).device
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the plain mean of all batches
        layer.train()
    images = min(images, len(training))
    # Photographs stand in the order of their classes: batches cut from that would hide how far the classes differ.
    chosen = torch.randperm(len(training), generator=torch.Generator().manual_seed(0))[:images]
    show = net.observe if isinstance(net, StagedNet) else net  # `observe` calls early exits too
    for index in chosen[: max(1, images // BATCH) * BATCH].split(BATCH):
        views = plain(training.images[index].to(device), size, normalisation.mean, normalisation.std)
        for _ in each_switch(net):
            show(views)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    return net.eval()
