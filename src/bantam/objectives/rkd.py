"""Relational knowledge distillation: distances and angles between the images of a batch."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from bantam.nets.output import Output
from bantam.objectives.features import unit
from bantam.objectives.hyperparameters import require_not_negative
from bantam.objectives.objective import Objective, full_precision

COINCIDENT = 1e-4
"""Two embeddings closer than this share of the batch's root mean square distance count as one point."""


def distance_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """1 / N^2 * sum_ij huber(d_ij(student) / mu(student) - d_ij(teacher) / mu(teacher)).

    d is the Euclidean distance, mu its mean over the N (N - 1) pairs of different images, huber the smooth L1
    loss with its corner at 1. Invariant to the scale, shift and rotation of either embedding. Source: Park et
    al., "Relational Knowledge Distillation", CVPR 2019, equations 4 to 6.

    Args:
        student: embeddings [N, D].
        teacher: embeddings [N, D'].

    Returns:
        A scalar of at least 0; 0 for a batch of one.
    """
    return F.smooth_l1_loss(relative_distances(student), relative_distances(teacher))


def angle_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """1 / N^3 * sum_ijk huber(cos_ijk(student) - cos_ijk(teacher)), cos_ijk the cosine of the angle at j.

    Invariant to the scale, shift and rotation of either embedding. Needs N^3 + N^2 D numbers of memory.
    Source: Park et al., "Relational Knowledge Distillation", CVPR 2019, equations 7 and 8.

    Args:
        student: embeddings [N, D].
        teacher: embeddings [N, D'].

    Returns:
        A scalar of at least 0; 0 for a batch of one.
    """
    return F.smooth_l1_loss(cosines(student), cosines(teacher))


def relative_distances(embedding: Tensor) -> Tensor:
    """[N, D] to the pairwise distances [N, N] divided by their mean over different images."""
    differences, floor = pairwise_differences(embedding)
    squared = differences.square().sum(dim=-1)  # [N, N, D] -> [N, N]
    apart = squared > floor**2
    # The square root has no derivative at 0, where every image stands against itself.
    distances = torch.where(apart, torch.where(apart, squared, 1).sqrt(), 0)
    pairs = len(embedding) * (len(embedding) - 1)
    total = distances.sum()
    return distances * torch.where(total > 0, pairs / torch.where(total > 0, total, 1), 0)


def cosines(embedding: Tensor) -> Tensor:
    """[N, D] to cos of the angle i-j-k, at [j, i, k]: [N, N, N]."""
    differences, floor = pairwise_differences(embedding)
    directions = unit(differences, floor)
    return directions @ directions.transpose(1, 2)


def pairwise_differences(embedding: Tensor) -> tuple[Tensor, Tensor]:
    """x_i - x_j at [j, i], [N, N, D], and the distance [] below which two points count as one."""
    embedding = full_precision(embedding)
    differences = embedding.unsqueeze(0) - embedding.unsqueeze(1)
    root_mean_square = differences.detach().square().sum(dim=-1).mean().sqrt()
    return differences, COINCIDENT * root_mean_square


class RKD(Objective):
    """Distances and angles, in the proportion `distance` to `angle`: the authors use 1 to 2."""

    paper: ClassVar[str] = "Park et al., Relational Knowledge Distillation, CVPR 2019"
    needs: ClassVar[frozenset[str]] = frozenset({"embedding"})

    def __init__(self, distance: float = 1.0, angle: float = 2.0) -> None:
        super().__init__()
        require_not_negative(distance=distance, angle=angle)
        self.distance = distance
        self.angle = angle

    def terms(
        self, student: Output, teacher: Output | None, targets: Tensor, progress: float | Tensor
    ) -> dict[str, Tensor]:
        known = self.taught_by(teacher).embedding
        return {
            "rkd_distance": self.distance * distance_loss(student.embedding, known),
            "rkd_angle": self.angle * angle_loss(student.embedding, known),
        }
