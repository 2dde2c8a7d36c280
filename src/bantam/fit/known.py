"""What is known of the photographs before they are decoded: how many, of which classes, how large, how fast to read."""

import statistics
import time
from collections import Counter
from dataclasses import dataclass

import numpy as np

from bantam.data import images
from bantam.data.folder import Listing, Record
from bantam.data.splits import Splits
from bantam.data.splitting import share_of
from bantam.errors import BadImage

SAMPLE = 48
"""Photographs that are opened to see how large they are, drawn evenly."""

LARGE = 256
"""Side in pixels at which the sample is decoded: what larger students look at."""

SIGN = 64
"""Most pixels a side of pictures that may be of signs, such as digits."""

GREY = 8
"""Most that the colours of a grey picture differ by, of 255."""


@dataclass(frozen=True)
class Known:
    """Photographs for training, validation and without labels; classes; images of the smallest; pixels a side.

    `side` is the median of the shorter sides. `signs` says that they are small and grey, as digits are: these are not
    mirrored. `largest` is the share of the most frequent class in validation.
    """

    training: int
    validation: int
    evaluation: int
    classes: int
    fewest: int
    side: int
    signs: bool
    largest: float

    @property
    def images(self) -> int:
        """All of them."""
        return self.training + self.validation + self.evaluation


@dataclass(frozen=True)
class Looked:
    """What a sample of photographs shows: the median side, whether they are signs, and seconds to read one."""

    side: int
    signs: bool
    seconds: float


def sample(listing: Listing) -> Looked:
    """Open a few photographs. One that cannot be read is told by whoever decodes all of them."""
    folder = listing.folder
    records = [*folder.training, *folder.validation, *folder.evaluation]
    chosen = records[:: max(1, len(records) // SAMPLE)][:SAMPLE]
    started = time.perf_counter()
    seen = [one for one in images.in_parallel(_look, chosen) if one is not None]
    seconds = (time.perf_counter() - started) / max(1, len(chosen))
    if not seen:
        return Looked(LARGE, False, seconds)
    side = round(statistics.median(side for side, _ in seen))
    return Looked(side, side <= SIGN and all(grey for _, grey in seen), seconds)


def _look(record: Record) -> tuple[int, bool] | None:
    """The shorter side of a photograph, and whether it is grey; None where it cannot be read."""
    try:
        data = images.read(record.path)
        width, height = images.to_rgb(data, record.path).size
        pixels = images.decode_bytes(data, record.path, min(width, height, LARGE)).astype(np.int16)  # [S, S, 3]
    except BadImage:
        return None
    return min(width, height), int((pixels.max(2) - pixels.min(2)).max()) <= GREY


def of_names(listing: Listing, looked: Looked) -> Known:
    """What the names tell; where validation is yet to be split off, about what will be."""
    folder = listing.folder
    training, validation = len(folder.training), len(folder.validation)
    counts = Counter(record.label for record in folder.training)
    if not folder.divided:
        validation = max(len(counts), round(share_of(training) * training))
        training -= validation
    largest = max(counts.values()) / max(1, sum(counts.values()))
    evaluation = len(folder.evaluation)
    return Known(
        training, validation, evaluation, len(folder.classes), min(counts.values()), looked.side, looked.signs, largest
    )


def of_splits(splits: Splits, looked: Looked) -> Known:
    """What the opened photographs are, to the image."""
    labels, judged = splits.training.labels.bincount(minlength=len(splits.classes)), splits.validation.labels.bincount()
    return Known(
        len(splits.training),
        len(splits.validation),
        len(splits.evaluation) if splits.evaluation is not None else 0,
        len(splits.classes),
        int(labels.min()),
        looked.side,
        looked.signs,
        float(judged.max() / judged.sum()),
    )
