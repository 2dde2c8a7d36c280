"""Comparing what two nets of different width and resolution have seen of the same images."""

import torch
import torch.nn.functional as F
from torch import Tensor

from bantam.errors import BadRecipe
from bantam.nets.output import Output


def unit(vectors: Tensor, floor: float | Tensor = 1e-8) -> Tensor:
    """Vectors of the last dimension divided by their length.

    A vector not longer than `floor` becomes zero and passes no gradient on: it has no direction to speak of,
    and dividing by a small constant instead would send back gradients of its inverse.
    """
    squared = vectors.square().sum(dim=-1, keepdim=True)
    directed = squared > floor**2
    length = torch.where(directed, squared, 1).sqrt()
    return torch.where(directed, vectors / length, 0)


def feature_map(objective: str, whose: str, output: Output, stage: int) -> Tensor:
    """The feature map [N, C, H, W] of one stage, counted as Python counts: -1 is the last.

    Raises:
        BadRecipe: the net has no such stage.
    """
    stages = len(output.features)
    if not -stages <= stage < stages:
        raise BadRecipe(
            f"objective {objective}: the {whose} has {stages} stages with feature maps, so there is no stage "
            f"{stage}; choose another stage or net"
        )
    return output.features[stage]


def last_stages(objective: str, student: Output, teacher: Output, stages: int) -> list[tuple[Tensor, Tensor]]:
    """The feature maps of the last `stages` stages of both nets, paired from the classifier backwards.

    Raises:
        BadRecipe: one of the nets has fewer stages.
    """
    return [
        (feature_map(objective, "student", student, -back), feature_map(objective, "teacher", teacher, -back))
        for back in range(1, stages + 1)
    ]


def to_common_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps [N, *, H, W] average-pooled to the smaller height and the smaller width of the two."""
    height = min(student.shape[-2], teacher.shape[-2])
    width = min(student.shape[-1], teacher.shape[-1])
    return to_size(student, height, width), to_size(teacher, height, width)


def to_size(maps: Tensor, height: int, width: int) -> Tensor:
    """Maps [N, C, H, W] averaged to [N, C, height, width]."""
    return maps if maps.shape[-2:] == (height, width) else F.adaptive_avg_pool2d(maps, (height, width))
