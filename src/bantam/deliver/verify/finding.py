"""Which rendering makes a package's inputs of photographs: found out from examples.

A package's preprocessing is code, and code that is run on a photograph can put an answer into its pixels. So the inputs
that the code made are looked at for one thing alone: which resizing, cropping, mirroring and affine map of the colours,
the same for all photographs, explains them. What the net answers to is what that rendering makes of the photographs.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from bantam.deliver.verify.rendering import FILTERS, Rendering, View, measured, opened
from bantam.errors import BadPackage

EXACT = 0.1
"""Largest difference, in grey levels of 255 (root mean square), of inputs that a rendering explains exactly."""

CLOSE = 12.0
"""Largest difference of inputs that it explains well enough to try."""

MOST_VIEWS = 32
THUMB, SMALL = 12, 32
"""Sides in pixels of what a first and a second search look at."""

SEARCHED = 4
"""Photographs that the searches look at; what they find is measured on all."""

ZOOMS = tuple(1 + 0.03 * step for step in range(34))
PLACES = (0.5, 0.0, 0.25, 0.75, 1.0)


def find_views(
    paths: Sequence[Path], listed: Sequence[Path], inputs: Sequence[Tensor], hints: dict[str, Any]
) -> list[View]:
    """How the code makes its inputs of the photographs `paths`, in the order of its views.

    Args:
        paths: the photographs in the order of their names.
        listed: the same in the order in which the system lists them.
        inputs: what the code called its net on, float [N, C, H, W], call by call.
        hints: what the code says of its preprocessing, which is tried first and not believed.

    Raises BadPackage where no rendering explains the inputs.
    """
    best: list[View] = []
    tried = BadPackage(
        f"the code called its net on {sum(map(len, inputs))} images for {len(paths)} photographs, "
        f"which is no whole number of views, at most {MOST_VIEWS}, of each"
    )
    for order, views in itertools.product((paths, listed), sorted_into_views(inputs, len(paths))):
        found: list[View] = []
        for view in views:
            found.append(explained(order, view, found, hints))
            if found[-1].error > CLOSE:
                break
        worst = max(view.error for view in found)
        if worst <= EXACT:
            return found
        if worst <= CLOSE and (not best or worst < max(view.error for view in best)):
            best = found
        tried = BadPackage(
            "what the code feeds its net is no resizing, cropping, mirroring and normalising of the photographs that "
            f"is the same for all of them: the nearest differs by {worst:.0f} of 255 grey levels"
        )
    if best:
        return best
    raise tried


def sorted_into_views(inputs: Sequence[Tensor], photographs: int) -> Iterable[list[Tensor]]:
    """Each way to read the calls as views of so many photographs: a list of [photographs, C, H, W], one a view.

    Batch by batch with all views of each, or view by view, or photograph by photograph. Calls before the first that
    have nothing to do with photographs (a summary's) are left out.
    """
    calls = [call for call in inputs if len(call)]
    for skipped in range(min(4, len(calls))):
        rest = calls[skipped:]
        count = sum(map(len, rest))
        views = count // photographs
        if count % photographs or not 0 < views <= MOST_VIEWS:
            continue
        rows = [row for call in rest for row in call]
        ways = [[rows[view * photographs : (view + 1) * photographs] for view in range(views)]]
        if views > 1:
            ways.append([rows[view::views] for view in range(views)])
        if len(rest) % views == 0 and len(rest) > views > 1:
            ways.insert(0, [[row for call in rest[view::views] for row in call] for view in range(views)])
        for way in ways:
            if all(len(view) == photographs and len({row.shape for row in view}) == 1 for view in way):
                yield [torch.stack(view) for view in way]


def explained(paths: Sequence[Path], inputs: Tensor, before: Sequence[View], hints: dict[str, Any]) -> View:
    """The view that explains `inputs` [N, C, H, W] best: as the code says, as other views, or searched."""
    rows, columns = inputs.shape[2:]
    candidates = [*hinted(hints, (rows, columns))]
    for view in before:
        how = view.rendering
        if how.size == (rows, columns):
            for down, across, turn in itertools.product((0.5, 0.0, 1.0), (0.5, 0.0, 1.0), (False, True)):
                candidates.append(dataclasses.replace(how, place=(down, across), mirrored=turn))
    some = min(SEARCHED, len(paths))
    for how in dict.fromkeys(candidates):
        if measured(paths[:1], inputs[:1], how).error <= EXACT:
            view = measured(paths, inputs, how)
            if view.error <= EXACT:
                return view
    found = searched(paths[:some], inputs[:some])
    return measured(paths, inputs, found)


def hinted(hints: dict[str, Any], size: tuple[int, int]) -> Iterable[Rendering]:
    """The renderings that a package of Bantam's names as STORED and VIEWS; nothing where these are something else."""
    stored, views = hints.get("STORED"), hints.get("VIEWS")
    if not (isinstance(stored, int) and 0 < stored <= 4096 and isinstance(views, list)):
        return
    for view in views[:MOST_VIEWS]:
        if not (isinstance(view, list) and len(view) >= 4 and all(isinstance(one, int | float) for one in view)):
            continue
        part, left, top = (round(share * stored) if 0 <= share <= 1 else 0 for share in view[:3])
        space = max(1, stored - part)
        yield Rendering(
            "square", (stored, stored), (part, part), size, (top / space, left / space), bool(view[3]), "bicubic",
            upright=True,
        )  # fmt: skip


def searched(paths: Sequence[Path], inputs: Tensor) -> Rendering:
    """Search the rendering that is nearest to `inputs` [N, C, H, W]: coarsely, then more finely, then to the pixel."""
    size = (inputs.shape[2], inputs.shape[3])
    photos = [opened(path, 0) for path in paths]
    square = all(photo.width == photo.height for photo in photos) and size[0] == size[1]
    scales = ("short",) if square else ("short", "both", "square")
    tried: list[tuple[float, Rendering]] = []
    small = [photo.resize((min(96, photo.width), min(96, photo.height)), Image.Resampling.BOX) for photo in photos]
    wanted = centred(thumbs(inputs, THUMB))
    mirrored = centred(thumbs(inputs.flip(3), THUMB))
    for scale, zoom, down, across in itertools.product(scales, ZOOMS, PLACES, PLACES):
        how = zoomed(scale, zoom, size, (down, across))
        seen = centred(glimpsed(photos, small, how, THUMB))
        for turn, target in ((False, wanted), (True, mirrored)):
            tried.append((float((seen * target).sum()), dataclasses.replace(how, mirrored=turn)))
    tried.sort(key=lambda one: -one[0])
    starts = list({one[1].scale: one for one in reversed(tried[:200])}.values())
    finer = [refined(photos, small, inputs, how) for _, how in starts]
    return to_the_pixel(paths[:2], inputs[:2], finer)


def zoomed(scale: Any, zoom: float, size: tuple[int, int], place: tuple[float, float]) -> Rendering:
    """The rendering that scales so that a window of `size` is 1 / `zoom` of the side."""
    longer = round(max(size) * zoom)
    side = (round(size[0] * zoom), round(size[1] * zoom)) if scale == "both" else (longer, longer)
    return Rendering(scale, side, size, size, place)


def thumbs(inputs: Tensor, side: int) -> Tensor:
    """Inputs [N, C, H, W] as grey pictures [N, side, side], each channel with the same spread."""
    spread = inputs.std((0, 2, 3), keepdim=True).clamp(min=1e-9)
    grey = (inputs / spread).float().mean(1, keepdim=True)
    return functional.interpolate(grey, (side, side), mode="bilinear", antialias=True)[:, 0]


def centred(pictures: Tensor) -> Tensor:
    """Pictures [N, s, s] without their means, of length 1 together, so that a product of two is their correlation."""
    flat = pictures - pictures.mean((1, 2), keepdim=True)
    return flat / flat.norm().clamp(min=1e-9)


def glimpsed(photos: Sequence[Image.Image], small: Sequence[Image.Image], how: Rendering, side: int) -> Tensor:
    """What `how` shows of the photographs, as grey pictures [N, side, side]; `small` are the same ones, smaller."""
    pictures: list[Tensor] = []
    for photo, source in zip(photos, small, strict=True):
        box = box_of(how, photo.width, photo.height)
        across, down = source.width / photo.width, source.height / photo.height
        box = (box[0] * across, box[1] * down, box[2] * across, box[3] * down)
        seen = np.asarray(source.resize((side, side), Image.Resampling.BILINEAR, box=box), dtype=np.float32)
        pictures.append(torch.from_numpy(seen.mean(2)))
    return torch.stack(pictures)


def box_of(how: Rendering, width: int, height: int) -> tuple[float, float, float, float]:
    """The part of a photograph that `how` shows: left, top, right, bottom, in its pixels."""
    short = min(width, height)
    down = how.side[0] / (height if how.scale == "both" else short)
    across = how.side[1] / (width if how.scale == "both" else short)
    high, wide = min(how.window[0] / down, height), min(how.window[1] / across, width)
    free = (height - high, width - wide) if how.scale != "square" else (short - high, short - wide)
    top = free[0] * how.place[0] + (0 if how.scale != "square" else (height - short) / 2)
    left = free[1] * how.place[1] + (0 if how.scale != "square" else (width - short) / 2)
    left, top = max(left, 0.0), max(top, 0.0)
    return left, top, min(left + wide, width), min(top + high, height)


def refined(
    photos: Sequence[Image.Image], small: Sequence[Image.Image], inputs: Tensor, how: Rendering
) -> tuple[float, Rendering]:
    """`how` with zoom and place moved, in ever smaller steps, to where it correlates best with `inputs`; how well."""
    wanted = centred(thumbs(inputs.flip(3) if how.mirrored else inputs, SMALL))

    def score(zoom: float, down: float, across: float) -> float:
        one = dataclasses.replace(zoomed(how.scale, zoom, how.size, (down, across)), mirrored=how.mirrored)
        return float((centred(glimpsed(photos, small, one, SMALL)) * wanted).sum())

    at = [how.side[0] / how.size[0], *how.place]
    best = score(*at)
    steps = [0.02, 0.12, 0.12]
    while steps[1] > 0.01:
        moved = False
        for axis, way in itertools.product(range(3), (-1, 1)):
            trial = list(at)
            trial[axis] = min(
                max(trial[axis] + way * steps[axis], 1.0 if axis == 0 else 0.0), 3.0 if axis == 0 else 1.0
            )
            value = score(*trial)
            if value > best:
                at, best, moved = trial, value, True
        if not moved:
            steps = [step / 2 for step in steps]
    return best, dataclasses.replace(zoomed(how.scale, at[0], how.size, (at[1], at[2])), mirrored=how.mirrored)


def to_the_pixel(paths: Sequence[Path], inputs: Tensor, starts: Sequence[tuple[float, Rendering]]) -> Rendering:
    """The best rendering near `starts`, with whole pixels and a filter that there is."""
    highest = max(score for score, _ in starts)
    near = [how for score, how in starts if score > highest - 0.02]
    best = (float("inf"), near[0])

    def consider(how: Rendering) -> None:
        nonlocal best
        error = measured(paths, inputs, how).error
        if error < best[0]:
            best = (error, how)

    def moved(how: Rendering, step: int) -> tuple[int, int]:
        return max(how.side[0] + step, how.window[0]), max(how.side[1] + step, how.window[1])

    for how in near:
        # The middle and the edges are what code asks for, and where it is to the pixel.
        snapped = (nearest(how.place[0]), nearest(how.place[1]))
        for step, place in itertools.product(range(-3, 4), dict.fromkeys((snapped, how.place))):
            consider(dataclasses.replace(how, side=moved(how, step), place=place))
    for kind, floats in FILTERS:
        consider(dataclasses.replace(best[1], filter=kind, floats=floats))
    return best[1]


def nearest(share: float) -> float:
    """The edge or the middle, whichever is nearer."""
    return min((0.5, 0.0, 1.0), key=lambda one: abs(one - share))
