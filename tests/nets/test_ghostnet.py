import pytest
import torch
from torch import nn

from bantam.nets.fold import deploy
from bantam.nets.output import StagedNet
from bantam.nets.students import describe, ghostnet


def shipped_parameters(block: nn.Module) -> int:
    return sum(parameter.numel() for parameter in deploy(StagedNet([block], 1, 1)).stages.parameters())


@pytest.mark.parametrize(("budget", "classes", "size"), [(5_000, 2, 32), (60_000, 11, 64), (500_000, 100, 224)])
def test_the_formula_matches_the_shipped_net(budget: int, classes: int, size: int):
    student = describe("ghostnet", budget, classes, size)
    with torch.device("meta"):
        net = student.shipped_net()
    assert sum(p.numel() for p in net.parameters()) == ghostnet.parameters(student.shape, classes)


@pytest.mark.parametrize(("outputs", "primary", "ghosts"), [(16, 8, 8), (17, 9, 8), (2, 1, 1)])
def test_half_of_the_channels_are_cheap(outputs: int, primary: int, ghosts: int):
    module = ghostnet.GhostModule(12, outputs)
    pointwise, cheap = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    assert (pointwise.kernel_size, pointwise.groups, pointwise.out_channels) == ((1, 1), 1, primary)
    assert (cheap.kernel_size, cheap.groups, cheap.out_channels) == ((3, 3), ghosts, ghosts)
    assert shipped_parameters(module) == ghostnet.ghost_module_parameters(12, outputs) == 13 * primary + 10 * ghosts


def test_the_ghosts_are_made_of_the_primary_maps():
    module = ghostnet.GhostModule(4, 9, activation=None).eval()
    maps = torch.randn(2, 4, 6, 6)
    output = module(maps)
    assert torch.equal(output[:, :5], module.primary(maps))
    assert torch.equal(output[:, 5:], module.cheap(output[:, :4]))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("outputs", [8, 11])
def test_bottlenecks_have_the_papers_layers(outputs: int, stride: int):
    block = ghostnet.GhostBottleneck(8, 24, outputs, stride)
    assert block(torch.randn(2, 8, 9, 9)).shape == (2, outputs, -(-9 // stride), -(-9 // stride))
    assert isinstance(block.shortcut, nn.Identity) == (stride == 1 and outputs == 8)
    strided = [m for m in block.layers.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
    assert [layer.groups for layer in strided] == ([24] if stride == 2 else [])
    narrowing = list(block.layers.children())[-1]
    assert not any(isinstance(layer, nn.ReLU) for layer in narrowing.modules())
    assert shipped_parameters(block) == ghostnet.bottleneck_parameters(8, 24, outputs, stride)
