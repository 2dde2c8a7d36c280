"""Test-time augmentation (TTA): the crops that a student looks at before it answers, a set that validation chose.

Averaging over crops costs passes and no parameters. The candidates are few and coarse on purpose: each is one more look
at validation, and a fine grid would fit its noise. Further crops may be kept for the images that the student is unsure
of, which makes them a dynamic computation: Mocerino et al., "Adaptive Test-Time Augmentation for Low-Power CPU", 2021,
arXiv:2105.06183.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from bantam.data.augment import plain
from bantam.data.splits import LabelledSplit, Normalisation, UnlabelledSplit, require_labelled
from bantam.errors import BadData
from bantam.measure.accuracy import accuracy, require_finite
from bantam.measure.crops import TTA, Crop, require_tta
from bantam.measure.dynamic import Left
from bantam.measure.logits import chunks_of
from bantam.nets.early_exit import confidence as confidence_of
from bantam.nets.footprint import footprint


def logits_of_tta(
    net: nn.Module,
    split: LabelledSplit | UnlabelledSplit,
    size: int,
    normalisation: Normalisation,
    tta: str,
    *,
    look: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Log-probabilities float32 [N, K], averaged over TTA[tta], on the CPU; plain logits for "plain".

    `net` is taken in eval mode, and its mode put back afterwards; `look` answers in its place. Raises BadData for an
    unknown name.
    """
    return answers_of_tta(net, split, size, normalisation, (tta,), look)[0]


def choose_tta(
    net: nn.Module, validation: LabelledSplit, size: int, normalisation: Normalisation
) -> tuple[str, dict[str, Tensor]]:
    """The name in TTA that is best on validation, the cheaper one of equals, and the answers [N, K] under every one.

    Raises SplitLeak for an unlabelled split.
    """
    validation = require_labelled(validation, "the choice of TTA")
    answers = dict(zip(TTA, answers_of_tta(net, validation, size, normalisation, tuple(TTA)), strict=True))
    return max(answers, key=lambda name: accuracy(answers[name], validation.labels).correct), answers


@torch.inference_mode()
def answers_of_tta(
    net: nn.Module,
    split: LabelledSplit | UnlabelledSplit,
    size: int,
    normalisation: Normalisation,
    names: tuple[str, ...],
    look: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """The answers float32 [len(names), N, K] under each name, on the CPU. Each crop is looked at once."""
    for name in names:
        require_tta(name)
    was_training = net.training
    net.eval()
    device = next(net.parameters()).device
    chunks: list[Tensor] = []
    for portion in chunks_of(len(split), device):
        images = split.images[portion].to(device)  # [B, H, W, 3] uint8
        seen: dict[Crop, Tensor] = {}
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
    seen: dict[Crop, Tensor],
) -> Tensor:
    """The answers [B, K] to images uint8 [B, H, W, 3] under TTA[name]; `seen` are the crops that are known by now."""
    for crop in TTA[name]:
        if crop.part not in seen:
            seen[crop.part] = answer(cropped(images, crop, size, normalisation)).float()
    if len(TTA[name]) == 1:
        return seen[TTA[name][0].part]
    weighted = [crop.weight * seen[crop.part].log_softmax(1) for crop in TTA[name]]
    return torch.stack(weighted).sum(0)


def ladder(tta: str) -> tuple[str, ...]:
    """The names in TTA from "plain" to `tta`; each one's crops are among those of the next.

    Raises BadData for "plain", which has no other before it, and for a name that is not there.
    """
    names = tuple(TTA)
    if tta not in names[1:]:
        raise BadData(f"a confidence can save nothing with --views {tta}; choose --views from {', '.join(names[1:])}")
    return names[: names.index(tta) + 1]


@torch.inference_mode()
def answer_while_unsure(
    net: nn.Module,
    split: LabelledSplit | UnlabelledSplit,
    size: int,
    normalisation: Normalisation,
    tta: str,
    confidence: float,
) -> Left:
    """The answers to all images of `split`, each from the first of `ladder(tta)` that is sure by `confidence`, 0..1.

    A crop that was looked at is not looked at again. Raises BadData for a threshold outside 0..1, and for TTA that has
    none before it.
    """
    if not 0 <= confidence <= 1:
        raise BadData(f"--view-confidence = {confidence:g} must lie in 0..1")
    names = ladder(tta)
    was_training = net.training
    net.eval()
    device = next(net.parameters()).device
    logits: list[Tensor] = []
    places: list[Tensor] = []
    for portion in chunks_of(len(split), device):
        images = split.images[portion].to(device)  # [B, H, W, 3] uint8
        unsure = torch.arange(len(images), device=device)
        place = torch.full((len(images),), len(names) - 1)
        seen: dict[Crop, Tensor] = {}
        found: Tensor | None = None
        for number, name in enumerate(names):
            answers = averaged(net, images[unsure], size, normalisation, name, seen)  # [U, K]
            found = answers.clone() if found is None else found
            found[unsure] = answers
            sure = confidence_of(answers) >= confidence
            if number < len(names) - 1:
                place[unsure[sure].cpu()] = number
            unsure, seen = unsure[~sure], {crop: rows[~sure] for crop, rows in seen.items()}
            if not len(unsure):
                break
        assert found is not None
        logits.append(found.cpu())
        places.append(place)
    net.train(was_training)
    return Left(require_finite(torch.cat(logits)), torch.cat(places), macs_of_tta(net, size, names), names)


def macs_of_tta(net: nn.Module, size: int, names: Sequence[str]) -> tuple[int, ...]:
    """The multiply-accumulates of an image under each of `names`: one pass of `net` at `size` px for each crop."""
    macs = footprint(net, size).macs
    return tuple(len(TTA[name]) * macs for name in names)


def cropped(images: Tensor, crop: Crop, size: int, normalisation: Normalisation) -> Tensor:
    """The `crop` of images uint8 [B, H, W, 3] as a net takes it: float32 [B, 3, size, size], normalised."""
    rows, columns = crop.box(*images.shape[1:3])
    seen = plain(images[:, rows, columns], size, normalisation.mean, normalisation.std)
    return seen.flip(3) if crop.mirrored else seen
