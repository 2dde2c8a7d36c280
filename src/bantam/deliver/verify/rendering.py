"""Renderings: resizing, cropping, mirroring and an affine map of the colours, the same for all photographs.

What the net of a package answers to are photographs rendered in this way, by ourselves; `finding.py` finds the way.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from bantam.data import images

LEAST_SLOPE = 1e-6
"""How much each channel of an input changes at least with a grey level; a constant shows no photograph."""

Filter = Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"]
FILTERS: tuple[tuple[Filter, bool], ...] = (
    ("bilinear", False), ("bicubic", False), ("lanczos", False), ("box", False), ("nearest", False),
    ("hamming", False), ("bilinear", True), ("bicubic", True),
)  # fmt: skip
"""Pillow's filters on bytes, and those that torchvision has for tensors, with antialiasing."""


@dataclass(frozen=True)
class Rendering:
    """Scale a photograph, cut a window out, scale that to the input's size, and mirror it.

    `scale` says what becomes `side` pixels: the shorter side, both sides, those of the middle square, or nothing.
    `place` is the share of the space beside the window that lies above and left of it. `upright` reads files as Bantam
    does: turned as EXIF says, transparent parts over white, large JPEGs decoded at a part of their size.
    """

    scale: Literal["short", "both", "square", "none"]
    side: tuple[int, int]
    window: tuple[int, int]
    size: tuple[int, int]
    place: tuple[float, float] = (0.5, 0.5)
    mirrored: bool = False
    filter: Filter = "bilinear"
    floats: bool = False
    upright: bool = False

    def text(self) -> str:
        """What it does, in a few words."""
        what = {"short": "shorter side to", "both": "both sides to", "square": "middle square to", "none": "as it is"}
        height, width = self.side
        scaled = what[self.scale] + ("" if self.scale == "none" else f" {height}" + f" x {width}" * (height != width))
        cut = (
            ""
            if self.window == self.side and self.scale != "short"
            else f", window {self.window[0]} x {self.window[1]}"
        )
        return scaled + cut + (", mirrored" if self.mirrored else "")


@dataclass(frozen=True)
class View:
    """A rendering and its colours: each channel of the input is a row of `colours` times (red, green, blue, 1).

    `error` is how far it is from the inputs that the code made, in grey levels (root mean square).
    """

    rendering: Rendering
    colours: tuple[tuple[float, ...], ...]
    error: float

    def inputs(self, paths: Sequence[Path]) -> Tensor:
        """The photographs as the net takes them, float32 [N, C, H, W]."""
        pixels = torch.stack([pixels_of(path, self.rendering) for path in paths])  # [N, H, W, 3]
        ones = torch.ones(*pixels.shape[:3], 1)
        mixed = torch.cat([pixels, ones], 3).double() @ torch.tensor(self.colours, dtype=torch.float64).T
        return mixed.permute(0, 3, 1, 2).float().contiguous()


@functools.lru_cache(maxsize=64)
def opened(path: Path, upright_for: int) -> Image.Image:
    """A photograph in RGB: as Bantam reads it for images of so many pixels, or plainly for 0."""
    if upright_for:
        return images.to_rgb(images.read(path), path, at_least=2 * upright_for)
    with Image.open(path, formats=images.FORMATS) as file:
        return file.convert("RGB")


def pixels_of(path: Path, how: Rendering) -> Tensor:
    """A photograph rendered, float32 [H, W, 3] in 0..255."""
    return rendered(opened(path, how.side[0] if how.upright else 0), how)


def rendered(photo: Image.Image, how: Rendering) -> Tensor:
    """`pixels_of` of an opened photograph."""
    width, height = photo.size
    short = min(width, height)
    box = (0.0, 0.0, float(width), float(height))
    rows, columns = how.side
    if how.scale == "short":
        rows, columns = int(how.side[0] * height / short), int(how.side[0] * width / short)
    elif how.scale == "square":
        left, top = (width - short) / 2, (height - short) / 2
        box = (left, top, left + short, top + short)
    elif how.scale == "none":
        rows, columns = height, width
    if how.floats:
        planes = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None].float()
        planes = resized(planes, rows, columns, how.filter)
    else:
        if (rows, columns) != (height, width) or box != (0, 0, width, height):
            if how.scale == "square" and short == rows:
                photo = photo.crop((int(box[0]), int(box[1]), int(box[0]) + columns, int(box[1]) + rows))
            else:
                photo = photo.resize((columns, rows), Image.Resampling[how.filter.upper()], box=box)
        planes = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None].float()  # [1, 3, H, W]
    high, wide = min(how.window[0], rows), min(how.window[1], columns)
    top, left = round(how.place[0] * (rows - high)), round(how.place[1] * (columns - wide))
    planes = resized(planes[:, :, top : top + high, left : left + wide], *how.size, "bilinear")
    planes = planes.flip(3) if how.mirrored else planes
    return planes[0].permute(1, 2, 0).contiguous()


def resized(planes: Tensor, rows: int, columns: int, kind: str) -> Tensor:
    """[1, 3, H, W] to [1, 3, rows, columns] with antialiasing, as torchvision resizes tensors."""
    if planes.shape[2:] == (rows, columns):
        return planes
    return functional.interpolate(planes, (rows, columns), mode=kind, align_corners=False, antialias=True)


def measured(paths: Sequence[Path], inputs: Tensor, how: Rendering) -> View:
    """The view that has the rendering `how` and the colours that fit `inputs` [N, C, H, W] best (least squares)."""
    pixels = torch.stack([pixels_of(path, how) for path in paths]).double().reshape(-1, 3)
    known = torch.cat([pixels, torch.ones(len(pixels), 1)], 1)  # [N * H * W, 4]
    wanted = inputs.double().permute(0, 2, 3, 1).reshape(len(pixels), -1)  # [N * H * W, C]
    solved = torch.linalg.lstsq(known, wanted, driver="gelsd").solution  # [4, C]
    apart = (known @ solved - wanted).square().mean(0).sqrt()  # [C]
    slope = solved[:3].abs().sum(0)  # how much a channel changes with a grey level
    error = float((apart / slope).max()) if float(slope.min()) > LEAST_SLOPE else float("inf")
    return View(how, tuple(map(tuple, solved.T.tolist())), error if error == error else float("inf"))
