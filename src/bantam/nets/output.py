"""What a net shows to whoever teaches it, and the base class of every student."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn


class Output(NamedTuple):
    """Everything an objective may look at, for a batch of N images and K classes.

    logits: [N, K], before the softmax. embedding: [N, D], the input of the classifier. features: one map
    [N, C, H, W] per stage, from the input's side to the classifier's; empty for a net without maps. exits: the logits
    [N, K] of each early exit in order; empty for a net without any.
    """

    logits: Tensor
    embedding: Tensor
    features: tuple[Tensor, ...]
    exits: tuple[Tensor, ...] = ()


class StagedNet(nn.Module):
    """Stages one after another, global average pooling, and a linear classifier.

    `stages` map [N, 3, H, W] to [N, width, h, w] in turn; each stage's output is one of `Output.features`.
    """

    def __init__(self, stages: Sequence[nn.Module], width: int, classes: int) -> None:
        super().__init__()
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(width, classes)

    def observe(self, images: Tensor) -> Output:
        """Map normalised images [N, 3, H, W] to logits, embedding and one feature map per stage."""
        features: list[Tensor] = []
        maps = images
        for stage in self.stages:
            maps = stage(maps)
            features.append(maps)
        embedding = maps.mean((2, 3))  # [N, D, h, w] -> [N, D]
        return Output(self.head(embedding), embedding, tuple(features))

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images [N, 3, H, W] to logits [N, K]."""
        return self.observe(images).logits
