import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional

from bantam.nets.students import describe, shufflenet_v1
from bantam.nets.students.shufflenet_v1 import Bottleneck, ShuffleUnit, WideningUnit


@pytest.mark.parametrize(
    ("budget", "classes", "size"), list(itertools.product([5_000, 60_000, 500_000], [2, 100], [64]))
)
def test_the_formula_matches_the_shipped_net(budget: int, classes: int, size: int):
    student = describe("shufflenet_v1", budget, classes, size)
    net = student.shipped_net()
    assert sum(parameter.numel() for parameter in net.parameters()) == shufflenet_v1.parameters(student.shape, classes)


@pytest.mark.parametrize("budget", [5_000, 60_000, 500_000])
def test_pointwise_layers_have_3_groups_but_the_first_and_the_last(budget: int):
    net = describe("shufflenet_v1", budget, 11, 64).build()
    pointwise = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)]
    assert [layer.groups for layer in pointwise] == [1, *[3] * (len(pointwise) - 2), 1]


def test_bottlenecks_are_about_a_quarter_of_the_width():
    for stage in describe("shufflenet_v1", 500_000, 11, 64).shape["stages"]:
        for bottleneck, outputs in stage:
            assert bottleneck / outputs == pytest.approx(0.25, rel=0.1)


def test_without_the_shuffle_groups_are_closed_and_with_it_every_output_sees_every_input():
    torch.manual_seed(0)
    branch = Bottleneck(12, 9, 12, groups=3, first_groups=3).eval()
    maps = torch.randn(1, 12, 4, 4, requires_grad=True)

    def groups_seen(output: torch.Tensor) -> list[bool]:
        """Whether the first output channel depends on each of the three groups of inputs."""
        (gradient,) = torch.autograd.grad(output[:, 0].sum(), maps)
        return [bool(group.abs().sum() > 0) for group in gradient.chunk(3, 1)]

    assert groups_seen(branch.expand(branch.depthwise(branch.reduce(maps)))) == [True, False, False]
    branch.reduce = branch.reduce[:2]  # without ReLU, so that no channel is cut off by chance
    assert groups_seen(branch(maps)) == [True, True, True]


def test_a_unit_adds_its_input_before_the_last_activation():
    torch.manual_seed(0)
    unit = ShuffleUnit(12, 6, groups=3).eval()
    maps = torch.randn(2, 12, 5, 5)
    torch.testing.assert_close(unit(maps), functional.relu(maps + unit.branch(maps)))


@pytest.mark.parametrize(("stride", "side"), [(1, 7), (2, 4)])
def test_a_widening_unit_keeps_its_pooled_input_beside_the_new_channels(stride: int, side: int):
    torch.manual_seed(0)
    unit = WideningUnit(6, 6, 24, groups=3, first_groups=3, stride=stride).eval()
    maps = torch.rand(2, 6, 7, 7)
    output = unit(maps)
    assert output.shape == (2, 24, side, side)
    kept = functional.avg_pool2d(maps, 3, 2, 1) if stride == 2 else maps
    torch.testing.assert_close(output[:, :6], kept)
    torch.testing.assert_close(output[:, 6:], functional.relu(unit.branch(maps)))


def test_a_shape_written_by_hand_weighs_what_it_says():
    stages = [[[3, 12], [3, 12]], [[6, 24]]]
    shape = {"stem": 6, "stages": stages, "groups": 3, "last": 10, "strides": [2, 1, 2]}
    # stem 162+6; 6 to 6 new: 18+3, 27+3, 6+6; 12 to 12: 12+3, 27+3, 12+12; 12 to 12 new: 24+6, 54+6, 24+12;
    # last 240+10; head 11*5
    weighed = 168 + (21 + 30 + 12) + (15 + 30 + 24) + (30 + 60 + 36) + 250 + 55
    assert shufflenet_v1.parameters(shape, 5) == weighed
    features = shufflenet_v1.build(shape, 5).observe(torch.randn(2, 3, 32, 32)).features
    assert [tuple(maps.shape) for maps in features] == [(2, 12, 16, 16), (2, 10, 8, 8)]
