"""Test-time views: what a student looks at before it answers, with weights that validation chose among a few.

Averaging over views costs passes and no parameters. The candidates are few and coarse on purpose: each is one more look
at validation, and a fine grid would fit its noise. Further views may be kept for the images that the student is unsure
of, which makes them a dynamic computation: Mocerino et al., "Adaptive Test-Time Augmentation for Low-Power CPU", 2021,
arXiv:2105.06183.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from bantam.data.augment import plain
from bantam.data.splits import LabelledSplit, Normalisation, UnlabelledSplit, require_labelled
from bantam.errors import BadData
from bantam.measure.accuracy import Accuracy, accuracy, require_finite
from bantam.measure.dynamic import Left
from bantam.nets.early_exit import confidence as confidence_of
from bantam.nets.footprint import footprint

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

    @property
    def part(self) -> "View":
        """The same part of the image, whatever its weight."""
        return replace(self, weight=1.0)


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
    return answers_of_views(net, split, size, normalisation, (views,), look)[0]


def choose_views(
    net: nn.Module, validation: LabelledSplit, size: int, normalisation: Normalisation
) -> tuple[str, dict[str, Accuracy]]:
    """The name in VIEWS that is best on validation, the cheaper one of equals, and the accuracy of every one.

    Raises SplitLeak for an unlabelled split.
    """
    validation = require_labelled(validation, "the choice of test-time views")
    answers = answers_of_views(net, validation, size, normalisation, tuple(VIEWS))
    measured = {name: accuracy(rows, validation.labels) for name, rows in zip(VIEWS, answers, strict=True)}
    return max(measured, key=lambda name: measured[name].correct), measured


def views_of(validation: Mapping[str, Any]) -> str:
    """The name of the views that a run chose: `validation` is that table of its metrics.json."""
    return validation.get("views") or ("flip" if validation.get("flip") else "plain")


@torch.inference_mode()
def answers_of_views(
    net: nn.Module,
    split: LabelledSplit | UnlabelledSplit,
    size: int,
    normalisation: Normalisation,
    names: tuple[str, ...],
    look: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """The answers float32 [len(names), N, K] under each name, on the CPU. Each view is looked at once."""
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
        rows = [averaged(look or net, images, size, normalisation, name, seen) for name in names]
        chunks.append(torch.stack(rows).cpu())
    net.train(was_training)
    answers = torch.cat(chunks, 1)
    for rows in answers:
        require_finite(rows)
    return answers


def averaged(
    answer: Callable[[Tensor], Tensor],
    images: Tensor,
    size: int,
    normalisation: Normalisation,
    name: str,
    seen: dict[View, Tensor],
) -> Tensor:
    """The answers [B, K] to images uint8 [B, H, W, 3] under VIEWS[name]; `seen` are the views that are known by now."""
    for view in VIEWS[name]:
        if view.part not in seen:
            seen[view.part] = answer(crop(images, view, size, normalisation)).float()
    if len(VIEWS[name]) == 1:
        return seen[VIEWS[name][0].part]
    weighted = [view.weight * seen[view.part].log_softmax(1) for view in VIEWS[name]]
    return torch.stack(weighted).sum(0)


def ladder(views: str) -> tuple[str, ...]:
    """The names in VIEWS from "plain" to `views`; each one's views are among those of the next.

    Raises BadData for "plain", which has no other before it, and for a name that is not there.
    """
    names = tuple(VIEWS)
    if views not in names[1:]:
        raise BadData(
            f'a confidence can save nothing with the views "{views}"; choose --views from {", ".join(names[1:])}'
        )
    return names[: names.index(views) + 1]


@torch.inference_mode()
def look_while_unsure(
    net: nn.Module,
    split: LabelledSplit | UnlabelledSplit,
    size: int,
    normalisation: Normalisation,
    views: str,
    confidence: float,
) -> Left:
    """The answers to all images of `split`, each from the first of `ladder(views)` that is sure by `confidence`, 0..1.

    What an image was looked at already is not looked at again. Raises BadData for a threshold outside 0..1, and for
    views that have none before them.
    """
    if not 0 <= confidence <= 1:
        raise BadData(f"--view-confidence = {confidence:g} must lie in 0..1")
    names = ladder(views)
    was_training = net.training
    net.eval()
    device = next(net.parameters()).device
    logits: list[Tensor] = []
    places: list[Tensor] = []
    for start in range(0, len(split), CHUNK):
        images = split.images[start : start + CHUNK].to(device)  # [B, H, W, 3] uint8
        unsure = torch.arange(len(images), device=device)
        place = torch.full((len(images),), len(names) - 1)
        seen: dict[View, Tensor] = {}
        found: Tensor | None = None
        for number, name in enumerate(names):
            answers = averaged(net, images[unsure], size, normalisation, name, seen)  # [U, K]
            found = answers.clone() if found is None else found
            found[unsure] = answers
            sure = confidence_of(answers) >= confidence
            if number < len(names) - 1:
                place[unsure[sure].cpu()] = number
            unsure, seen = unsure[~sure], {view: rows[~sure] for view, rows in seen.items()}
            if not len(unsure):
                break
        assert found is not None
        logits.append(found.cpu())
        places.append(place)
    net.train(was_training)
    return Left(require_finite(torch.cat(logits)), torch.cat(places), macs_of_views(net, size, names), names)


def macs_of_views(net: nn.Module, size: int, names: Sequence[str]) -> tuple[int, ...]:
    """The multiply-accumulates of an image under each of `names`: one pass of `net` at `size` px for each view."""
    macs = footprint(net, size).macs
    return tuple(len(VIEWS[name]) * macs for name in names)


def crop(images: Tensor, view: View, size: int, normalisation: Normalisation) -> Tensor:
    """The `view` of images uint8 [B, H, W, 3] as a net takes it: float32 [B, 3, size, size], normalised."""
    height, width = images.shape[1:3]
    top, left = round(view.top * height), round(view.left * width)
    part = images[:, top : top + round(view.side * height), left : left + round(view.side * width)]
    looked = plain(part, size, normalisation.mean, normalisation.std)
    return looked.flip(3) if view.mirrored else looked
