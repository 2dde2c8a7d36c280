import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional

from bantam.nets.students import densenet, describe
from bantam.nets.students.densenet import DenseLayer, transition


@pytest.mark.parametrize(
    ("budget", "classes", "size"), list(itertools.product([5_000, 60_000, 500_000], [2, 100], [64]))
)
def test_the_formula_matches_the_shipped_net(budget: int, classes: int, size: int):
    student = describe("densenet", budget, classes, size)
    net = student.shipped_net()
    assert sum(parameter.numel() for parameter in net.parameters()) == densenet.parameters(student.shape, classes)


def test_a_layer_hands_all_its_input_on_and_adds_growth_channels():
    torch.manual_seed(0)
    layer = DenseLayer(10, 12, 3).eval()
    maps = torch.randn(2, 10, 5, 5)
    output = layer(maps)
    assert output.shape == (2, 13, 5, 5)
    assert torch.equal(output[:, :10], maps)
    torch.testing.assert_close(output[:, 10:], layer.layers(maps))
    weights = [tuple(module.weight.shape) for module in layer.modules() if isinstance(module, nn.Conv2d)]
    assert weights == [(12, 10, 1, 1), (3, 12, 3, 3)]


def test_every_layer_of_a_block_sees_all_before_it_through_a_bottleneck_of_4_growths():
    shape = describe("densenet", 60_000, 11, 64).shape
    net = densenet.build(shape, 11)
    entries = [shape["stem"], *shape["transitions"]]
    for stage, width, growth, repeats in zip(
        net.stages.children(), entries, shape["growths"], shape["layers"], strict=True
    ):
        layers = [layer for layer in stage.children() if isinstance(layer, DenseLayer)]
        first = [next(module for module in layer.modules() if isinstance(module, nn.Conv2d)) for layer in layers]
        assert [conv.in_channels for conv in first] == [width + growth * place for place in range(repeats)]
        assert [conv.out_channels for conv in first] == [4 * growth] * repeats


@pytest.mark.parametrize("budget", [60_000, 500_000])
def test_a_transition_keeps_about_half_of_the_channels(budget: int):
    shape = describe("densenet", budget, 11, 64).shape
    width = shape["stem"]
    for kept, growth, repeats in zip(shape["transitions"], shape["growths"], shape["layers"], strict=False):
        assert kept / (width + growth * repeats) == pytest.approx(0.5, rel=0.25)
        width = kept


@pytest.mark.parametrize(("stride", "side"), [(1, 7), (2, 4)])
def test_a_transition_is_pointwise_then_average_pooling(stride: int, side: int):
    torch.manual_seed(0)
    layer = transition(6, 3, stride).eval()
    maps = torch.randn(2, 6, 7, 7)
    output = layer(maps)
    assert output.shape == (2, 3, side, side)
    torch.testing.assert_close(output, functional.avg_pool2d(layer[0](maps), stride, ceil_mode=True))


def test_a_shape_written_by_hand_weighs_what_it_says():
    shape = {"stem": 6, "transitions": [5], "growths": [2, 3], "layers": [2, 1], "bottleneck": 4}
    shape["strides"] = [2, 1, 2]
    # stem 162+6; 6: 48+8, 144+2; 8: 64+8, 144+2; transition 50+5; 5: 60+12, 324+3; head 9*5
    assert densenet.parameters(shape, 5) == 168 + 56 + 146 + 72 + 146 + 55 + 72 + 327 + 45
    features = densenet.build(shape, 5).observe(torch.randn(2, 3, 32, 32)).features
    assert [tuple(maps.shape) for maps in features] == [(2, 10, 16, 16), (2, 8, 8, 8)]
