import pytest
import torch
from torch import nn

from bantam.nets import blocks
from bantam.nets.fold import deploy
from bantam.nets.output import StagedNet


def parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def shipped_parameters(block: nn.Module) -> int:
    return parameters(deploy(StagedNet([block], 1, 1)).stages)


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize(("inputs", "outputs", "groups"), [(3, 8, 1), (8, 8, 8), (8, 12, 4)])
def test_conv_bn_matches_its_formula(inputs: int, outputs: int, groups: int, kernel: int):
    net = blocks.conv_bn(inputs, outputs, kernel, groups=groups)
    assert shipped_parameters(net) == blocks.conv_bn_parameters(inputs, outputs, kernel, groups)


def test_conv_bn_leaves_the_activation_out_when_told():
    assert any(isinstance(layer, nn.ReLU) for layer in blocks.conv_bn(3, 4))
    assert not any(isinstance(layer, nn.ReLU) for layer in blocks.conv_bn(3, 4, activation=None))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [8, 9])
def test_blocks_halve_the_map_by_stride_alone(stride: int, size: int):
    images = torch.randn(2, 6, size, size)
    expected = (2, 10, -(-size // stride), -(-size // stride))
    assert blocks.conv_bn(6, 10, stride=stride)(images).shape == expected
    assert blocks.depthwise_separable(6, 10, stride=stride)(images).shape == expected


def test_depthwise_separable_spends_what_the_paper_says():
    # 32 channels to 64: 32 * 9 + 32 * 64 weights instead of 32 * 64 * 9, and a bias per channel for BN's two.
    net = blocks.depthwise_separable(32, 64)
    weights = [layer.weight for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    assert [tuple(weight.shape) for weight in weights] == [(32, 1, 3, 3), (64, 32, 1, 1)]
    assert sum(weight.numel() for weight in weights) == 288 + 2048
    assert shipped_parameters(net) == blocks.depthwise_separable_parameters(32, 64) == 288 + 32 + 2048 + 64


def test_linear_parameters_match_the_layer():
    assert parameters(nn.Linear(84, 11)) == blocks.linear_parameters(84, 11) == 935


@pytest.mark.parametrize(
    ("groups", "order"), [(1, [0, 1, 2, 3, 4, 5]), (2, [0, 3, 1, 4, 2, 5]), (3, [0, 2, 4, 1, 3, 5])]
)
def test_channel_shuffle_deals_each_group_out_to_all(groups: int, order: list[int]):
    maps = torch.arange(6.0).view(1, 6, 1, 1) + torch.randn(2, 1, 3, 4)
    shuffled = blocks.channel_shuffle(maps, groups)
    assert torch.equal(shuffled, maps[:, order])
    assert torch.equal(blocks.channel_shuffle(shuffled, 6 // groups), maps)


def test_channel_shuffle_keeps_channels_last_in_memory():
    maps = torch.randn(2, 6, 3, 4).contiguous(memory_format=torch.channels_last)
    assert blocks.channel_shuffle(maps, 2).is_contiguous(memory_format=torch.channels_last)


def test_squeeze_excite_scales_channels_by_a_gate_from_the_means_of_all():
    torch.manual_seed(0)
    gate = blocks.SqueezeExcite(8, 3)
    assert parameters(gate) == blocks.squeeze_excite_parameters(8, 3) == 8 * 3 + 3 + 3 * 8 + 8
    maps = torch.randn(2, 8, 5, 5)
    hidden = nn.functional.linear(maps.mean((2, 3)), gate.squeeze.weight.flatten(1), gate.squeeze.bias)
    hidden = hidden * (hidden + 3).clamp(0, 6) / 6
    excited = nn.functional.linear(hidden, gate.excite.weight.flatten(1), gate.excite.bias)
    expected = ((excited + 3) / 6).clamp(0, 1)
    torch.testing.assert_close(gate(maps), maps * expected[:, :, None, None])


@pytest.mark.parametrize(("stride", "outputs", "added"), [(1, 6, True), (2, 6, False), (1, 10, False)])
def test_inverted_residual_expands_filters_projects_and_adds(stride: int, outputs: int, added: bool):
    torch.manual_seed(0)
    block = blocks.inverted_residual(6, 24, outputs, kernel=5, stride=stride).eval()
    weights = [tuple(layer.weight.shape) for layer in block.modules() if isinstance(layer, nn.Conv2d)]
    assert weights == [(24, 6, 1, 1), (24, 1, 5, 5), (outputs, 24, 1, 1)]
    maps = torch.randn(2, 6, 9, 9)
    assert isinstance(block, blocks.Residual) == added
    if isinstance(block, blocks.Residual):
        torch.testing.assert_close(block(maps), maps + block.layers(maps))
    assert block(maps).shape == (2, outputs, -(-9 // stride), -(-9 // stride))


@pytest.mark.parametrize("squeezed", [0, 2])
@pytest.mark.parametrize("expanded", [6, 24])
def test_inverted_residual_matches_its_formula(expanded: int, squeezed: int):
    net = blocks.inverted_residual(6, expanded, 10, kernel=5, squeezed=squeezed)
    assert shipped_parameters(net) == blocks.inverted_residual_parameters(6, expanded, 10, 5, squeezed)


def test_parallel_branches_are_added_up_and_ship_the_widest_alone():
    torch.manual_seed(0)
    block = blocks.ParallelConv(6, 6, (5, 1), groups=6, identity=True)
    assert [type(branch) for branch in block.branches] == [nn.Sequential, nn.Sequential, nn.BatchNorm2d]
    maps = torch.randn(2, 6, 8, 8)
    block.eval()
    torch.testing.assert_close(block(maps), sum(branch(maps) for branch in block.branches))
    assert shipped_parameters(block) == blocks.conv_bn_parameters(6, 6, 5, groups=6) == 6 * 25 + 6


def test_only_the_norms_at_the_end_start_small():
    branch = nn.Sequential(blocks.conv_bn(3, 4), blocks.conv_bn(4, 3))
    blocks.start_near_identity(branch[1])
    scales = [layer.weight for layer in branch.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert torch.equal(scales[0], torch.ones(4))
    assert torch.equal(scales[1], torch.full((3,), blocks.RESIDUAL_SCALE))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("outputs", [6, 9])
def test_transitions_are_paid_for_only_where_the_shape_changes(outputs: int, stride: int):
    layers = nn.Sequential(*blocks.transition(6, outputs, stride))
    assert layers(torch.randn(2, 6, 8, 8)).shape == (2, outputs, 8 // stride, 8 // stride)
    assert (len(layers) == 0) == (outputs == 6 and stride == 1)
    shipped = sum(p.numel() for p in deploy(StagedNet([layers], 1, 1)).stages.parameters())
    assert shipped == blocks.transition_parameters(6, outputs, stride)
