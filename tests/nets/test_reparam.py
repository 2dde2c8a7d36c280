import pytest
import torch
from torch import nn

from bantam.nets.blocks import ParallelConv
from bantam.nets.fold import deploy
from bantam.nets.students import describe, mobilenet_v1, reparam


@pytest.mark.parametrize(("budget", "size"), [(5_000, 32), (60_000, 64), (500_000, 224)])
def test_deployed_it_is_a_mobilenet(budget: int, size: int):
    student = describe("reparam", budget, 11, size)
    assert student.shape == describe("mobilenet_v1", budget, 11, size).shape
    with torch.device("meta"):
        ours, theirs = student.shipped_net(), deploy(mobilenet_v1.build(student.shape, 11))

    def layers(net: nn.Module) -> list[str]:
        return [repr(layer) for layer in net.modules() if isinstance(layer, nn.Conv2d | nn.ReLU | nn.Linear)]

    assert layers(ours) == layers(theirs)
    assert sum(p.numel() for p in ours.parameters()) == reparam.parameters(student.shape, 11)


def test_it_trains_with_more_than_it_ships():
    student = describe("reparam", 60_000, 11, 64)
    trained, shipped = (sum(p.numel() for p in net.parameters()) for net in (student.build(), student.shipped_net()))
    assert trained > 1.5 * shipped


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("outputs", [6, 9])
def test_identity_branches_stand_where_the_shape_stays(outputs: int, stride: int):
    block = reparam.branched_separable(6, outputs, stride)
    assert block(torch.randn(2, 6, 8, 8)).shape == (2, outputs, 8 // stride, 8 // stride)

    depthwise, pointwise = [layer for layer in block if isinstance(layer, ParallelConv)]
    kernels = [
        [conv.kernel_size for conv in branches.modules() if isinstance(conv, nn.Conv2d)]
        for branches in (depthwise, pointwise)
    ]
    assert kernels == [[(3, 3), (1, 1)], [(1, 1), (1, 1)]]
    assert isinstance(depthwise.branches[-1], nn.BatchNorm2d) == (stride == 1)
    assert isinstance(pointwise.branches[-1], nn.BatchNorm2d) == (outputs == 6)
