"""The quick way to an ONNX graph gives what the long way gives, and says where it does not."""

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from bantam.deliver.export.session import onnx_session
from bantam.nets import portable, traced
from bantam.nets.output import StagedNet
from bantam.nets.portable import INPUT, OPSET, OUTPUT, Portable
from bantam.nets.students import describe

QUICK = (
    "densenet", "depthwise_resnet", "largekernel", "mobilenet_v1", "mobilenet_v2", "mobilenet_v3", "reparam",
    "squeezenet",
)  # fmt: skip
"""Families whose graphs have no size of a batch in them, and every weight by its name."""


def shipped(family: str, size: int = 32) -> Portable:
    """A student as it ships, with statistics and biases as if it had been trained."""
    torch.manual_seed(0)
    student = describe(family, 60_000, 3, size)
    net = student.build()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    return Portable(student.shipped_form(net.eval()), (0.4, 0.4, 0.4), (0.2, 0.2, 0.2)).eval()


def trace(net: Portable, size: int = 32) -> onnx.ModelProto | None:
    weights = [name for name in portable.floats(net) if name.startswith("net.")]
    with portable.quiet():
        return traced.traced_model(net, torch.zeros(2, 3, size, size), (INPUT, OUTPUT), weights, OPSET)


@pytest.mark.parametrize("family", QUICK)
def test_a_trace_answers_as_the_net_for_any_number_of_images(family: str) -> None:
    net = shipped(family)
    model = trace(net)
    assert model is not None
    onnx.checker.check_model(model, full_check=True)
    assert {name for name in portable.floats(net) if name.startswith("net.")} <= {
        i.name for i in model.graph.initializer
    }
    session = onnx_session(model.SerializeToString())
    for count in (1, 5):
        images = torch.rand(count, 3, 32, 32)
        with torch.no_grad():
            expected = net(images)
        np.testing.assert_allclose(session.run([OUTPUT], {INPUT: images.numpy()})[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["ghostnet", "recurrent", "sample", "shufflenet_v1", "shufflenet_v2"])
def test_a_net_of_which_a_trace_would_be_another_graph_goes_the_long_way(family: str) -> None:
    assert trace(shipped(family)) is None


def test_what_cannot_be_traced_goes_the_long_way_without_a_word(capfd: pytest.CaptureFixture[str]) -> None:
    class Odd(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.linalg.inv(images.mean(1))

    assert trace(Portable(Odd(), (0.4, 0.4, 0.4), (0.2, 0.2, 0.2))) is None
    assert capfd.readouterr() == ("", "")


def test_equal_weights_keep_their_own_names() -> None:
    """Fresh biases are all zero, and a trace writes one down for all; integers are put into each by its name."""
    net = StagedNet([nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)], 4, 3)
    for one in (net.stages[0], net.stages[1]):
        nn.init.zeros_(one.bias)
    model = trace(Portable(net, (0.4, 0.4, 0.4), (0.2, 0.2, 0.2)).eval())
    assert model is not None
    assert {"net.stages.0.bias", "net.stages.1.bias"} <= {item.name for item in model.graph.initializer}
    assert {node.op_type for node in model.graph.node} == {"Mul", "Add", "Conv", "ReduceMean", "Gemm"}


@pytest.mark.slow
@pytest.mark.parametrize("family", QUICK)
def test_both_ways_come_to_the_same_graph(family: str) -> None:
    net = shipped(family)
    quick = trace(net)
    assert quick is not None
    with portable.quiet():
        long = portable.exported_model(net, torch.zeros(2, 3, 32, 32))
    assert [node.op_type for node in quick.graph.node] == [node.op_type for node in long.graph.node]
    images = {INPUT: torch.rand(3, 3, 32, 32).numpy()}
    answers = [onnx_session(model.SerializeToString()).run([OUTPUT], images)[0] for model in (quick, long)]
    np.testing.assert_array_equal(*answers)
