"""Computing more only where it is needed: a cheap answer first, a better one for the images it is unsure about.

A dynamic net has several ways out, each dearer than the one before: the early exits of a net and its end, or the passes
of a cascade. An image is answered by the first whose largest probability reaches a threshold, else by the last. The
resolution cascade runs one net at a lower and at its own input size, without parameters of its own; Wang et al.,
"Resolution Adaptive Networks", CVPR 2020, arXiv:2003.07326, have the idea; here the net is the shipped one and nothing
is trained.

Everything is arithmetic: `ways` are the logits [N, K] of the same images at each way out, the last one the full net's,
and `macs` what an image has cost that leaves there, all that it passed before included.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bantam.errors import BadData
from bantam.measure.accuracy import Accuracy, accuracy, hits, mcnemar
from bantam.nets.early_exit import confidence


@dataclass(frozen=True)
class Point:
    """One setting of a dynamic net on labelled images: the share of images that leave at each way out, the accuracy,
    the mean MACs of an image, and McNemar's p-value against the last way out alone."""

    threshold: float
    shares: tuple[float, ...]
    accuracy: Accuracy
    mean_macs: float
    p: float

    @property
    def stopped(self) -> float:
        """The share of images that do not go all the way."""
        return sum(self.shares[:-1])

    def to_json(self) -> dict[str, float]:
        """Plain values for a file; the shares are told otherwise by each kind of dynamic net."""
        return {
            "threshold": self.threshold,
            "accuracy": self.accuracy.value,
            "standard_error": self.accuracy.standard_error,
            "n": self.accuracy.n,
            "mean_macs": self.mean_macs,
            "mcnemar_p": self.p,
        }


@dataclass(frozen=True)
class Left:
    """Answers of a dynamic net to N images.

    `logits` [N, K]; `place` int64 [N]: the way out that each image took, from 0 on; `macs`: what an image has cost that
    left at each; `names` of the ways out.
    """

    logits: Tensor
    place: Tensor
    macs: tuple[int, ...]
    names: tuple[str, ...]

    @property
    def counts(self) -> list[int]:
        """How many images left at each way out."""
        return self.place.bincount(minlength=len(self.macs)).tolist()

    @property
    def mean_macs(self) -> float:
        """The multiply-accumulates of an image in the mean."""
        return sum(n * macs for n, macs in zip(self.counts, self.macs, strict=True)) / len(self.place)

    def text(self) -> str:
        """One line: how many left where, and the mean of the multiply-accumulates against those of the whole way."""
        where = [f"{n:,} left at {name}" for n, name in zip(self.counts, self.names, strict=True)]
        return (
            f"{', '.join(where[:-1])}, {self.counts[-1]:,} at {self.names[-1]}; {self.mean_macs / 1e6:.2f} million "
            f"MACs for an image in the mean, {self.macs[-1] / 1e6:.2f} all the way"
        )


Choice = Callable[[Sequence[Point], Accuracy], Point | None]
"""Takes one of the points of a curve, given the accuracy of the last way out alone; or none."""


def combined(ways: Sequence[Tensor], threshold: float) -> tuple[Tensor, Tensor]:
    """The logits [N, K] of the dynamic net, and the number int64 [N] of the way out that each image took, from 0 on."""
    logits = ways[-1].clone()
    left = torch.full((len(logits),), len(ways) - 1)
    for number in reversed(range(len(ways) - 1)):
        sure = confidence(ways[number]) >= threshold
        logits[sure], left[sure] = ways[number][sure], number
    return logits, left


def point(ways: Sequence[Tensor], labels: Tensor, macs: Sequence[int], threshold: float) -> Point:
    """Measure one threshold."""
    logits, left = combined(ways, threshold)
    shares = (left.bincount(minlength=len(ways)).double() / len(left)).tolist()
    return Point(
        threshold=threshold,
        shares=tuple(shares),
        accuracy=accuracy(logits, labels),
        mean_macs=sum(share * cost for share, cost in zip(shares, macs, strict=True)),
        p=mcnemar(hits(ways[-1], labels), hits(logits, labels)).p,
    )


def curve(ways: Sequence[Tensor], labels: Tensor, macs: Sequence[int], steps: int = 20) -> list[Point]:
    """Points from nearly all images going all the way to all leaving at once, at equal shares of the confidences."""
    sure = torch.cat([confidence(logits) for logits in ways[:-1]]).double()
    thresholds = torch.quantile(sure, torch.linspace(0, 1, steps + 1, dtype=torch.float64)).flip(0).tolist()
    return [point(ways, labels, macs, threshold) for threshold in thresholds]


def cheapest(points: Sequence[Point], reference: Accuracy, drop: float) -> Point | None:
    """The point of the fewest mean MACs whose accuracy is at most `drop` below `reference`, or None."""
    allowed = [item for item in points if item.accuracy.value >= reference.value - drop - 1e-12]
    return min(allowed, key=lambda item: item.mean_macs, default=None)


def within_drop(drop: float) -> Choice:
    """The choice of the cheapest point that costs at most `drop` of the accuracy, 0..1."""
    return lambda points, reference: cheapest(points, reference, drop)


def within_macs(macs: float) -> Choice:
    """The choice of the most accurate point of at most `macs` mean multiply-accumulates; of equals the cheapest."""

    def choose(points: Sequence[Point], reference: Accuracy) -> Point | None:
        allowed = [item for item in points if item.mean_macs <= macs]
        return max(allowed, key=lambda item: (item.accuracy.value, -item.mean_macs), default=None)

    return choose


def held_out(ways: Sequence[Tensor], labels: Tensor, macs: Sequence[int], choose: Choice, steps: int = 20) -> Accuracy:
    """The accuracy of the dynamic net on images that did not choose its threshold.

    Every other image chooses for the rest, and the other way round; the two halves are added up.
    """
    halves = [slice(0, None, 2), slice(1, None, 2)]
    correct = 0
    for mine, other in (halves, halves[::-1]):
        own = [logits[mine] for logits in ways]
        found = choose(curve(own, labels[mine], macs, steps), accuracy(own[-1], labels[mine]))
        threshold = found.threshold if found else float("inf")
        correct += int(hits(combined([logits[other] for logits in ways], threshold)[0], labels[other]).sum())
    return Accuracy(correct, len(labels))


def require_reached(ways: Sequence[Tensor], threshold: float) -> None:
    """Raises BadData where no image reaches `threshold` before the last way out, so that none is cheaper."""
    largest = max(float(confidence(logits).max()) for logits in ways[:-1])
    if largest < threshold:
        raise BadData(
            f"no image reaches the confidence {threshold:g} before the end, the surest has {largest:.3f}; "
            "choose a lower --confidence"
        )


def require_share(*options: tuple[str, float | None]) -> None:
    """Raises BadData for a named option whose value is not in 0..1."""
    for name, value in options:
        if value is not None and not 0 <= value <= 1:
            raise BadData(f"{name} = {value:g} must lie in 0..1")
