import itertools

import pytest
import torch
from torch import nn

from bantam.nets.blocks import SqueezeExcite
from bantam.nets.students import describe, mobilenet_v3


@pytest.mark.parametrize(
    ("budget", "classes", "size"), list(itertools.product([5_000, 60_000, 500_000], [2, 100], [64]))
)
def test_the_formula_matches_the_shipped_net(budget: int, classes: int, size: int):
    student = describe("mobilenet_v3", budget, classes, size)
    net = student.shipped_net()
    assert sum(parameter.numel() for parameter in net.parameters()) == mobilenet_v3.parameters(student.shape, classes)


def test_squeeze_excite_sits_in_the_5x5_stages_and_hardswish_in_the_deeper_half():
    student = describe("mobilenet_v3", 60_000, 11, 64)
    net = student.build()
    for place, stage in enumerate(net.stages):
        layers = list(stage.modules())
        kernels = {layer.kernel_size[0] for layer in layers if isinstance(layer, nn.Conv2d) and layer.groups > 1}
        assert kernels == {(3, 5, 3, 5)[place]}
        gates = sum(isinstance(layer, SqueezeExcite) for layer in layers)
        assert gates == (len(student.shape["stages"][place]["blocks"]) if place in (1, 3) else 0)
        has_relu = any(isinstance(layer, nn.ReLU) for layer in layers)
        has_hardswish = any(isinstance(layer, nn.Hardswish) for layer in layers)
        assert has_relu == (place < 2)
        assert has_hardswish == (place >= 2 or place == 0)  # the stem, in stage 0, has it as in the paper


def test_a_gate_spans_the_inner_width_and_squeezes_to_a_quarter_of_the_outer_one():
    shape = describe("mobilenet_v3", 60_000, 11, 64).shape
    stage = list(mobilenet_v3.build(shape, 11).stages.children())[3]
    gates = [layer for layer in stage.modules() if isinstance(layer, SqueezeExcite)]
    rows = shape["stages"][3]["blocks"]
    widths = [[gate.squeeze.in_channels, gate.squeeze.out_channels] for gate in gates]
    assert widths == [row[:2] for row in rows]
    assert all(squeezed == outputs // 4 for _, squeezed, outputs in rows)


def test_a_shape_written_by_hand_weighs_what_it_says():
    stages = [
        {"kernel": 3, "activation": "relu", "blocks": [[8, 0, 6]]},
        {"kernel": 5, "activation": "hardswish", "blocks": [[24, 3, 10]]},
    ]
    shape = {"stem": 8, "stages": stages, "last": 20, "strides": [2, 1, 2]}
    # stem 216+8; depthwise 72+8, project 48+6; expand 144+24, depthwise 600+24, gate 72+3+72+24,
    # project 240+10; last 200+20; head 21*5
    assert mobilenet_v3.parameters(shape, 5) == 224 + 80 + 54 + 168 + 624 + 171 + 250 + 220 + 105
    features = mobilenet_v3.build(shape, 5).observe(torch.randn(2, 3, 32, 32)).features
    assert [tuple(maps.shape) for maps in features] == [(2, 6, 16, 16), (2, 20, 8, 8)]
