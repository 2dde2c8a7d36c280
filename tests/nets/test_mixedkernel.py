from itertools import pairwise

import pytest
import torch

from bantam.errors import BadRecipe
from bantam.nets.fold import deploy
from bantam.nets.students import describe, mixedkernel


@pytest.mark.parametrize(("budget", "classes", "size"), [(5_000, 2, 32), (60_000, 11, 64), (500_000, 100, 224)])
def test_the_formula_matches_the_shipped_net(budget: int, classes: int, size: int):
    student = describe("mixedkernel", budget, classes, size)
    with torch.device("meta"):
        net = student.shipped_net()
    assert sum(p.numel() for p in net.parameters()) == mixedkernel.parameters(student.shape, classes)


@pytest.mark.parametrize("channels", range(4, 12))
def test_a_block_of_any_width_keeps_its_channels_and_weighs_what_the_formula_says(channels: int):
    block = mixedkernel.MixedBlock(channels)
    assert block(torch.randn(2, channels, 4, 4)).shape == (2, channels, 4, 4)
    shipped = deploy(mixedkernel.StagedNet([block], channels, 1)).stages
    assert sum(p.numel() for p in shipped.parameters()) == mixedkernel.mixed_parameters(channels)


@pytest.mark.parametrize(("channel", "reach"), [(0, 0), (1, 1), (2, 3), (3, 9)])
def test_each_quarter_of_the_channels_sees_its_own_distance(channel: int, reach: int):
    """3 x 3, 7 x 7, and 7 x 7 with dilation 3, which is 19 x 19; the first quarter sees its own pixel."""
    block = mixedkernel.MixedBlock(4).eval().double()
    maps = torch.randn(1, 4, 21, 21, dtype=torch.float64)
    spot = maps.clone()
    spot[:, channel, 10, 10] += 1.0
    changed = (block(spot) - block(maps)).abs().amax((0, 1)) > 1e-9
    rows = changed.any(1).nonzero().flatten()
    assert (rows.min().item(), rows.max().item()) == (10 - reach, 10 + reach)


def test_a_fresh_shortcut_is_the_identity_and_learns_a_scale_for_each_channel():
    block = mixedkernel.MixedBlock(6).eval().double()
    maps = torch.randn(2, 6, 5, 5, dtype=torch.float64)
    torch.testing.assert_close(block.shortcut(maps), maps)
    before = block(maps)
    with torch.no_grad():
        block.shortcut.weight[2] = 3.0
    after = block(maps)
    torch.testing.assert_close(after[:, 2] - before[:, 2], 2 * maps[:, 2])
    torch.testing.assert_close(after[:, 3], before[:, 3])


@pytest.mark.parametrize(("size", "side"), [(16, 16), (32, 16), (48, 12), (64, 16), (96, 12), (128, 16)])
def test_the_map_is_halved_last_first_to_about_16_pixels(size: int, side: int):
    student = describe("mixedkernel", 20_000, 5, size)
    maps = torch.randn(1, 3, size, size)
    sides: list[int] = []
    for stage in student.build().eval().stages:
        maps = stage(maps)
        sides.append(maps.shape[2])
    assert sides[-1] == side
    halvings = sum(stride == 2 for stride in student.shape["strides"])
    assert student.shape["strides"] == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 2], [2, 1, 1, 1, 2], [2, 1, 2, 1, 2]][halvings]


def test_at_its_weight_it_is_as_wide_and_as_deep_as_the_net_known_from_cifar_10():
    """Three blocks of 48 channels, a halving, and three of 80, at 97,530 parameters; here the first three differ."""
    shape = describe("mixedkernel", 97_530, 10, 32).shape
    *early, last = shape["widths"]
    assert (sum(shape["blocks"][:3]), shape["blocks"][3], shape["strides"]) == (3, 3, [1, 1, 1, 1, 2])
    assert abs(sum(early) / 3 - 48) <= 3
    assert abs(last - 80) <= 4


def test_heavier_nets_are_wider_and_a_size_below_a_pixel_is_refused():
    widths = [describe("mixedkernel", budget, 11, 64).shape["widths"] for budget in (20_000, 60_000, 140_000)]
    assert all(a < b for less, more in pairwise(widths) for a, b in zip(less, more, strict=True))
    with pytest.raises(BadRecipe, match="too small"):
        describe("mixedkernel", 60_000, 11, 0)
