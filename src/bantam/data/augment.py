"""Batched augmentation: uint8 photographs in, normalised float views out, on the device of the images.

A view is a pure function of (seed, image index, view number). Its geometry is one bilinear resampling, its
colour one affine map. Nothing here waits for the device, branches on a tensor's values or has a shape that
depends on them, so a training step with its augmentation can be captured in a CUDA graph; the few constants
are put on the device by the first call, which must therefore come before the capture.

Per-image parameters are computed in float64 and rounded once: float32 functions such as exp and sin may
differ in the last bit with the place in the batch. Images are processed as [B, 3, H, W] with the channels
outermost, where a CPU is several times faster at it, and handed over in channels_last.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bantam.data import draws
from bantam.data.colour import between, normalised, recolour
from bantam.data.splits import Normalisation

VERSION, SHRUNK = 1, 2
"""Raise one when the same draw would give other pixels: answers cached for the old views are then void. SHRUNK is that
of views which are cropped or rotated out of photographs of more than twice their size."""

# --- What to do ---


_RANGES = {
    **dict.fromkeys(("flip", "vertical_flip", "erase", "mixup", "cutmix"), (0, 1)),
    **dict.fromkeys(("brightness", "contrast", "saturation"), (0, 1e3)),
    "rotation": (0, 180),
    "hue": (0, 0.5),
    # Below 0.01 practically every share is 0 or 1, above 1000 practically every one is 1/2.
    "mix_alpha": (0.01, 1e3),
}


@dataclass(frozen=True)
class Augmentation:
    """Which random changes a view makes. The defaults flip half of the images and do nothing else.

    Where bounds are given, the draw is uniform between them. Raises ValueError for a value out of range.

    scale: share of the image's area that the crop keeps; (1, 1) means no crop.
    ratio: width / height of the crop, log-uniform, cut to what fits into the image at the drawn area.
    flip, vertical_flip: probabilities.
    rotation: degrees, at most so many either way, about the middle of the crop.
    brightness, contrast, saturation: factors in [max(0, 1 - x), 1 + x], as torchvision's ColorJitter has
        them. Contrast turns about the mean grey of the whole photograph.
    hue: fraction of a turn, at most so much either way, by which the chroma (I, Q) of YIQ is rotated.
    erase: probability of covering a rectangle (2% to 33% of the area, height / width 0.3 to 3.3) with the
        mean colour, which is 0 after normalisation (Zhong et al., "Random Erasing", 2020).
    mixup, cutmix: probabilities that an image is mixed with its partner in this way (Zhang et al., "mixup",
        2018; Yun et al., "CutMix", 2019); together at most 1.
    mix_alpha: an image's own share is drawn from Beta(mix_alpha, mix_alpha).
    """

    scale: tuple[float, float] = (1.0, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    vertical_flip: float = 0.0
    rotation: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_alpha: float = 1.0

    def __post_init__(self) -> None:
        for name, highest in (("scale", 1), ("ratio", 1e3)):
            low, high = getattr(self, name)
            if not 0 < low <= high <= highest:
                raise ValueError(f"augmentation.{name} is {(low, high)}: give 0 < low <= high <= {highest:g}")
        for name, (lowest, highest) in _RANGES.items():
            value = getattr(self, name)
            if not lowest <= value <= highest:
                raise ValueError(f"augmentation.{name} is {value}: give {lowest:g} to {highest:g}")
        if self.mixup + self.cutmix > 1:
            raise ValueError(
                f"augmentation.mixup and augmentation.cutmix are {self.mixup} and {self.cutmix}: "
                "an image is mixed in one way only, so their sum must not exceed 1"
            )

    @property
    def moves(self) -> bool:
        """Whether views are resampled at random places (cropped or rotated)."""
        return self.scale[0] < 1 or self.rotation > 0

    @property
    def colours(self) -> bool:
        """Whether views change colour."""
        return max(self.brightness, self.contrast, self.saturation, self.hue) > 0

    @property
    def mixes(self) -> bool:
        """Whether images are mixed with their partners."""
        return self.mixup + self.cutmix > 0


@dataclass(frozen=True)
class Viewing:
    """What the views of a data set have in common: pixels [3, size, size], and what is done to them."""

    seed: int
    augmentation: Augmentation
    size: int
    normalisation: Normalisation


def version(augmentation: Augmentation, shape: Sequence[int], size: int) -> int:
    """The version of views of `size` pixels of photographs that are stored in an array of `shape`, (N, H, W, 3)."""
    return SHRUNK if augmentation.moves and max(shape[1:3]) > 2 * size else VERSION


# The draws of an image: the columns of each stream. An option that is switched on leaves the draws of the
# others as they were.
_GEOMETRY = slice(0, 7)  # area, ratio, left, top, flip, vertical flip, angle
_COLOUR = slice(7, 11)  # brightness, contrast, saturation, hue
_ERASE = slice(11, 16)  # whether, area, ratio, left, top
_VIEW_DRAWS = 16
_MIX_DRAWS = 4  # kind, share, column, row


# --- From stored photographs to what a net sees ---


def render(images: Tensor, index: Tensor, view: Tensor | int, viewing: Viewing) -> tuple[Tensor, Tensor]:
    """Gathers, augments and mixes one batch.

    `images` is the whole split, uint8 [N, H, W, 3]: resident on the device, or on the CPU (memory-mapped as
    well: only the rows asked for are read). `index`, int64 [B] with mixing partners at p and p ^ 1, is on
    the device that the batch is wanted on; `view` is one view number or int64 [B]. Returns the views,
    float32 [B, 3, size, size] in channels_last, and each image's own share of its label, float32 [B].

    Raises ValueError for an odd B where images are mixed.
    """
    batch = images.index_select(0, index.to(images.device)).to(index.device, non_blocking=True)
    numbers = view if isinstance(view, Tensor) else torch.full_like(index, view)
    rendered = _views(batch, index, numbers, viewing)
    rendered, ratio = mix(rendered, index, numbers, viewing.seed, viewing.augmentation)
    return rendered.contiguous(memory_format=torch.channels_last), ratio


def plain(images: Tensor, size: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """The view at test time: uint8 [B, H, W, 3] to float32 [B, 3, size, size] in channels_last.

    Bilinear with antialiasing where the sizes differ, whatever the aspect; nothing is random.
    """
    pixels = normalised(_resize(_planes(images), size), 255.0, mean, std)
    return pixels.contiguous(memory_format=torch.channels_last)


def views(images: Tensor, index: Tensor, view: Tensor, viewing: Viewing) -> Tensor:
    """The augmented views of a batch, not yet mixed: float32 [B, 3, size, size] in channels_last.

    `images` is uint8 [B, H, W, 3], `index` and `view` are int64 [B]. In order: crop and resize, flip, rotate (one
    bilinear resampling); brightness, contrast, saturation, hue (one affine map), clamped to 0..1; normalise; erase.
    Without crop and rotation the image is resized as in `plain` and the flips are exact.
    """
    pixels = _views(images, index, view, viewing)
    return pixels.contiguous(memory_format=torch.channels_last)


def _views(images: Tensor, index: Tensor, view: Tensor, viewing: Viewing) -> Tensor:
    augmentation, size = viewing.augmentation, viewing.size
    mean, std = viewing.normalisation.mean, viewing.normalisation.std
    drawn = draws.uniform(viewing.seed, index, view, draws.VIEW, _VIEW_DRAWS).double()  # [B, 16]
    source = _planes(images)  # [B, 3, H, W], 0..255
    if augmentation.moves:
        pixels = _resample(source, drawn[:, _GEOMETRY], augmentation, size)  # [B, 3, S, S]
    else:
        pixels = _flip(_resize(source, size), drawn[:, _GEOMETRY], augmentation)
    if augmentation.colours:
        reaches = (augmentation.brightness, augmentation.contrast, augmentation.saturation)
        pixels = normalised(recolour(pixels, source, drawn[:, _COLOUR], reaches, augmentation.hue), 1.0, mean, std)
    else:
        pixels = normalised(pixels, 255.0, mean, std)
    if augmentation.erase:
        pixels = _erase(pixels, drawn[:, _ERASE], augmentation.erase)
    return pixels


def _planes(images: Tensor) -> Tensor:
    """uint8 [B, H, W, 3] to float32 [B, 3, H, W], 0..255."""
    return images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)


# --- Geometry ---


def _resize(pixels: Tensor, size: int) -> Tensor:
    return pixels if pixels.shape[2:] == (size, size) else _antialiased(pixels, size, size)


def _antialiased(pixels: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(pixels, (height, width), mode="bilinear", align_corners=False, antialias=True)


def _flip(pixels: Tensor, drawn: Tensor, augmentation: Augmentation) -> Tensor:
    for column, chance, axis in ((4, augmentation.flip, 3), (5, augmentation.vertical_flip, 2)):
        if chance:
            chosen = (drawn[:, column] < chance)[:, None, None, None]
            pixels = torch.where(chosen, pixels.flip(axis), pixels)
    return pixels


def _resample(source: Tensor, drawn: Tensor, augmentation: Augmentation, size: int) -> Tensor:
    """Crop, resize, flip and rotate in one bilinear resampling: [B, 3, H, W] to [B, 3, size, size].

    Bilinear interpolation reads 2 x 2 pixels and so covers a shrinking by 2. Photographs larger than that are first
    resized to twice `size`, with antialiasing: that depends on the sizes alone, small crops keep their detail, and no
    size is blurred more than the next. What a rotation brings in from outside is mirrored.
    """
    height, width = source.shape[2:]
    if max(height, width) > 2 * size:
        source = _antialiased(source, min(height, 2 * size), min(width, 2 * size))

    area, ratio, left, top, flip, vertical_flip, angle = drawn.unbind(1)
    if augmentation.scale[0] < 1:
        area = between(area, augmentation.scale)
        across_share, down_share = _rectangle(area, ratio, augmentation.ratio, width / height)
    else:
        across_share = down_share = torch.ones_like(area)
    # All in grid_sample's coordinates: the image spans -1..1, and so does the view.
    centre_x = (2 * left - 1) * (1 - across_share)
    centre_y = (2 * top - 1) * (1 - down_share)
    scale_x = torch.where(flip < augmentation.flip, -across_share, across_share)
    scale_y = torch.where(vertical_flip < augmentation.vertical_flip, -down_share, down_share)
    turn = (2 * angle - 1) * math.radians(augmentation.rotation)  # counter-clockwise; y points down
    theta = torch.stack(
        (
            *(scale_x * turn.cos(), -scale_x * turn.sin(), centre_x),
            *(scale_y * turn.sin(), scale_y * turn.cos(), centre_y),
        ),
        dim=1,
    )
    theta = theta.to(torch.float32).view(-1, 2, 3, 1, 1)  # [B, 2, 3, 1, 1]
    # affine_grid would multiply matrices, at the reduced precision that training may have switched on.
    ticks = (torch.arange(size, device=source.device) * 2 + 1) / size - 1  # centres of the view's pixels
    grid = theta[:, :, 0] * ticks + (theta[:, :, 1] * ticks[:, None] + theta[:, :, 2])  # [B, 2, S, S]
    # A crop alone never leaves the image; then both mean the same, and border is faster.
    padding = "reflection" if augmentation.rotation else "border"
    return F.grid_sample(source, grid.permute(0, 2, 3, 1), padding_mode=padding, align_corners=False)


def _rectangle(area: Tensor, drawn: Tensor, ratio: tuple[float, float], aspect: float) -> tuple[Tensor, Tensor]:
    """Width and height, as shares of the image's, of a rectangle that fills the share `area` of the image.

    Its width / height, in pixels, is log-uniform within `ratio`, cut to [area * aspect, aspect / area] for
    an image of width / height `aspect`: outside, the rectangle would not fit. So the area is always exact.
    """
    shape_low, shape_high = (math.log(bound / aspect) for bound in ratio)
    room = -area.log()
    low = (-room).clamp(min=shape_low).minimum(room)
    high = room.clamp(max=shape_high).maximum(-room)
    shape = (low + drawn * (high - low)).exp()  # of the shares of width and height
    return (area * shape).sqrt(), (area / shape).sqrt()


# --- Rectangles: erasing and CutMix; mixing ---

_ERASE_AREA = (0.02, 0.33)
_ERASE_RATIO = (1 / 3.3, 1 / 0.3)  # width / height


def _erase(pixels: Tensor, drawn: Tensor, chance: float) -> Tensor:
    """Zeroes one rectangle of each chosen image, edges rounded to pixels; the memory is used anew."""
    size = pixels.shape[-1]
    whether, area, ratio, left, top = drawn.unbind(1)
    width, height = _rectangle(between(area, _ERASE_AREA), ratio, _ERASE_RATIO, 1.0)
    width = (width * size).round().clamp(min=1)
    height = (height * size).round().clamp(min=1) * (whether < chance)  # an image not chosen loses 0 rows
    left = (left * (size - width + 1)).floor()
    top = (top * (size - height + 1)).floor()
    inside = _inside(left, top, left + width, top + height, size)
    return pixels.mul_(1 - inside[:, None])


def _inside(left: Tensor, top: Tensor, right: Tensor, bottom: Tensor, size: int) -> Tensor:
    """1 where left <= x < right and top <= y < bottom, 0 elsewhere: float32 [B, size, size]."""
    ticks = torch.arange(size, device=left.device)
    across = ((ticks >= left[:, None]) & (ticks < right[:, None])).to(torch.float32)  # [B, S]
    down = ((ticks >= top[:, None]) & (ticks < bottom[:, None])).to(torch.float32)
    return down[:, :, None] * across[:, None, :]  # [B, S, S]


def mix(images: Tensor, index: Tensor, view: Tensor, seed: int, augmentation: Augmentation) -> tuple[Tensor, Tensor]:
    """Mixes each image of float32 [B, 3, S, S] with its partner, which stands at position p ^ 1.

    Every image draws its own way of mixing, share and box, keyed by its own (seed, index, view). mixup
    blends the two; CutMix puts the partner's pixels into a box of the share 1 - Beta of the area, about a
    uniform centre and cut at the border. Returns the mixed images and, float32 [B], each image's own share
    of the label: for CutMix the share of pixels that stayed, counted from the box's edges.

    Raises ValueError for an odd B.
    """
    if not augmentation.mixes:
        return images, torch.ones(len(images), device=images.device)
    if len(images) % 2:
        raise ValueError(f"a batch of {len(images)} images cannot be mixed: partners stand at p and p ^ 1")
    size = images.shape[-1]
    kind, share, column, row = draws.uniform(seed, index, view, draws.MIX, _MIX_DRAWS).double().unbind(1)
    share = draws.beta(share, augmentation.mix_alpha)
    blends = kind < augmentation.mixup
    cuts = ~blends & (kind < augmentation.mixup + augmentation.cutmix)

    side = (size * (1 - share).sqrt()).floor() * cuts
    left = (column * size).floor() - (side / 2).floor()
    top = (row * size).floor() - (side / 2).floor()
    right, bottom = (left + side).clamp(max=size), (top + side).clamp(max=size)
    left, top = left.clamp(min=0), top.clamp(min=0)
    stays = 1 - (right - left) * (bottom - top) / size**2

    level = torch.where(blends, share, torch.ones_like(share)).to(torch.float32)
    own = level[:, None, None] - _inside(left, top, right, bottom, size)  # [B, S, S]
    partners = images.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
    mixed = torch.lerp(partners, images, own[:, None])
    return mixed, torch.where(blends, share, stays).to(torch.float32)


def soft_targets(labels: Tensor, ratio: Tensor, classes: int) -> Tensor:
    """Class probabilities, float32 [B, classes], of mixed images.

    `labels` is int64 [B], -1 for none, `ratio` each image's own share, float32 [B]; the rest belongs to the label of
    the partner at p ^ 1. A row is zero where anything in the view has no label: a part of a label would say of the
    rest that it is nothing. Raises ValueError for an odd B.
    """
    if len(labels) % 2:
        raise ValueError(f"{len(labels)} labels cannot be mixed: partners stand at p and p ^ 1")
    own = (labels[:, None] == torch.arange(classes, device=labels.device)).to(torch.float32)  # [B, K]
    partners = own.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
    missing = (labels < 0).to(ratio.dtype)
    missing = ratio * missing + (1 - ratio) * missing.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)  # [B]
    return (ratio[:, None] * own + (1 - ratio)[:, None] * partners) * (missing == 0)[:, None]
