"""The validation images with the student's answers, to look through: all, the wrong ones, the unsure ones."""

import io
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from bantam.data.splits import LabelledSplit, require_labelled
from bantam.deliver.classify import Classifier

CHUNK = 125  # images between two looks at whether somebody waits for an answer
PAUSE = 0.01  # seconds; whoever lets a lock go and takes it again at once gets it before those who wait
PAGE = 60
UNSURE = 0.5
"""Below this largest probability the student is called unsure."""

SHOWN: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "all": lambda right, sure: torch.ones_like(right),
    "wrong": lambda right, sure: ~right,
    "unsure": lambda right, sure: sure < UNSURE,
}


class Gallery:
    """Answers for a labelled split; `fill` computes them, a chunk at a time, and `page` shows what is there."""

    def __init__(self, split: LabelledSplit) -> None:
        self.split = require_labelled(split, "the gallery")
        self.done = 0
        self.sure = torch.zeros(len(split))  # [N]
        self.predicted = torch.zeros(len(split), dtype=torch.int64)  # [N]

    def fill(self, classifier: Classifier, turn: AbstractContextManager[Any]) -> None:
        """Answer for every image; between chunks the `turn` is let go, for whoever waits."""
        for start in range(0, len(self.split), CHUNK):
            here = slice(start, min(start + CHUNK, len(self.split)))
            with turn:
                probabilities = classifier.probabilities(self.split.images[here])  # [B, K]
            self.sure[here], self.predicted[here] = probabilities.max(1)
            self.done = here.stop
            time.sleep(PAUSE)

    def page(self, show: str, label: int | None, offset: int) -> dict[str, Any]:
        """At most PAGE images from `offset` on: the surest mistakes first, the least sure first, or in their order.

        Raises KeyError where SHOWN has no `show`.
        """
        n = self.done
        labels = self.split.labels[:n]
        right, sure = self.predicted[:n] == labels, self.sure[:n]
        chosen = SHOWN[show](right, sure)
        if label is not None:
            chosen = chosen & (labels == label)
        indices = chosen.nonzero().flatten()
        if show != "all":
            indices = indices[sure[indices].argsort(descending=show == "wrong", stable=True)]
        items = [
            {
                "index": index,
                "id": self.split.ids[index],
                "label": int(labels[index]),
                "predicted": int(self.predicted[index]),
                "sure": float(sure[index]),
            }
            for index in indices[offset : offset + PAGE].tolist()
        ]
        return {"done": n, "of": len(self.split), "found": len(indices), "offset": offset, "items": items}

    def png(self, index: int) -> bytes:
        """The picture, as it is stored. Raises IndexError where there is none."""
        if not 0 <= index < len(self.split):
            raise IndexError(index)
        file = io.BytesIO()
        Image.fromarray(self.split.images[index].numpy()).save(file, "png")
        return file.getvalue()
