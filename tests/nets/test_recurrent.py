import itertools

import pytest
import torch
from torch import nn

from bantam.nets.budget import Weight, weigh
from bantam.nets.students import describe, recurrent


@pytest.mark.parametrize(("budget", "classes", "size"), [(5_000, 2, 32), (60_000, 11, 64), (500_000, 100, 224)])
def test_the_formulas_match_both_counts_of_the_shipped_net(budget: int, classes: int, size: int):
    student = describe("recurrent", budget, classes, size)
    with torch.device("meta"):
        net = student.shipped_net()
    assert weigh(net, size) == recurrent.parameters(student.shape, classes)


def test_the_budget_holds_for_the_count_by_calls_and_each_once_is_less():
    weight = recurrent.parameters(describe("recurrent", 60_000, 11, 64).shape, 11)
    assert weight.unique < 0.75 * weight.torchsummary
    assert weight.counted == weight.torchsummary <= 60_000


def test_one_application_more_costs_a_whole_block_by_calls_but_only_norms_each_once():
    shape = {"stem": 8, "widths": [8, 12], "times": [1, 2], "last": 16, "strides": [1, 1, 2]}
    more = {**shape, "times": [1, 3]}
    less, costlier = recurrent.parameters(shape, 5), recurrent.parameters(more, 5)
    assert costlier.unique - less.unique == 4 * 12
    assert costlier.torchsummary - less.torchsummary == 9 * 12 + 12 * 12 + 4 * 12
    assert weigh(recurrent.build(more, 5), 16).torchsummary > weigh(recurrent.build(more, 5), 16).unique


def test_applications_share_convolutions_and_not_statistics():
    torch.manual_seed(0)
    block = recurrent.RecurrentBlock(6, 3)
    assert sum(isinstance(layer, nn.Conv2d) for layer in block.modules()) == 2
    block(torch.randn(4, 6, 8, 8))
    means = [norm.running_mean for norm in block.inner_norms if isinstance(norm, nn.BatchNorm2d)]
    assert len(means) == 3
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(means, 2))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("times", [1, 3])
def test_a_block_is_its_applications_one_after_another(times: int):
    torch.manual_seed(0)
    block = recurrent.RecurrentBlock(6, times).eval()
    for parameter in (*block.inner_norms.parameters(), *block.outer_norms.parameters()):
        nn.init.normal_(parameter)
    maps = expected = torch.randn(2, 6, 8, 8)
    for inner, outer in zip(block.inner_norms, block.outer_norms, strict=True):
        expected = expected + outer(block.pointwise(inner(block.depthwise(expected)).relu()))
    torch.testing.assert_close(block(maps), expected)


def test_weights_of_a_single_application_cost_the_same_by_both_counts():
    shape = {"stem": 4, "widths": [4], "times": [1], "last": 8, "strides": [1, 1]}
    # stem 3*4*9+4; entry 36+4+16+4; block 36+16 and norms 16; last 4*8+8; head 9*2
    assert recurrent.parameters(shape, 2) == Weight(112 + 60 + 68 + 40 + 18, 112 + 60 + 68 + 40 + 18)
