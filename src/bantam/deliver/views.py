"""Test-time views: what a student looks at before it answers, with weights that validation chose among a few.

Averaging over views costs passes and no parameters. The candidates are few and coarse on purpose: each is one more look
at validation, and a fine grid would fit its noise.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bantam.data.augment import plain
from bantam.data.splits import LabelledSplit, Normalisation, UnlabelledSplit, require_labelled
from bantam.errors import BadData
from bantam.measure.accuracy import Accuracy, accuracy

CHUNK = 250  # images at a time


@dataclass(frozen=True)
class View:
    """A square part of the image: its side, and its left and top edge, as shares of the image's; perhaps mirrored.

    `weight` is its share in the mean of the log-probabilities.
    """

    side: float = 1.0
    left: float = 0.0
    top: float = 0.0
    mirrored: bool = False
    weight: float = 1.0


def both_ways(*views: View) -> tuple[View, ...]:
    """Each view and its mirror image, with half of its weight each."""
    return tuple(
        View(view.side, view.left, view.top, mirrored, view.weight / 2) for view in views for mirrored in (False, True)
    )


SIDE = 0.875
"""The side of a crop, as in Krizhevsky, Sutskever and Hinton (2012): 224 of 256 pixels."""

EDGE = 1 - SIDE

VIEWS: dict[str, tuple[View, ...]] = {
    "plain": (View(),),
    "flip": both_ways(View()),
    "zoom": both_ways(View(weight=0.5), View(SIDE, EDGE / 2, EDGE / 2, weight=0.5)),
    "crops": both_ways(
        View(weight=0.5),
        *(
            View(SIDE, left, top, weight=0.1)
            for left, top in ((0, 0), (EDGE, 0), (0, EDGE), (EDGE, EDGE), (EDGE / 2, EDGE / 2))
        ),
    ),
}
"""What may be chosen, cheapest first. The weights of each add up to 1."""


def logits_of_views(
    net: nn.Module,
    split: LabelledSplit | UnlabelledSplit,
    size: int,
    normalisation: Normalisation,
    views: str,
    *,
    look: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Log-probabilities float32 [N, K], averaged over VIEWS[views], on the CPU; plain logits for "plain".

    `net` is taken in eval mode, and its mode put back afterwards; `look` answers in its place. Raises BadData for an
    unknown name.
    """
    return _answers(net, split, size, normalisation, (views,), look)[0]


def choose_views(
    net: nn.Module, validation: LabelledSplit, size: int, normalisation: Normalisation
) -> tuple[str, dict[str, Accuracy]]:
    """The name in VIEWS that is best on validation, the cheaper one of equals, and the accuracy of every one.

    Raises SplitLeak for an unlabelled split.
    """
    validation = require_labelled(validation, "the choice of test-time views")
    answers = _answers(net, validation, size, normalisation, tuple(VIEWS))
    measured = {name: accuracy(rows, validation.labels) for name, rows in zip(VIEWS, answers, strict=True)}
    return max(measured, key=lambda name: measured[name].correct), measured


def views_of(validation: Mapping[str, Any]) -> str:
    """The name of the views that a run chose: `validation` is that table of its metrics.json."""
    return validation.get("views") or ("flip" if validation["flip"] else "plain")


@torch.inference_mode()
def _answers(
    net: nn.Module,
    split: LabelledSplit | UnlabelledSplit,
    size: int,
    normalisation: Normalisation,
    names: tuple[str, ...],
    look: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """The answers [len(names), N, K] under each name. Each view is looked at once."""
    for name in names:
        if name not in VIEWS:
            raise BadData(f'no test-time views are named "{name}"; choose from {", ".join(VIEWS)}')
    was_training = net.training
    net.eval()
    device = next(net.parameters()).device
    chunks: list[Tensor] = []
    for start in range(0, len(split), CHUNK):
        images = split.images[start : start + CHUNK].to(device)  # [B, H, W, 3] uint8
        seen: dict[View, Tensor] = {}

        def answer(view: View, images: Tensor = images, seen: dict[View, Tensor] = seen) -> Tensor:
            part = View(view.side, view.left, view.top, view.mirrored)
            if part not in seen:
                seen[part] = (look or net)(crop(images, part, size, normalisation)).float()
            return seen[part]

        rows: list[Tensor] = []
        for name in names:
            views = VIEWS[name]
            if len(views) == 1:
                rows.append(answer(views[0]))
            else:
                weighted = [view.weight * answer(view).log_softmax(1) for view in views]
                rows.append(torch.stack(weighted).sum(0))
        chunks.append(torch.stack(rows).cpu())
    net.train(was_training)
    return torch.cat(chunks, 1)


def crop(images: Tensor, view: View, size: int, normalisation: Normalisation) -> Tensor:
    """The `view` of images uint8 [B, H, W, 3] as a net takes it: float32 [B, 3, size, size], normalised."""
    height, width = images.shape[1:3]
    top, left = round(view.top * height), round(view.left * width)
    part = images[:, top : top + round(view.side * height), left : left + round(view.side * width)]
    looked = plain(part, size, normalisation.mean, normalisation.std)
    return looked.flip(3) if view.mirrored else looked
