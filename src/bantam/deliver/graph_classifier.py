"""A photograph's class in a second: by the ONNX graph of a run's student, with onnxruntime, numpy and Pillow alone.

A photograph goes the same way as in `bantam.deliver.classify`, where a student answers in PyTorch: decoded and cropped
to the size at which the recipe stores images, then seen in the crops of test-time augmentation.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bantam.data import images
from bantam.data.resize import resized
from bantam.deliver.export.session import onnx_session
from bantam.errors import BadRunFile
from bantam.measure.counts import not_finite
from bantam.measure.crops import TTA, require_tta
from bantam.runs import runfolder
from bantam.runs.finished import FinishedRun

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


@dataclass(frozen=True)
class GraphClassifier:
    """`session` has the student, its normalisation inside; `stored`: side in pixels at which images are kept before a
    view; `tta`: what its answers are averaged over."""

    session: "InferenceSession"
    labels: tuple[str, ...]
    stored: int
    tta: str

    def classify(self, path: Path) -> np.ndarray:
        """The class probabilities float32 [K] of an image file. Raises BadImage."""
        return self.probabilities(images.decode(path, self.stored))

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """The class probabilities float32 [K] of an image uint8 [stored, stored, 3]. Raises NotFinite."""
        (seen,), (said,) = self.session.get_inputs(), self.session.get_outputs()
        crops = TTA[self.tta]
        views: list[np.ndarray] = []
        for crop in crops:
            view = resized(pixels[crop.box(*pixels.shape[:2])][None], seen.shape[2])  # [1, 3, size, size]
            views.append(view[..., ::-1] if crop.mirrored else view)
        logits = np.asarray(self.session.run([said.name], {seen.name: np.concatenate(views)})[0])  # [crops, K]
        if not np.isfinite(logits).all():
            raise not_finite(1, 1)
        if len(crops) > 1:
            weights = np.array([crop.weight for crop in crops], logits.dtype)
            logits = weights @ log_softmax(logits)  # [crops, K] -> [K]
        return np.exp(log_softmax(logits)).reshape(-1)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """The logarithms of the probabilities of logits [..., K]."""
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def graph_classifier(run: FinishedRun, tta: str | None = None) -> GraphClassifier | None:
    """The student of `run` by its recorded graph; without `tta`, with what it chose.

    None where the run has no such graph. Raises BadData for an unfinished or damaged run and for unknown TTA.
    """
    stored, encoded = run.stored, run.graph
    if encoded is None:
        return None
    session, labels = onnx_session(encoded), run.described.get("labels")
    classes = session.get_outputs()[0].shape[1]
    if not isinstance(labels, list) or len(labels) != classes or not all(isinstance(name, str) for name in labels):
        raise BadRunFile(f"{run.folder / runfolder.STUDENT} does not name {classes} classes; {runfolder.AGAIN}")
    chosen = run.tta
    if tta is not None:
        require_tta(tta)
    return GraphClassifier(session, tuple(labels), stored, tta or chosen)


def ranked(probabilities: Iterable[float], classes: tuple[str, ...]) -> list[tuple[str, float]]:
    """Class names with the probabilities [K], the largest first; of equals the earlier class."""
    return sorted(zip(classes, map(float, probabilities), strict=True), key=lambda one: -one[1])
