import itertools

import pytest
import torch
from torch import nn

from bantam.nets.students import describe, shufflenet_v2
from bantam.nets.students.shufflenet_v2 import SplitUnit, WideningUnit


@pytest.mark.parametrize(
    ("budget", "classes", "size"), list(itertools.product([5_000, 60_000, 500_000], [2, 100], [64]))
)
def test_the_formula_matches_the_shipped_net(budget: int, classes: int, size: int):
    student = describe("shufflenet_v2", budget, classes, size)
    net = student.shipped_net()
    assert sum(parameter.numel() for parameter in net.parameters()) == shufflenet_v2.parameters(student.shape, classes)


def test_a_unit_hands_one_half_on_untouched_and_alternates_it_with_the_other():
    torch.manual_seed(0)
    unit = SplitUnit(5).eval()
    maps = torch.randn(2, 10, 6, 6)
    output = unit(maps)
    assert torch.equal(output[:, 0::2], maps[:, :5])
    torch.testing.assert_close(output[:, 1::2], unit.branch(maps[:, 5:]))


@pytest.mark.parametrize(("stride", "side"), [(1, 7), (2, 4)])
def test_a_widening_unit_computes_both_halves_from_all_channels(stride: int, side: int):
    torch.manual_seed(0)
    unit = WideningUnit(6, 8, stride).eval()
    maps = torch.randn(2, 6, 7, 7)
    output = unit(maps)
    assert output.shape == (2, 16, side, side)
    torch.testing.assert_close(output[:, 0::2], unit.shortcut(maps))
    torch.testing.assert_close(output[:, 1::2], unit.branch(maps))


def test_no_convolution_is_grouped_unless_depthwise_and_no_depthwise_is_activated():
    net = describe("shufflenet_v2", 60_000, 11, 64).build()
    for block in net.modules():
        if isinstance(block, nn.Sequential) and isinstance(block[0], nn.Conv2d):
            depthwise = block[0].groups == block[0].in_channels == block[0].out_channels
            assert depthwise or block[0].groups == 1
            assert any(isinstance(layer, nn.ReLU) for layer in block) != depthwise


def test_a_shape_written_by_hand_weighs_what_it_says():
    shape = {"stem": 6, "halves": [4, 8], "units": [2, 1], "last": 10, "strides": [2, 1, 2]}
    # stem 162+6; widening 6 to 8: 54+6, 24+4, 24+4, 36+4, 16+4; split 4: 16+4, 36+4, 16+4;
    # widening 8 to 16: 72+8, 64+8, 64+8, 72+8, 64+8; last 160+10; head 11*5
    weighed = 168 + (60 + 28 + 28 + 40 + 20) + (20 + 40 + 20) + (80 + 72 + 72 + 80 + 72) + 170 + 55
    assert shufflenet_v2.parameters(shape, 5) == weighed
    features = shufflenet_v2.build(shape, 5).observe(torch.randn(2, 3, 32, 32)).features
    assert [tuple(maps.shape) for maps in features] == [(2, 8, 16, 16), (2, 10, 8, 8)]
