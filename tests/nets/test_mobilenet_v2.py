import itertools

import pytest
import torch
from torch import nn

from bantam.nets.blocks import Residual
from bantam.nets.students import describe, mobilenet_v2


@pytest.mark.parametrize(
    ("budget", "classes", "size"), list(itertools.product([5_000, 60_000, 500_000], [2, 100], [64]))
)
def test_the_formula_matches_the_shipped_net(budget: int, classes: int, size: int):
    student = describe("mobilenet_v2", budget, classes, size)
    net = student.shipped_net()
    assert sum(parameter.numel() for parameter in net.parameters()) == mobilenet_v2.parameters(student.shape, classes)


def test_every_block_but_the_first_expands_and_none_activates_its_projection():
    shape = describe("mobilenet_v2", 60_000, 11, 64).shape
    blocks = [block for stage in shape["stages"] for block in stage]
    inputs = [shape["stem"], *(outputs for _, outputs in blocks)]
    assert [expanded for expanded, _ in blocks] == [inputs[0], *(4 * width for width in inputs[1:-1])]

    net = mobilenet_v2.build(shape, 11)
    projections = [
        block
        for block in net.modules()
        if isinstance(block, nn.Sequential) and len(block) == 2 and isinstance(block[1], nn.BatchNorm2d)
    ]
    assert len(projections) == len(blocks)
    assert sum(isinstance(layer, nn.ReLU6) for layer in net.modules()) == 2 * len(blocks) - 1 + 2


def test_only_blocks_that_keep_width_and_size_add_their_input():
    shape = {"stem": 8, "stages": [[[8, 6]], [[24, 6], [24, 6]], [[24, 10], [40, 10]]], "last": 20}
    net = mobilenet_v2.build({**shape, "strides": [2, 1, 2, 1]}, 5)
    added = [[isinstance(layer, Residual) for layer in stage.children()] for stage in net.stages]
    # The stem comes first and the last pointwise layer at the end; 6 to 6 with stride 2 and 6 to 10 add nothing.
    assert added == [[False, False], [False, True], [False, True, False]]
    features = net.observe(torch.randn(2, 3, 32, 32)).features
    assert [tuple(maps.shape) for maps in features] == [(2, 6, 16, 16), (2, 6, 8, 8), (2, 20, 8, 8)]


def test_a_shape_written_by_hand_weighs_what_it_says():
    shape = {"stem": 8, "stages": [[[8, 6]], [[24, 10]]], "last": 20, "strides": [2, 1, 2]}
    # stem 216+8; depthwise 72+8, project 48+6; expand 144+24, depthwise 216+24, project 240+10;
    # last 200+20; head 21*5
    assert mobilenet_v2.parameters(shape, 5) == 224 + 80 + 54 + 168 + 240 + 250 + 220 + 105
