from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from bantam.nets.budget import Weight, weigh
from bantam.nets.students import Student, depthwise_resnet, describe

PUBLIC = {
    "stem": 16,
    "strides": [2, 2, 2, 2, 2],
    "stages": [[[16, 2], [16, 2]], [[32, 2], [32, 1], [32, 2]], [[64, 1], [64, 2]], [[128, 1], [128, 1]]],
}
"""The shape of the public solution that came fifth."""


@pytest.mark.parametrize(("budget", "classes", "size"), [(5_000, 2, 32), (60_000, 11, 64), (500_000, 100, 224)])
def test_the_formula_matches_the_shipped_net(budget: int, classes: int, size: int):
    student = describe("depthwise_resnet", budget, classes, size)
    with torch.device("meta"):
        net = student.shipped_net()
    assert sum(p.numel() for p in net.parameters()) == depthwise_resnet.parameters(student.shape, classes)


def test_the_public_shape_trains_59790_parameters_and_ships_fewer():
    net = depthwise_resnet.build(PUBLIC, 11)
    assert weigh(net, 224) == Weight(unique=59_790, torchsummary=59_790)
    norms = sum(m.num_features for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    shipped = Student("depthwise_resnet", PUBLIC, 11, 224).shipped_net()
    assert weigh(shipped, 224).counted == depthwise_resnet.parameters(PUBLIC, 11) == 59_790 - norms


def test_the_public_shape_halves_the_map_five_times():
    net = depthwise_resnet.build(PUBLIC, 11).eval()
    features = net.observe(torch.zeros(1, 3, 224, 224)).features
    assert [tuple(maps.shape[1:]) for maps in features] == [(16, 56, 56), (32, 28, 28), (64, 14, 14), (128, 7, 7)]


def test_pooling_is_left_out_where_the_map_shall_not_shrink():
    early, late = (depthwise_resnet.build({**PUBLIC, "strides": [2, pool, 1, 2, 2]}, 11) for pool in (2, 1))
    assert any(isinstance(layer, nn.MaxPool2d) for layer in early.modules())
    assert not any(isinstance(layer, nn.MaxPool2d) for layer in late.modules())


def plain_separable(layers: Any, maps: Tensor, stride: int) -> Tensor:
    depthwise, pointwise, norm, _ = layers
    maps = functional.conv2d(
        maps, depthwise.weight, stride=stride, padding=depthwise.weight.shape[-1] // 2, groups=maps.shape[1]
    )
    return torch.relu(norm(functional.conv2d(maps, pointwise.weight)))


@pytest.mark.parametrize(("outputs", "convolutions", "stride"), [(12, 1, 2), (12, 2, 2), (12, 2, 1), (8, 2, 1)])
def test_a_block_is_the_plain_sum_of_its_branches(outputs: int, convolutions: int, stride: int):
    torch.manual_seed(0)
    block = depthwise_resnet.SeparableBlock(8, outputs, convolutions, stride).eval()
    maps = torch.randn(2, 8, 10, 10) - 1

    first, *others = block.layers
    expected = plain_separable(first, maps, stride)
    for layers in others:
        expected = plain_separable(layers, expected, 1)
    if outputs == 8:
        expected = expected + maps
    else:
        assert isinstance(block.shortcut, nn.Sequential)
        assert block.shortcut[0].kernel_size == (1, 1)
        expected = expected + plain_separable(block.shortcut, maps, stride)
    assert len(block.layers) == convolutions
    torch.testing.assert_close(block(maps), expected)
    if outputs == 8:
        assert (block(maps) < 0).any()  # no ReLU after the sum
