import pytest
import torch
from torch import nn

from bantam.nets import blocks


def parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize(("inputs", "outputs", "groups"), [(3, 8, 1), (8, 8, 8), (8, 12, 4)])
def test_conv_bn_matches_its_formula(inputs: int, outputs: int, groups: int, kernel: int):
    net = blocks.conv_bn(inputs, outputs, kernel, groups=groups)
    assert parameters(net) == blocks.conv_bn_parameters(inputs, outputs, kernel, groups)


def test_conv_bn_leaves_the_activation_out_when_told():
    assert any(isinstance(layer, nn.ReLU) for layer in blocks.conv_bn(3, 4))
    assert not any(isinstance(layer, nn.ReLU) for layer in blocks.conv_bn(3, 4, activation=False))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [8, 9])
def test_blocks_halve_the_map_by_stride_alone(stride: int, size: int):
    images = torch.randn(2, 6, size, size)
    expected = (2, 10, -(-size // stride), -(-size // stride))
    assert blocks.conv_bn(6, 10, stride=stride)(images).shape == expected
    assert blocks.depthwise_separable(6, 10, stride=stride)(images).shape == expected


def test_depthwise_separable_spends_what_the_paper_says():
    # 32 channels to 64: 32 * 9 + 32 * 64 weights instead of 32 * 64 * 9, and BN's two per channel.
    net = blocks.depthwise_separable(32, 64)
    weights = [layer.weight for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    assert [tuple(weight.shape) for weight in weights] == [(32, 1, 3, 3), (64, 32, 1, 1)]
    assert sum(weight.numel() for weight in weights) == 288 + 2048
    assert parameters(net) == blocks.depthwise_separable_parameters(32, 64) == 288 + 64 + 2048 + 128


def test_linear_parameters_match_the_layer():
    assert parameters(nn.Linear(84, 11)) == blocks.linear_parameters(84, 11) == 935
