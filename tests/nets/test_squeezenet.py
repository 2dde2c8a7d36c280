import itertools

import pytest
import torch
from torch import nn

from bantam.nets.blocks import Residual
from bantam.nets.students import describe, squeezenet
from bantam.nets.students.squeezenet import Fire


@pytest.mark.parametrize(
    ("budget", "classes", "size"), list(itertools.product([5_000, 60_000, 500_000], [2, 100], [64]))
)
def test_the_formula_matches_the_shipped_net(budget: int, classes: int, size: int):
    student = describe("squeezenet", budget, classes, size)
    net = student.shipped_net()
    assert sum(parameter.numel() for parameter in net.parameters()) == squeezenet.parameters(student.shape, classes)


def test_a_fire_module_squeezes_then_expands_both_ways():
    torch.manual_seed(0)
    fire = Fire(12, 3, 8).eval()
    maps = torch.randn(2, 12, 5, 5)
    output = fire(maps)
    assert output.shape == (2, 16, 5, 5)
    convolutions = [layer for layer in fire.modules() if isinstance(layer, nn.Conv2d)]
    assert [tuple(layer.weight.shape) for layer in convolutions] == [(3, 12, 1, 1), (8, 3, 1, 1), (8, 3, 3, 3)]
    torch.testing.assert_close(output[:, :8], fire.expand1(fire.squeeze(maps)))
    torch.testing.assert_close(output[:, 8:], fire.expand3(fire.squeeze(maps)))


@pytest.mark.parametrize("budget", [60_000, 500_000])
def test_a_squeeze_has_about_an_eighth_of_the_outputs(budget: int):
    for stage in describe("squeezenet", budget, 11, 64).shape["stages"]:
        for squeezed, expanded in stage:
            assert squeezed / (2 * expanded) == pytest.approx(0.125, rel=0.15)


def test_a_bypass_goes_around_every_fire_module_that_keeps_the_width():
    shape = {"stem": 8, "stages": [[[2, 8], [2, 8]], [[3, 8], [3, 10]]], "strides": [2, 1, 2]}
    net = squeezenet.build(shape, 5)
    kinds = [[type(layer) for layer in stage.children()][1:] for stage in net.stages]
    assert kinds == [[Fire, Residual], [Residual, Fire]]
    assert isinstance(list(net.stages.children())[1][0], nn.MaxPool2d)  # pyright: ignore
    features = net.observe(torch.randn(2, 3, 31, 31)).features
    assert [tuple(maps.shape) for maps in features] == [(2, 16, 16, 16), (2, 20, 8, 8)]


def test_a_shape_written_by_hand_weighs_what_it_says():
    shape = {"stem": 8, "stages": [[[2, 8]], [[3, 10]]], "strides": [2, 1, 2]}
    # stem 216+8; fire 16+2, 16+8, 144+8; fire 48+3, 30+10, 270+10; head 21*5
    assert squeezenet.parameters(shape, 5) == 224 + 18 + 24 + 152 + 51 + 40 + 280 + 105
