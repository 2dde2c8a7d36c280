import itertools

import pytest
import torch
from torch import nn

from bantam.nets.students import describe, mobilenet_v1


@pytest.mark.parametrize(
    ("budget", "classes", "size"), list(itertools.product([5_000, 60_000, 500_000], [2, 100], [32, 64]))
)
def test_the_formula_matches_the_shipped_net(budget: int, classes: int, size: int):
    student = describe("mobilenet_v1", budget, classes, size)
    net = student.shipped_net()
    assert sum(parameter.numel() for parameter in net.parameters()) == mobilenet_v1.parameters(student.shape, classes)


@pytest.mark.parametrize(
    ("size", "last"),
    [(8, 8), (16, 8), (28, 7), (32, 8), (48, 6), (64, 8), (96, 6), (112, 7), (128, 8), (224, 7)],
)
def test_the_last_map_is_about_8_by_8(size: int, last: int):
    net = describe("mobilenet_v1", 20_000, 11, size).build().eval()
    assert net.observe(torch.zeros(1, 3, size, size)).features[-1].shape[-2:] == (last, last)


def test_all_convolutions_but_the_stem_are_depthwise_or_pointwise():
    net = describe("mobilenet_v1", 60_000, 11, 64).build()
    stem, *others = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    assert stem.kernel_size == (3, 3)
    assert stem.groups == 1
    for depthwise, pointwise in zip(others[::2], others[1::2], strict=True):
        assert depthwise.groups == depthwise.in_channels == depthwise.out_channels
        assert depthwise.kernel_size == (3, 3)
        assert pointwise.kernel_size == (1, 1)
        assert pointwise.groups == 1


def test_a_shape_written_by_hand_is_built_as_written():
    shape = {"stem": 8, "stages": [[8], [12, 16]], "strides": [2, 1, 2]}
    net = mobilenet_v1.build(shape, 5)
    features = net.observe(torch.zeros(1, 3, 32, 32)[[0, 0]]).features
    assert [tuple(maps.shape) for maps in features] == [(2, 8, 16, 16), (2, 16, 8, 8)]
    # stem 3*8*9+16; 8 to 8: 72+16+64+16; 8 to 12: 72+16+96+24; 12 to 16: 108+24+192+32; head 17*5
    assert sum(parameter.numel() for parameter in net.parameters()) == 232 + 168 + 208 + 356 + 85
