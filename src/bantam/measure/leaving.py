"""Answers with early exits: of a net, at a threshold, image by image."""

import torch
from torch import Tensor

from bantam.data.splits import LabelledSplit, Normalisation, UnlabelledSplit
from bantam.errors import BadData
from bantam.measure.dynamic import Left
from bantam.measure.logits import logits_of
from bantam.nets.early_exit import EarlyExitNet, macs_of_exits


def leave_early(
    net: EarlyExitNet,
    split: LabelledSplit | UnlabelledSplit,
    size: int,
    normalisation: Normalisation,
    confidence: float,
    macs: tuple[int, ...] = (),
) -> Left:
    """The answers to all images of `split` in plain view, each from the first exit that is sure by `confidence`, 0..1.

    `macs` are those of `macs_of_exits`, for whoever asks often. Raises BadData for a threshold outside 0..1.
    """
    if not 0 <= confidence <= 1:
        raise BadData(f"--exit-confidence = {confidence:g} must lie in 0..1")
    thresholds = [confidence] * len(net.exits)

    def look(views: Tensor) -> Tensor:
        logits, place = net.leave(views, thresholds)
        return torch.cat((logits, place[:, None].to(logits.dtype)), 1)  # [B, K], [B] -> [B, K + 1]

    answers = logits_of(net, split, size, normalisation, look=look)
    return Left(answers[:, :-1], answers[:, -1].long(), macs or macs_of_exits(net, size), names_of_exits(net))


def names_of_exits(net: EarlyExitNet) -> tuple[str, ...]:
    """Where an image may leave: "exit 1" and so on, and "the end"."""
    return (*(f"exit {number}" for number in range(1, len(net.exits) + 1)), "the end")


def require_some_left(left: Left, confidence: float) -> None:
    """Raises BadData where no image has left before the end."""
    if left.counts[-1] == len(left.place):
        raise BadData(
            f"no image reaches the confidence {confidence:g} at an exit, so nothing is saved; choose a lower "
            "--exit-confidence (`bantam exits RUN --data DIR` finds one)"
        )
