"""Augmentation against a slow reference that treats one image, one pixel at a time, in Python floats."""

import colorsys
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv
from scipy import stats
from torch import Tensor

from bantam.data import augment, draws
from bantam.data.augment import Augmentation, Viewing
from bantam.data.splits import Normalisation

MEAN, STD = (0.55, 0.45, 0.34), (0.27, 0.27, 0.28)
PLAIN = Augmentation(flip=0.0)
ALL = Augmentation(
    scale=(0.3, 1.0),
    flip=0.5,
    vertical_flip=0.3,
    rotation=25.0,
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.1,
    erase=0.5,
    mixup=0.4,
    cutmix=0.4,
    mix_alpha=0.4,
)
OPTIONS = {
    "nothing": PLAIN,
    "crop": replace(PLAIN, scale=(0.2, 1.0)),
    "crop of one size": replace(PLAIN, scale=(0.5, 0.5), ratio=(1.0, 1.0)),
    "narrow crop": replace(PLAIN, scale=(0.5, 1.0), ratio=(0.2, 5.0)),
    "flip": Augmentation(),
    "vertical flip": replace(PLAIN, vertical_flip=0.5),
    "rotation": replace(PLAIN, rotation=45.0),
    "brightness": replace(PLAIN, brightness=0.5),
    "contrast": replace(PLAIN, contrast=0.5),
    "saturation": replace(PLAIN, saturation=1.5),
    "hue": replace(PLAIN, hue=0.5),
    "erase": replace(PLAIN, erase=0.7),
    "mixup": replace(PLAIN, mixup=0.7, mix_alpha=0.2),
    "cutmix": replace(PLAIN, cutmix=0.7),
    "all": ALL,
}


def viewing(
    seed: int,
    augmentation: Augmentation,
    size: int,
    mean: tuple[float, float, float] = MEAN,
    std: tuple[float, float, float] = STD,
) -> Viewing:
    return Viewing(seed, augmentation, size, Normalisation(mean, std))


