"""Computing more only where it is needed: a small pass first, a large one for the images it is unsure about.

The resolution cascade runs one net twice, at a lower and at its own input size; it has no parameters of its own. An
image is answered by the first pass where the largest probability reaches a threshold. Wang et al., "Resolution Adaptive
Networks", CVPR 2020, arXiv:2003.07326, have the idea; here the net is the shipped one and nothing is trained.

Everything is arithmetic on logits [N, K] of the same images, and on the MACs of each pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bantam.errors import BadData
from bantam.measure.accuracy import Accuracy, accuracy, hits, mcnemar


@dataclass(frozen=True)
class Point:
    """One setting of a dynamic net on labelled images: the share of images that stop at the first pass, the accuracy,
    the mean MACs of an image, and McNemar's p-value against the last pass alone."""

    threshold: float
    stopped: float
    accuracy: Accuracy
    mean_macs: float
    p: float


def confidence(logits: Tensor) -> Tensor:
    """The largest probability of each image, float32 [N]."""
    return logits.softmax(1).amax(1)


def combined(first: Tensor, last: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """The logits [N, K] of the cascade, and whether each image [N] stopped at the first pass."""
    stopped = confidence(first) >= threshold
    return torch.where(stopped[:, None], first, last), stopped


def point(first: Tensor, last: Tensor, labels: Tensor, macs: tuple[int, int], threshold: float) -> Point:
    """Measure one threshold; `macs` are those of the first and of the last pass, both paid where it goes on."""
    logits, stopped = combined(first, last, threshold)
    share = float(stopped.double().mean())
    return Point(
        threshold=threshold,
        stopped=share,
        accuracy=accuracy(logits, labels),
        mean_macs=macs[0] + (1 - share) * macs[1],
        p=mcnemar(hits(last, labels), hits(logits, labels)).p,
    )


def curve(first: Tensor, last: Tensor, labels: Tensor, macs: tuple[int, int], steps: int = 20) -> list[Point]:
    """Points from all images going on to all stopping, at equal shares of images."""
    sure = confidence(first).double()
    thresholds = torch.quantile(sure, torch.linspace(0, 1, steps + 1, dtype=torch.float64)).flip(0).tolist()
    return [point(first, last, labels, macs, threshold) for threshold in thresholds]


def cheapest(points: Sequence[Point], reference: Accuracy, drop: float) -> Point | None:
    """The point of the fewest mean MACs whose accuracy is at most `drop` below `reference`, or None."""
    allowed = [item for item in points if item.accuracy.value >= reference.value - drop - 1e-12]
    return min(allowed, key=lambda item: item.mean_macs, default=None)


def held_out(first: Tensor, last: Tensor, labels: Tensor, macs: tuple[int, int], drop: float) -> Accuracy:
    """The accuracy of the cascade on images that did not choose its threshold.

    Every other image chooses for the rest, and the other way round; the two halves are added up.
    """
    halves = [slice(0, None, 2), slice(1, None, 2)]
    correct = 0
    for mine, other in (halves, halves[::-1]):
        reference = accuracy(last[mine], labels[mine])
        found = cheapest(curve(first[mine], last[mine], labels[mine], macs), reference, drop)
        threshold = found.threshold if found else float("inf")
        correct += int(hits(combined(first[other], last[other], threshold)[0], labels[other]).sum())
    return Accuracy(correct, len(labels))


def require_reached(first: Tensor, threshold: float) -> None:
    """Raises BadData where no image reaches `threshold`, so that every image would pay both passes."""
    largest = float(confidence(first).max())
    if largest < threshold:
        raise BadData(
            f"no image reaches the confidence {threshold:g} in the first pass, the surest has {largest:.3f}; "
            "choose a lower --confidence"
        )
