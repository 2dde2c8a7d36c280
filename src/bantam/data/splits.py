"""Labelled and unlabelled images, as types that cannot be taken for each other.

The evaluation split is an UnlabelledSplit and nothing else. Whatever learns or selects calls
`require_labelled` or `require_training` first, so the evaluation images reach no training, selection or statistic.
Images without a label from which a student may learn are of a third type, SemiLabelledSplit.
"""

from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from bantam.data.splitting import Division
from bantam.errors import SplitLeak


@dataclass(frozen=True, eq=False)
class _WithLabels:
    name: str
    images: torch.Tensor
    labels: torch.Tensor
    ids: tuple[str, ...]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        _require_images(self.images, self.ids)
        if self.labels.dtype != torch.int64 or self.labels.shape != (len(self.ids),):
            raise ValueError(f"labels must be int64 [{len(self.ids)}], not {_kind(self.labels)}")

    def __len__(self) -> int:
        return len(self.ids)


class LabelledSplit(_WithLabels):
    """Images uint8 [N, H, W, 3] (RGB), labels int64 [N] in 0..K-1, N unique ids, the K classes' names."""


class SemiLabelledSplit(_WithLabels):
    """A labelled split's images and, after them, a user's own without a label: labels int64 [N], -1 for none.

    Only the training of a stage that has a teacher takes it; nothing selects or measures by it.
    """

    @property
    def unlabelled(self) -> int:
        """How many of the images have no label."""
        return int((self.labels < 0).sum())


TrainingSplit = LabelledSplit | SemiLabelledSplit
"""What a stage may be trained on."""
Trained = TypeVar("Trained", bound=TrainingSplit)


@dataclass(frozen=True, eq=False)
class UnlabelledSplit:
    """Images uint8 [N, H, W, 3] (RGB) and N unique ids: for inference only."""

    images: torch.Tensor
    ids: tuple[str, ...]

    def __post_init__(self) -> None:
        _require_images(self.images, self.ids)

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class Splits:
    """A data folder ready for use.

    `taught` is what a stage with a teacher trains on: the training split, and after it the images without a label
    where they were asked for. `fingerprint` identifies content, ids and labels of all of these and of validation, and
    the image size. `leaks` are the ids of labelled images whose file also stands in the evaluation split, `overlap`
    those of training images whose file also stands in validation. `division` says how validation was split off, where
    the folder has none of its own; `remarks` are sentences for a person on that, and on what was left out.
    """

    training: LabelledSplit
    taught: TrainingSplit
    validation: LabelledSplit
    evaluation: UnlabelledSplit | None
    classes: tuple[str, ...]
    fingerprint: str
    leaks: tuple[str, ...]
    overlap: tuple[str, ...] = ()
    division: Division | None = None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of R, G and B on the scale where white is 1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def require_labelled(split: object, purpose: str) -> LabelledSplit:
    """Give `split` back if it is labelled; raise SplitLeak, naming the purpose, if it is anything else."""
    if isinstance(split, LabelledSplit):
        return split
    kind = "the evaluation split" if isinstance(split, UnlabelledSplit) else f"a {type(split).__name__}"
    raise SplitLeak(f"{purpose} must not see {kind}; give it the training or the validation split")


def require_training(split: object, purpose: str) -> TrainingSplit:
    """Give `split` back if a stage may be trained on it; raise SplitLeak, naming the purpose, if not."""
    return split if isinstance(split, SemiLabelledSplit) else require_labelled(split, purpose)


def joined(training: Trained, validation: LabelledSplit) -> Trained:
    """Both splits as one, in memory; an id gets the name of its split before it.

    Raises SplitLeak if one of them is the evaluation split.
    """
    require_training(training, "a refit")
    require_labelled(validation, "a refit")
    splits = (training, validation)
    return replace(
        training,
        name="+".join(split.name for split in splits),
        images=torch.cat([split.images for split in splits]),
        labels=torch.cat([split.labels for split in splits]),
        ids=tuple(f"{split.name}/{id}" for split in splits for id in split.ids),
    )


def normalisation_of(split: LabelledSplit) -> Normalisation:
    """Mean and (population) standard deviation of each channel over all pixels of a labelled split.

    Counts how often each of the 256 values occurs, so the sums are exact and only a few images are in memory
    at a time. Raises SplitLeak if the split is not labelled.
    """
    images = require_labelled(split, "the normalisation").images
    counts = torch.zeros(3, 256, dtype=torch.int64)
    for chunk in images.split(256):
        for channel in range(3):
            values = chunk[..., channel].reshape(-1)
            counts[channel] += torch.bincount(values, minlength=256).cpu()
    scale = torch.arange(256, dtype=torch.float64) / 255
    share = counts / counts.sum(dim=1, keepdim=True).double()  # [3, 256]
    mean = share @ scale  # [3]
    variance = (share * (scale - mean[:, None]) ** 2).sum(dim=1)
    # A channel that never varies stays finite when divided by its deviation.
    std = variance.sqrt().clamp(min=1 / 255)
    return Normalisation(_three(mean), _three(std))


def _three(values: torch.Tensor) -> tuple[float, float, float]:
    red, green, blue = values.tolist()
    return red, green, blue


def _require_images(images: torch.Tensor, ids: tuple[str, ...]) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[-1] != 3 or len(images) != len(ids):
        raise ValueError(f"images must be uint8 [{len(ids)}, H, W, 3], not {_kind(images)}")


def _kind(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