def photographs(n: int, height: int, width: int) -> Tensor:
    """Smooth random colours with noise on top, uint8 [n, height, width, 3]."""
    generator = torch.Generator().manual_seed(n * 1000 + height)
    coarse = torch.rand(n, 3, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    noisy = smooth + 0.1 * torch.randn(smooth.shape, generator=generator)
    return (noisy.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def forced(monkeypatch: pytest.MonkeyPatch, **columns: float) -> None:
    """Makes every draw 1/2 except the named ones."""
    geometry = ["area", "ratio", "left", "top", "flip", "vertical_flip", "angle"]
    names = [*geometry, "brightness", "contrast", "saturation", "hue"]

    def uniform(seed: int, index: Tensor, view: Tensor, stream: int, count: int) -> Tensor:
        drawn = torch.full((len(index), count), 0.5)
        for name, value in columns.items():
            drawn[:, names.index(name)] = value
        return drawn

    monkeypatch.setattr(draws, "uniform", uniform)


# --- The slow reference ---


def reference_rectangle(area: float, u: float, ratio: Sequence[float], aspect: float) -> tuple[float, float]:
    low, high = (min(max(r, area * aspect), aspect / area) for r in ratio)  # of width / height in pixels
    drawn = low * (high / low) ** u
    return math.sqrt(area * drawn / aspect), math.sqrt(area / drawn * aspect)


def reference_sample(image: np.ndarray, x: float, y: float) -> np.ndarray:
    """Bilinear sample of image [H, W, 3] at pixel coordinates; mirrored outside the image's edges."""

    def mirrored(place: float, length: int) -> float:
        place = (place + 0.5) % (2 * length)
        place = min(place, 2 * length - place) - 0.5
        return min(max(place, 0.0), length - 1.0)

    height, width = image.shape[:2]
    x, y = mirrored(x, width), mirrored(y, height)
    left, top = int(x), int(y)
    right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
    upper = image[top, left] * (left + 1 - x) + image[top, right] * (x - left)
    lower = image[bottom, left] * (left + 1 - x) + image[bottom, right] * (x - left)
    return upper * (top + 1 - y) + lower * (y - top)


def reference_shrunk(image: np.ndarray, side: int) -> np.ndarray:
    """Image [H, W, 3] with its height brought to `side` by a triangle filter as wide as two pixels of the result."""
    step = image.shape[0] / side
    rows = np.arange(image.shape[0]) + 0.5
    result = []
    for row in range(side):
        weight = np.clip(1 - np.abs(rows - (row + 0.5) * step) / step, 0, None)
        result.append(np.tensordot(weight / weight.sum(), image, 1))
    return np.stack(result)


def reference_view(
    photo: np.ndarray, index: int, view: int, seed: int, augmentation: Augmentation, size: int
) -> np.ndarray:
    """One view, [size, size, 3], before mixing. Without crop and rotation the size must be the photo's."""
    a = augmentation
    u = draws.uniform(seed, torch.tensor([index]), torch.tensor([view]), draws.VIEW, 16)[0].double().tolist()
    image = photo.astype(np.float64) / 255
    grey_level = float((image @ (0.299, 0.587, 0.114)).mean())

    if a.moves:
        for _ in range(2):  # the height, then the width
            if image.shape[0] > 2 * size:
                image = reference_shrunk(image, 2 * size)
            image = image.transpose(1, 0, 2)
    height, width = image.shape[:2]
    wide = high = 1.0
    if a.scale[0] < 1:
        area = a.scale[0] + u[0] * (a.scale[1] - a.scale[0])
        wide, high = reference_rectangle(area, u[1], a.ratio, photo.shape[1] / photo.shape[0])
    left, top = u[2] * (1 - wide) * width, u[3] * (1 - high) * height
    angle = math.radians((2 * u[6] - 1) * a.rotation)
    result = np.zeros((size, size, 3))
    for row in range(size):
        for column in range(size):
            x, y = (column + 0.5) / size - 0.5, (row + 0.5) / size - 0.5  # -1/2..1/2 in the view
            x, y = x * math.cos(angle) - y * math.sin(angle), x * math.sin(angle) + y * math.cos(angle)
            if u[4] < a.flip:
                x = -x
            if u[5] < a.vertical_flip:
                y = -y
            x, y = left + (x + 0.5) * wide * width, top + (y + 0.5) * high * height
            result[row, column] = reference_sample(image, x - 0.5, y - 0.5)

    reach = (a.brightness, a.contrast, a.saturation)
    brightness, contrast, saturation = (
        max(0, 1 - r) + drawn * (1 + r - max(0, 1 - r)) for r, drawn in zip(reach, u[7:10], strict=True)
    )
    turn = (2 * u[10] - 1) * a.hue * 2 * math.pi
    to_yiq = np.array([(0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)])
    from_yiq = np.linalg.inv(to_yiq)
    for row in range(size):
        for column in range(size):
            pixel = result[row, column] * brightness
            pixel = contrast * pixel + (1 - contrast) * brightness * grey_level
            y, i, q = to_yiq @ pixel
            i, q = saturation * i, saturation * q
            i, q = i * math.cos(turn) - q * math.sin(turn), i * math.sin(turn) + q * math.cos(turn)
            result[row, column] = from_yiq @ (y, i, q)
    result = (np.clip(result, 0, 1) - MEAN) / STD

    if u[11] < a.erase:
        wide, high = reference_rectangle(0.02 + u[12] * 0.31, u[13], (1 / 3.3, 1 / 0.3), 1.0)
        wide, high = max(round(wide * size), 1), max(round(high * size), 1)
        left, top = int(u[14] * (size - wide + 1)), int(u[15] * (size - high + 1))
        result[top : top + high, left : left + wide] = 0
    return result


def reference_mix(
    own: np.ndarray, partner: np.ndarray, index: int, view: int, seed: int, augmentation: Augmentation
) -> tuple[np.ndarray, float]:
    a, size = augmentation, own.shape[0]
    kind, share, column, row = (
        draws.uniform(seed, torch.tensor([index]), torch.tensor([view]), draws.MIX, 4)[0].double().tolist()
    )
    share = float(np.interp(share, QUANTILES, stats.beta(a.mix_alpha, a.mix_alpha).ppf(QUANTILES)))
    if kind < a.mixup:
        return share * own + (1 - share) * partner, share
    mixed, replaced = own.copy(), 0
    if kind < a.mixup + a.cutmix:
        side = int(size * math.sqrt(1 - share))
        top, left = int(row * size) - side // 2, int(column * size) - side // 2
        for y in range(max(top, 0), min(top + side, size)):
            for x in range(max(left, 0), min(left + side, size)):
                mixed[y, x] = partner[y, x]
                replaced += 1
    return mixed, 1 - replaced / size**2


QUANTILES = np.arange(1025) / 1024


# --- Equal to the reference, and a function of (seed, index, view) alone ---


# Without crop and rotation resizing is that of `plain`, which has its own test.
SIZES = [
    (name, side, size)
    for name, augmentation in OPTIONS.items()
    for side, size in ((12, 12), (32, 8), (17, 8), (9, 13))
    if side == size or augmentation.moves
]


@pytest.mark.parametrize(("option", "side", "size"), SIZES)
def test_equals_the_slow_reference(option: str, side: int, size: int) -> None:
    augmentation = OPTIONS[option]
    images = photographs(6, side, side)
    index = torch.tensor([4, 2, 0, 1, 5, 3])
    for view in range(4):
        rendered, ratio = augment.render(images, index, view, viewing(11, augmentation, size))
        expected = [reference_view(images[i].numpy(), i, view, 11, augmentation, size) for i in index.tolist()]
        for p, i in enumerate(index.tolist()):
            mixed, share = reference_mix(expected[p], expected[p ^ 1], i, view, 11, augmentation)
            np.testing.assert_allclose(rendered[p].permute(1, 2, 0).numpy(), mixed, atol=1e-4)
            assert ratio[p].item() == pytest.approx(share, abs=1e-5)


def test_photographs_need_not_be_square() -> None:
    augmentation = replace(ALL, mixup=0.0, cutmix=0.0)
    for height, width in ((10, 14), (14, 6), (35, 12)):
        images = photographs(4, height, width)
        index = torch.arange(4)
        for view in range(4):
            got = augment.views(images, index, index * 0 + view, viewing(3, augmentation, 8))
            for i in range(4):
                expected = reference_view(images[i].numpy(), i, view, 3, augmentation, 8)
                np.testing.assert_allclose(got[i].permute(1, 2, 0).numpy(), expected, atol=1e-4)


@pytest.mark.parametrize(("size", "side"), [(16, 16), (33, 33), (16, 37)])
@pytest.mark.parametrize("option", OPTIONS)
def test_same_bits_whatever_the_batch_order_and_threads(option: str, size: int, side: int) -> None:
    images = photographs(64, side, side)
    pairs = torch.randperm(64, generator=torch.Generator().manual_seed(0)).view(-1, 2)
    whole = torch.arange(64)
    views = whole % 5
    how = viewing(8, OPTIONS[option], size)
    partner = torch.empty_like(whole)
    partner[pairs[:, 0]], partner[pairs[:, 1]] = pairs[:, 1], pairs[:, 0]

    expected, shares = augment.render(images, pairs.flatten(), views[pairs.flatten()], how)
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            for batch in (2, 8, 64):
                order = pairs[torch.randperm(32, generator=torch.Generator().manual_seed(batch))].flatten()
                place = {image: p for p, image in enumerate(pairs.flatten().tolist())}
                for part in order.split(batch)[:6]:
                    got, share = augment.render(images, part, views[part], how)
                    rows = torch.tensor([place[image] for image in part.tolist()])
                    assert torch.equal(got, expected[rows])
                    assert torch.equal(share, shares[rows])
    finally:
        torch.set_num_threads(threads)


def test_seed_and_view_change_the_view() -> None:
    images, index = photographs(8, 16, 16), torch.arange(8)
    first = augment.render(images, index, 0, viewing(0, ALL, 16))[0]
    assert not torch.equal(first, augment.render(images, index, 1, viewing(0, ALL, 16))[0])
    assert not torch.equal(first, augment.render(images, index, 0, viewing(1, ALL, 16))[0])


def test_an_option_leaves_the_draws_of_the_others() -> None:
    images, index = photographs(32, 16, 16), torch.arange(32)
    flipped = augment.views(images, index, index, viewing(0, Augmentation(), 16))
    erased = augment.views(images, index, index, viewing(0, Augmentation(erase=1.0), 16))
    kept = erased != 0
    assert torch.equal(erased[kept], flipped[kept])
    assert 0.6 < kept.float().mean() < 0.95


def test_no_generator_is_used() -> None:
    images, index = photographs(4, 16, 16), torch.arange(4)
    before = torch.random.get_rng_state()
    augment.render(images, index, 0, viewing(0, ALL, 16))
    assert torch.equal(before, torch.random.get_rng_state())


def test_layout_and_type() -> None:
    images, index = photographs(4, 20, 20), torch.arange(4)
    for rendered in (
        augment.render(images, index, 0, viewing(0, ALL, 16))[0],
        augment.views(images, index, index, viewing(0, ALL, 16)),
        augment.plain(images, 16, MEAN, STD),
    ):
        assert rendered.shape == (4, 3, 16, 16)
        assert rendered.dtype == torch.float32
        assert rendered.is_contiguous(memory_format=torch.channels_last)


# --- Exactness ---


def test_plain_is_the_normalised_photograph() -> None:
    images = photographs(4, 16, 16)
    expected = (images.double() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    got = augment.plain(images, 16, MEAN, STD).permute(0, 2, 3, 1)
    torch.testing.assert_close(got.double(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("side", "size"), [(16, 16), (16, 24), (37, 16)])
def test_a_view_without_options_is_plain(side: int, size: int) -> None:
    images, index = photographs(4, side, side), torch.arange(4)
    plain = augment.plain(images, size, MEAN, STD)
    assert torch.equal(augment.views(images, index, index, viewing(0, PLAIN, size)), plain)
    rendered, ratio = augment.render(images, index, 9, viewing(0, PLAIN, size))
    assert torch.equal(rendered, plain)
    assert torch.equal(ratio, torch.ones(4))


def test_flips_are_exact() -> None:
    images, index = photographs(64, 16, 16), torch.arange(64)
    plain = augment.plain(images, 16, MEAN, STD)
    for axis, options in ((3, Augmentation()), (2, replace(PLAIN, vertical_flip=0.5))):
        got = augment.views(images, index, index, viewing(0, options, 16))
        same = (got == plain).flatten(1).all(1)
        turned = (got == plain.flip(axis)).flatten(1).all(1)
        assert torch.equal(same, ~turned)
        assert 16 < same.sum() < 48


def test_plain_resizing_is_torchvisions() -> None:
    images = photographs(3, 50, 50)
    for size in (16, 80):
        got = augment.plain(images, size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        expected = tv.resize(images.permute(0, 3, 1, 2) / 255, [size, size], antialias=True)
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_rotation_is_counter_clockwise(monkeypatch: pytest.MonkeyPatch) -> None:
    images, index = photographs(2, 16, 16), torch.arange(2)
    forced(monkeypatch, angle=0.75)
    got = augment.views(images, index, index, viewing(0, replace(PLAIN, rotation=180.0), 16))
    expected = torch.rot90(augment.plain(images, 16, MEAN, STD), 1, (2, 3))
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


def test_a_large_photograph_does_not_alias() -> None:
    """A checkerboard of single pixels is grey in a view of an eighth of its size."""
    board = ((torch.arange(128)[:, None] + torch.arange(128)) % 2 * 255).to(torch.uint8)
    images = board[None, :, :, None].expand(2, -1, -1, 3)
    crop = replace(PLAIN, scale=(0.8, 1.0))
    got = augment.render(images, torch.arange(2), 0, viewing(0, crop, 16, (0.5,) * 3, (0.5,) * 3))[0]
    assert got.abs().mean() < 0.01
    assert got[:, :, 2:-2, 2:-2].abs().max() < 1e-5  # at the edge the filter has fewer pixels


def fidelity(side: int, size: int, area: float) -> float:
    """PSNR in dB of a crop of the share `area` of a picture of `side` pixels, against the antialiased resize of it."""
    ticks = (torch.arange(400) + 0.5) / 400
    down, across = torch.meshgrid(ticks, ticks, indexing="ij")
    rings = torch.sin(60 * (down**2 + across**2)) + torch.sign(torch.sin(9 * down + 5 * across))
    picture = torch.stack((rings, rings.T, -rings))[None] * 60 + 127  # as fine as a photograph's edges
    source = tv.resize(picture, [side, side], antialias=True)
    kept = round(side * area**0.5)
    expected = tv.resize(source[:, :, :kept, :kept], [size, size], antialias=True)
    drawn = torch.tensor([[0.5, 0.5, 0.0, 0.0, 1.0, 1.0, 0.5]], dtype=torch.float64)
    options = replace(PLAIN, scale=((kept / side) ** 2 - 1e-9, (kept / side) ** 2), ratio=(1.0, 1.0))
    got = augment._resample(source, drawn, options, size)
    return -10 * math.log10((got - expected).square().mean().item() / 255**2)


def test_no_size_of_photograph_is_blurred_or_aliases_more_than_twice_the_view() -> None:
    size, areas = 32, (0.3, 0.6, 0.99)
    at_twice = min(fidelity(2 * size, size, area) for area in areas)
    assert at_twice > 25
    for side in (65, 66, 80, 96, 129, 130, 192, 257):
        assert min(fidelity(side, size, area) for area in areas) > at_twice, side


def test_up_to_twice_the_view_nothing_but_the_one_resampling_touches_a_photograph(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So the views that answers were cached for stay as they are to the bit, and so does their version."""

    def never(*_: object) -> None:
        raise AssertionError("a photograph was resized before the crop")

    monkeypatch.setattr(augment, "_antialiased", never)
    for height, width in ((16, 16), (32, 32), (31, 20), (9, 9)):
        augment.render(photographs(4, height, width), torch.arange(4), 0, viewing(0, ALL, 16))
        assert augment.version(ALL, (4, height, width, 3), 16) == 1
    assert augment.version(PLAIN, (4, 64, 64, 3), 16) == 1
    for height, width in ((33, 16), (16, 33), (64, 64)):
        assert augment.version(ALL, (4, height, width, 3), 16) == 2
        with pytest.raises(AssertionError, match="before the crop"):
            augment.render(photographs(4, height, width), torch.arange(4), 0, viewing(0, ALL, 16))


def test_golden_view() -> None:
    images = torch.stack([torch.arange(32 * 32 * 3).view(32, 32, 3) * k % 251 for k in (1, 3, 7, 11)]).to(torch.uint8)
    got = augment.render(images, torch.arange(4), 3, viewing(5, ALL, 32))[0]
    np.testing.assert_allclose(got[:, :, 3::13, 5::11].mean(1).flatten().numpy(), GOLDEN_PIXELS, atol=1e-4)


GOLDEN_PIXELS = [
    -1.05415,
    -1.63933,
    -1.32519,
    -0.75396,
    0.0,
    -0.7028,
    -0.45378,
    -0.60407,
    -1.14214,
    -1.05415,
    -1.63933,
    -1.32519,
    -0.75396,
    0.0,
    -0.7028,
    0.81032,
    1.34057,
    0.38604,
    1.04947,
    1.35354,
    0.91595,
    1.17474,
    0.8365,
    -0.12982,
    0.09691,
    -0.87715,
    -0.73765,
    1.05059,
    1.35497,
    0.9156,
    1.17549,
    0.83692,
    -0.13171,
    0.09724,
    -0.87892,
    -0.74033,
]


# --- Colour against torchvision ---


@pytest.mark.parametrize("option", ["brightness", "contrast", "saturation"])
@pytest.mark.parametrize("drawn", [0.0, 0.2, 0.5, 0.9])
def test_colour_factors_are_torchvisions(option: str, drawn: float, monkeypatch: pytest.MonkeyPatch) -> None:
    images, index = photographs(1, 24, 24), torch.arange(1)
    forced(monkeypatch, **{option: drawn})
    augmentation = replace(PLAIN, **{option: 0.7})
    got = augment.views(images, index, index, viewing(0, augmentation, 24, (0.0,) * 3, (1.0,) * 3))
    expected = getattr(tv, f"adjust_{option}")(images.permute(0, 3, 1, 2) / 255, 0.3 + 1.4 * drawn)
    # torchvision's grey weights add up to 0.9999.
    torch.testing.assert_close(got, expected, atol=3e-4, rtol=0)


def test_hue_keeps_grey_and_luma_and_turns_the_hue(monkeypatch: pytest.MonkeyPatch) -> None:
    colours = torch.tensor([(128, 128, 128), (140, 120, 110), (110, 140, 120), (120, 110, 140)])
    images = colours.to(torch.uint8)[:, None, None].expand(-1, 8, 8, -1)
    index = torch.arange(4)
    before = augment.plain(images, 8, (0.0,) * 3, (1.0,) * 3)[:, :, 0, 0].double()
    weights = torch.tensor((0.299, 0.587, 0.114)).double()
    for drawn in (0.0, 0.6, 0.75):  # the YIQ and the HSV circle run in opposite directions
        forced(monkeypatch, hue=drawn)
        got = augment.views(images, index, index, viewing(0, replace(PLAIN, hue=0.5), 8, (0.0,) * 3, (1.0,) * 3))
        after = got[:, :, 0, 0].double()
        torch.testing.assert_close(after[0], before[0], atol=1e-6, rtol=0)
        torch.testing.assert_close(after @ weights, before @ weights, atol=1e-6, rtol=0)
        for old, new in zip(before[1:].tolist(), after[1:].tolist(), strict=True):
            turned = (colorsys.rgb_to_hsv(*old)[0] - colorsys.rgb_to_hsv(*new)[0]) % 1
            assert min(abs(turned - (drawn - 0.5) % 1), 1 - abs(turned - (drawn - 0.5) % 1)) < 0.06


# --- Statistics ---

MANY = torch.arange(4000)


def test_rates_of_flipping_and_erasing() -> None:
    ramp = torch.arange(0, 160, 10, dtype=torch.uint8)[None, None, :, None].expand(1, 16, -1, 3)
    images = ramp.expand(4000, -1, -1, -1)
    options = replace(PLAIN, flip=0.3, erase=0.25)
    got = augment.views(images, MANY, MANY, viewing(1, options, 16, (-0.1,) * 3, (1.0,) * 3))
    bright = got.amax(2)[:, 0]  # [B, columns]; a whole column is never erased twice
    flipped = (bright.argmax(1) < 8).float().mean().item()
    assert flipped == pytest.approx(0.3, abs=0.03)
    gone = (got == 0).float().mean((1, 2, 3))
    assert (gone > 0).float().mean().item() == pytest.approx(0.25, abs=0.03)
    erased = gone[gone > 0]
    assert erased.min() > 0.008
    assert erased.max() < 0.37
    assert erased.mean().item() == pytest.approx((0.02 + 0.33) / 2, abs=0.015)


def test_crops_have_the_drawn_area_and_ratio() -> None:
    """Read off two linear ramps: the mean slope of a view is the crop's width and height."""
    ramp = torch.arange(64, dtype=torch.float32) * 4
    images = torch.stack((ramp.expand(64, 64), ramp[:, None].expand(64, 64), torch.zeros(64, 64)), dim=-1).to(
        torch.uint8
    )
    images = images.expand(1500, -1, -1, -1)
    index = MANY[:1500]
    options = replace(PLAIN, scale=(0.2, 0.9))
    got = augment.views(images, index, index, viewing(2, options, 16, (0.0,) * 3, (1.0,) * 3)) * 255 / 4
    wide = (got[:, 0, 8, 12] - got[:, 0, 8, 3]) * 16 / 9 / 64
    high = (got[:, 1, 12, 8] - got[:, 1, 3, 8]) * 16 / 9 / 64
    area, ratio = (wide * high).numpy(), (wide / high).numpy()
    assert stats.kstest(area, stats.uniform(0.2, 0.7).cdf).pvalue > 0.01
    assert ratio.min() > 3 / 4 - 0.02
    assert ratio.max() < 4 / 3 + 0.02
    roomy = ratio[area < 0.7]  # there every ratio fits
    assert stats.kstest(np.log(roomy), stats.uniform(math.log(3 / 4), math.log(16 / 9)).cdf).pvalue > 0.01
    left = got[:, 0, 8, :2].mean(1) / 64 - wide / 16  # centres of the first two columns
    assert left.min() > -0.02
    assert (left + wide).max() < 1.02


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.4, 1.0, 2.0, 8.0])
def test_shares_follow_the_beta_distribution(alpha: float) -> None:
    images = torch.zeros(4000, 3, 2, 2)
    options = Augmentation(mixup=1.0, mix_alpha=alpha)
    share = augment.mix(images, MANY, MANY * 0, 4, options)[1].double().numpy()
    expected = stats.beta(alpha, alpha)
    assert share.mean() == pytest.approx(0.5, abs=5 * expected.std() / np.sqrt(4000))
    assert share.var() == pytest.approx(expected.var(), rel=0.06)
    quantiles = expected.ppf((np.arange(4000) + 0.5) / 4000)
    assert abs(np.sort(share) - quantiles).mean() < 0.02
    assert share.min() >= 0
    assert share.max() <= 1


# --- Mixing ---


def test_share_of_the_label_is_the_share_of_the_pixels() -> None:
    """The images hold their own position; so each pixel tells whose it is."""
    images = torch.arange(400.0)[:, None, None, None].expand(-1, 3, 24, 24)
    index = MANY[:400]
    options = Augmentation(mixup=0.3, cutmix=0.5, mix_alpha=0.5)
    mixed, ratio = augment.mix(images, index, index * 0, 6, options)
    partner = index ^ 1
    expected = index * ratio.double() + partner * (1 - ratio.double())
    torch.testing.assert_close(mixed.double().mean((1, 2, 3)), expected, atol=1e-4, rtol=0)
    constant = (mixed == mixed[:, :1, :1, :1]).flatten(1).all(1)
    untouched = ratio == 1
    cut = ~constant
    blended = constant & ~untouched
    assert 0.4 < cut.float().mean() < 0.52  # a few boxes hold all pixels or none
    assert 0.24 < blended.float().mean() < 0.38
    for p in cut.nonzero().flatten().tolist():
        own = (mixed[p] == images[p]).float().mean().item()
        foreign = (mixed[p] == images[p ^ 1]).float().mean().item()
        assert own + foreign == pytest.approx(1)
        assert ratio[p].item() == pytest.approx(own, abs=1e-6)


def test_without_mixing_nothing_happens() -> None:
    images, index = torch.rand(3, 3, 4, 4), torch.arange(3)
    mixed, ratio = augment.mix(images, index, index, 0, Augmentation())
    assert mixed is images
    assert ratio.tolist() == [1, 1, 1]


def test_odd_batches_are_not_mixed() -> None:
    images, index = torch.rand(3, 3, 4, 4), torch.arange(3)
    with pytest.raises(ValueError, match="3 images"):
        augment.mix(images, index, index, 0, Augmentation(mixup=0.5))
    with pytest.raises(ValueError, match="3 labels"):
        augment.soft_targets(index, torch.ones(3), 3)


def test_soft_targets() -> None:
    targets = augment.soft_targets(torch.tensor([0, 2, 1, 1]), torch.tensor([0.75, 1.0, 0.5, 0.25]), 3)
    expected = torch.tensor([[0.75, 0, 0.25], [0, 0, 1], [0, 1, 0], [0, 1, 0]])
    assert torch.equal(targets, expected)


def test_a_view_with_anything_unlabelled_in_it_has_no_target() -> None:
    """Pairs: not mixed; the partner mixed in; the partner alone, the image's own label nowhere to be seen; neither."""
    labels = torch.tensor([-1, 2, 1, -1, -1, 0, -1, -1])
    ratio = torch.tensor([1.0, 1.0, 0.75, 0.9, 0.0, 0.5, 0.3, 1.0])
    expected = torch.zeros(8, 3)
    expected[1, 2] = expected[4, 0] = 1
    assert torch.equal(augment.soft_targets(labels, ratio, 3), expected)


# --- Where the photographs lie; what is refused; compiling and capturing ---


def test_a_file_larger_than_memory_is_read_where_needed(tmp_path: Path) -> None:
    n = 20_000_000  # 246 GB, of which the file system stores what is written below
    path = tmp_path / "images.bin"
    photos = np.memmap(path, dtype=np.uint8, mode="w+", shape=(n, 64, 64, 3))
    index = torch.tensor([n - 1, 0, 12_345_678, 7])
    photos[index.numpy()] = photographs(4, 64, 64).numpy()
    images = torch.from_numpy(photos)
    got, _ = augment.render(images, index, 0, viewing(0, PLAIN, 64))
    assert torch.equal(got, augment.plain(photographs(4, 64, 64), 64, MEAN, STD))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("scale", (0.0, 1.0)),
        ("scale", (0.9, 0.5)),
        ("scale", (0.5, 1.5)),
        ("ratio", (0.0, 1.0)),
        ("ratio", (2.0, 1.0)),
        ("ratio", (1.0, math.inf)),
        ("flip", 1.5),
        ("vertical_flip", -0.1),
        ("rotation", 181.0),
        ("brightness", -0.1),
        ("contrast", math.nan),
        ("saturation", -1.0),
        ("hue", 0.6),
        ("erase", 2.0),
        ("mixup", -0.5),
        ("cutmix", 1.1),
        ("mix_alpha", 0.0),
    ],
)
def test_values_out_of_range_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"augmentation\.{field} is"):
        replace(Augmentation(), **{field: value})


def test_mixing_more_than_always_is_refused() -> None:
    with pytest.raises(ValueError, match=r"augmentation\.mixup and augmentation\.cutmix"):
        Augmentation(mixup=0.6, cutmix=0.6)


@pytest.mark.slow
@pytest.mark.parametrize("option", ["flip", "all"])
def test_compiles_as_one_graph(option: str) -> None:
    images, index = photographs(8, 24, 24), torch.arange(8)
    compiled = torch.compile(augment.render, fullgraph=True)
    # Other shares than uniform ones come from a table by scipy, which cannot be traced.
    arguments = (images, index, index * 3, viewing(5, replace(OPTIONS[option], mix_alpha=1.0), 24))
    got, expected = compiled(*arguments), augment.render(*arguments)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=0)


@pytest.mark.gpu
@pytest.mark.parametrize("option", OPTIONS)
def test_captured_on_the_gpu(option: str) -> None:
    """Captured once, replayed with other images: what the CPU makes of them, but for rounding."""
    images = photographs(16, 24, 24)
    resident = images.cuda()
    index, view = torch.arange(8).cuda(), torch.zeros(8, dtype=torch.int64).cuda()

    def step() -> tuple[Tensor, Tensor]:
        return augment.render(resident, index, view, viewing(5, OPTIONS[option], 24))

    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured, shares = step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for number in range(4):
        chosen = torch.arange(8) + number
        index.copy_(chosen)
        view.fill_(number)
        graph.replay()
        expected, ratio = augment.render(images, chosen, number, viewing(5, OPTIONS[option], 24))
        torch.testing.assert_close(captured.cpu(), expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(shares.cpu(), ratio, atol=1e-6, rtol=0)
