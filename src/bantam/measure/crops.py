"""The sets of crops among which validation chooses: test-time augmentation (TTA) by name. Nothing here needs torch."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from bantam.errors import BadData


@dataclass(frozen=True)
class Crop:
    """A square part of the image: its side, and its left and top edge, as shares of the image's; perhaps mirrored.

    `weight` is its share in the mean of the log-probabilities.
    """

    side: float = 1.0
    left: float = 0.0
    top: float = 0.0
    mirrored: bool = False
    weight: float = 1.0

    def box(self, height: int, width: int) -> tuple[slice, slice]:
        """The rows and the columns of it in an image of `height` x `width` pixels."""
        top, left = round(self.top * height), round(self.left * width)
        return slice(top, top + round(self.side * height)), slice(left, left + round(self.side * width))

    @property
    def part(self) -> "Crop":
        """The same part of the image, whatever its weight."""
        return replace(self, weight=1.0)


def both_ways(*crops: Crop) -> tuple[Crop, ...]:
    """Each crop and its mirror image, with half of its weight each."""
    return tuple(
        Crop(crop.side, crop.left, crop.top, mirrored, crop.weight / 2) for crop in crops for mirrored in (False, True)
    )


SIDE = 0.875
"""The side of a crop, as in Krizhevsky, Sutskever and Hinton (2012): 224 of 256 pixels."""

EDGE = 1 - SIDE

TTA: dict[str, tuple[Crop, ...]] = {
    "plain": (Crop(),),
    "flip": both_ways(Crop()),
    "zoom": both_ways(Crop(weight=0.5), Crop(SIDE, EDGE / 2, EDGE / 2, weight=0.5)),
    "crops": both_ways(
        Crop(weight=0.5),
        *(
            Crop(SIDE, left, top, weight=0.1)
            for left, top in ((0, 0), (EDGE, 0), (0, EDGE), (EDGE, EDGE), (EDGE / 2, EDGE / 2))
        ),
    ),
}
"""What may be chosen, cheapest first. The weights of each add up to 1."""


def require_tta(name: str) -> None:
    """Raises BadData where no TTA has that name."""
    if name not in TTA:
        raise BadData(f'no TTA is named "{name}"; --views is one of {", ".join(TTA)}')


def tta_of(validation: Mapping[str, Any]) -> str:
    """The name of the TTA that a run chose: `validation` is that table of its metrics.json."""
    return validation.get("views") or ("flip" if validation.get("flip") else "plain")
