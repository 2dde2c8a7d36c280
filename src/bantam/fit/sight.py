"""How a given teacher sees: whose weights its file holds, and the side at which it is best."""

from pathlib import Path

import torch
from torch import nn

from bantam.data.augment import plain
from bantam.data.splits import IMAGENET, LabelledSplit
from bantam.errors import BadData
from bantam.fit.stopwatch import ANSWERED, Speed, timed
from bantam.measure.accuracy import accuracy
from bantam.measure.counts import Accuracy
from bantam.measure.logits import logits_of
from bantam.nets.teachers import Teacher, recognised
from bantam.runs.watcher import Watcher

SIDES = (64, 96, 128, 160, 224)
"""Pixels a side at which it is tried: it was trained at one of about these."""

LOOKED_AT = 192
"""Validation images on which it is tried."""


def look_at_given(path: Path, validation: LabelledSplit, size: int, watcher: Watcher) -> tuple[str, int, Speed]:
    """The architecture of the teacher in the file `path`, the side at which it is best on views of `size`, its speed.

    Raises BadCheckpoint for a file without the weights of a usual classifier for these classes, and BadData where it
    knows the photographs no better than chance.
    """
    architecture, net = recognised(path, len(validation.classes), watcher.say)
    few = part(validation, LOOKED_AT)
    found = {side: judged(net, few, size, side) for side in SIDES if side >= size}
    best = max(found, key=lambda side: (found[side].correct, -side))
    chance = float(few.labels.bincount().max()) / len(few)
    if found[best].value <= chance:
        raise BadData(
            f"the teacher {path} is right on {found[best]} of {len(few)} validation photographs, and always saying the "
            f"largest class is on {chance:.3f}: its classes are in another order, or it knows other photographs; "
            "leave --teacher out"
        )
    watcher.say(f"the teacher is a {architecture}, right on {found[best]} of {len(few)} photographs at {best} px")
    views = plain(few.images[:ANSWERED], size, IMAGENET.mean, IMAGENET.std)
    teacher = as_teacher(net, best)
    with torch.inference_mode():
        seconds = timed(lambda: teacher(views), 1.0) / len(views)
    return architecture, best, Speed(seconds, seconds)


def judged(net: nn.Module, validation: LabelledSplit, size: int, side: int) -> Accuracy:
    """How often `net`, which looks at `side` pixels, is right on plain views of `size`."""
    logits = logits_of(as_teacher(net, side), validation, size, IMAGENET)
    return accuracy(logits, validation.labels)


def as_teacher(net: nn.Module, side: int) -> Teacher:
    """`net` as it sees a student's views."""
    return Teacher(net, side, IMAGENET.mean, IMAGENET.std, IMAGENET.mean, IMAGENET.std)


def part(split: LabelledSplit, most: int) -> LabelledSplit:
    """At most so many images of `split`, drawn evenly."""
    rows = torch.arange(len(split))[:: max(1, -(-len(split) // most))]
    ids = tuple(split.ids[int(row)] for row in rows)
    return LabelledSplit(split.name, split.images[rows], split.labels[rows], ids, split.classes)
