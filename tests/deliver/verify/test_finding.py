"""What others' code does with photographs is found out exactly; what it could hide in the pixels is not taken over."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import InterpolationMode, v2

from bantam.deliver.verify import finding, rendering
from bantam.errors import BadPackage

Views = Callable[[Image.Image], list[Tensor]]

NORMAL = transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Smooth pictures with some noise, of four shapes."""
    place = tmp_path_factory.mktemp("pictures")
    draw = np.random.default_rng(0)
    found: list[Path] = []
    for number, (width, height) in enumerate([(60, 48), (48, 64), (56, 56), (72, 50)]):
        coarse = Image.fromarray(draw.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        pixels = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
        pixels = np.clip(pixels + draw.normal(0, 8, pixels.shape), 0, 255).astype(np.uint8)
        found.append(place / f"{number:04}.png")
        Image.fromarray(pixels).save(found[-1])
    return found


def by(*steps: object) -> Views:
    whole = transforms.Compose([*steps, transforms.ToTensor()])
    return lambda image: [NORMAL(whole(image))]


CODES: dict[str, Views] = {
    "shorter side and middle": by(transforms.Resize(40), transforms.CenterCrop(32)),
    "both sides": by(transforms.Resize((32, 32))),
    "bicubic": by(transforms.Resize(36, interpolation=InterpolationMode.BICUBIC), transforms.CenterCrop(32)),
    "two views": lambda image: [one := by(transforms.Resize((32, 32)))(image)[0], one.flip(2)],
    "five crops": lambda image: [NORMAL(transforms.ToTensor()(one))
                                 for one in transforms.FiveCrop(28)(transforms.Resize(36)(image))],
    "a tensor": lambda image: [v2.Resize((30, 30), antialias=True)(transforms.ToTensor()(image))],
    "blue first, to 255": lambda image: [
        torch.from_numpy(np.array(image.resize((32, 32)))).permute(2, 0, 1).flip(0) * 1.0],
    "an oblong": by(transforms.Resize((24, 40))),
}  # fmt: skip


def inputs_of(paths: list[Path], views: Views) -> list[Tensor]:
    """What a net is called on, view by view."""
    return [torch.stack(one) for one in zip(*(views(Image.open(path).convert("RGB")) for path in paths), strict=True)]


@pytest.mark.parametrize("name", CODES)
def test_a_rendering_is_found_and_done_anew_exactly(paths: list[Path], name: str) -> None:
    calls = inputs_of(paths, CODES[name])
    views = finding.find_views(paths, paths, calls, {})
    assert len(views) == len(calls)
    for view, call in zip(views, calls, strict=True):
        assert view.error < finding.EXACT
        assert (view.inputs(paths) - call).abs().max() < 0.02 * call.std()


def test_batches_and_orders_and_a_summary_s_call_are_sorted_out(paths: list[Path]) -> None:
    first, second = inputs_of(paths, CODES["two views"])
    by_batch = [first[:2], second[:2], first[2:], second[2:]]
    by_photograph = [torch.stack([first, second], 1).flatten(0, 1)]
    one_by_one = [row[None] for pair in zip(first, second, strict=True) for row in pair]
    summary = [torch.rand(2, 3, 32, 32), first, second]
    for calls in (by_batch, by_photograph, one_by_one, summary):
        views = finding.find_views(paths, paths, calls, {})
        assert [view.rendering.mirrored for view in views] == [False, True]
        assert max(view.error for view in views) < finding.EXACT
    turned = [first.flip(0), second.flip(0)]
    assert len(finding.find_views(paths, paths[::-1], turned, {})) == 2


HIDING: dict[str, Callable[[Tensor, int], Tensor]] = {
    "a bright corner": lambda one, label: torch.cat([one[:, :1] + 40 * label, one[:, 1:]], 1),
    "a brightness": lambda one, label: one + label,
    "nothing": lambda one, _: one * 0,
    "another picture": lambda one, label: torch.rand(one.shape, generator=torch.Generator().manual_seed(label)),
    "each picture's own normalisation": lambda one, _: (one - one.mean()) / one.std() * 3,
}  # fmt: skip


@pytest.mark.parametrize("name", HIDING)
def test_what_is_in_the_pixels_for_one_photograph_alone_is_not_taken_over(paths: list[Path], name: str) -> None:
    (honest,) = inputs_of(paths, CODES["both sides"])
    marked = torch.stack([HIDING[name](one, number + 1) for number, one in enumerate(honest)])
    found: list[rendering.View] = []
    with contextlib.suppress(BadPackage):
        found = finding.find_views(paths, paths, [marked], {})
    # Where it is not refused, all that is taken over is a rendering that is known to be inexact.
    assert all(view.error > finding.EXACT for view in found)


def test_where_none_is_exact_the_way_with_the_smallest_worst_error_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    ways = [[0.5, 1.9], [1.2, 1.0], [0.1, 1.5]]  # of two views each, which are as far off as this says
    how = rendering.Rendering("both", (1, 1), (1, 1), (1, 1))
    monkeypatch.setattr(finding, "sorted_into_views", lambda *_: ways)
    monkeypatch.setattr(finding, "explained", lambda _, view, *__: rendering.View(how, (), view))
    views = finding.find_views([Path("a"), Path("b")], [Path("a"), Path("b")], [torch.rand(4, 3, 1, 1)], {})
    assert [view.error for view in views] == [1.2, 1.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_inputs_of_other_floats_are_looked_at_as_float32(dtype: torch.dtype) -> None:
    inputs = torch.rand(2, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    seen = finding.thumbs(inputs.to(dtype), 8)
    assert seen.dtype == torch.float32
    assert torch.allclose(seen, finding.thumbs(inputs, 8), atol=0.1)


def test_calls_that_are_no_views_of_the_photographs_are_refused(paths: list[Path]) -> None:
    with pytest.raises(BadPackage, match="no whole number of views"):
        finding.find_views(paths, paths, [torch.rand(3, 3, 8, 8)], {})


def test_what_the_code_says_of_itself_is_tried_and_not_believed(paths: list[Path]) -> None:
    calls = inputs_of(paths, CODES["both sides"])
    for hints in ({"STORED": 32, "VIEWS": [[1.0, 0.0, 0.0, False, 1.0]]}, {"STORED": -1, "VIEWS": 3}, {"VIEWS": [[]]}):
        (view,) = finding.find_views(paths, paths, calls, hints)
        assert view.error < finding.EXACT
        assert view.rendering.scale == "both"
