"""A shipped student as one answers with it: a photograph's bytes in, class probabilities out.

A photograph goes the way of the training images: decoded and cropped to the size at which the recipe stores images, as
`data.cache` does it, then the plain view at the student's own size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bantam.data import images
from bantam.data.splits import UnlabelledSplit
from bantam.deliver.graph_classifier import FOOD11, ranked  # noqa: F401
from bantam.measure.crops import require_tta
from bantam.measure.dynamic import Left
from bantam.measure.leaving import leave_early
from bantam.measure.tta import answer_while_unsure, logits_of_tta
from bantam.nets.early_exit import without_exits
from bantam.nets.output import StagedNet
from bantam.runs.finished import FinishedRun
from bantam.runs.shipped import Shipped


@dataclass(frozen=True)
class Classifier:
    """`stored`: side in pixels at which images are kept before a view; `tta`: what its answers are averaged over."""

    net: StagedNet
    shipped: Shipped
    stored: int
    tta: str

    def pixels(self, data: bytes, name: Path) -> Tensor:
        """A file's pixels, uint8 [1, stored, stored, 3]. Raises BadImage, which says `name`."""
        return torch.from_numpy(images.decode_bytes(data, name, self.stored))[None]

    def probabilities(self, pixels: Tensor, look: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Of uint8 images [N, stored, stored, 3] the class probabilities float32 [N, K].

        `look` answers in the net's place: normalised views [N, 3, size, size] to logits [N, K].
        """
        split = UnlabelledSplit(pixels, tuple(map(str, range(len(pixels)))))
        size, normalisation = self.shipped.student.size, self.shipped.normalisation
        return logits_of_tta(self.net, split, size, normalisation, self.tta, look=look).softmax(1)


def load_classifier(
    run: FinishedRun, tta: str | None = None, width: float | None = None, size: int | None = None
) -> Classifier:
    """The student that `run` shipped, for images stored as its recipe says; without `tta`, with what it chose.

    `width` and `size` in pixels are those of a switchable student. Raises BadData where the run is not finished or
    there are no such TTA or switch, BadCheckpoint for unfit weights.
    """
    stored = run.stored
    net, shipped = run.at_switch(width, size)
    chosen = run.tta
    if tta is not None:
        require_tta(tta)
    return Classifier(net, shipped, stored, tta or chosen)


def classify_files(classifier: Classifier, paths: list[Path]) -> Tensor:
    """The class probabilities [N, K] of image files. Raises BadImage for the first that cannot be read."""
    rows = [classifier.probabilities(classifier.pixels(images.read(path), path)) for path in paths]
    return torch.cat(rows)


def classify_early(classifier: Classifier, paths: list[Path], confidence: float, run: FinishedRun) -> Left:
    """The answers to image files from the first early exit of the student of `run` that is sure by `confidence`, 0..1.

    Raises BadImage for the first that cannot be read, and BadData without exits or for a threshold outside 0..1.
    """
    net = run.require_exits(classifier.net)
    pixels = torch.cat([classifier.pixels(images.read(path), path) for path in paths])
    split, shipped = UnlabelledSplit(pixels, tuple(map(str, paths))), classifier.shipped
    return leave_early(net, split, shipped.student.size, shipped.normalisation, confidence)


def classify_while_unsure(classifier: Classifier, paths: list[Path], confidence: float) -> Left:
    """The answers to image files, with further TTA crops only while they are less sure than `confidence`, 0..1.

    Raises BadImage for the first that cannot be read, and BadData where the classifier has one crop alone or for a
    threshold outside 0..1.
    """
    pixels = torch.cat([classifier.pixels(images.read(path), path) for path in paths])
    split = UnlabelledSplit(pixels, tuple(map(str, paths)))
    size, normalisation = classifier.shipped.student.size, classifier.shipped.normalisation
    return answer_while_unsure(without_exits(classifier.net), split, size, normalisation, classifier.tta, confidence)
