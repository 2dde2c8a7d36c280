from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from bantam.errors import BadData
from bantam.nets.blocks import channel_shuffle
from bantam.nets.device.operations import adaptive_windows, traced, windows
from bantam.nets.output import StagedNet
from device_students import described, folded


class Doing(nn.Module):
    """Computes `what` of two convolutions of its input."""

    def __init__(self, what: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.what = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), what

    def forward(self, maps: Tensor) -> Tensor:
        return self.what(self.first(maps), self.second(maps))


def net_of(what: Callable[[Tensor, Tensor], Tensor], width: int) -> StagedNet:
    return StagedNet([Doing(what)], width, 2).eval()


def test_slices_concatenations_and_shuffles_are_where_channels_come_from():
    def what(one: Tensor, other: Tensor) -> Tensor:
        kept, changed = torch.cat((one, other), 1).chunk(2, 1)
        return channel_shuffle(torch.cat((changed, kept[:, 1:3]), 1), 2)

    found = traced(net_of(what, 6), 8)
    first, second, mean, head = found.operations[1:]
    assert [one.kind for one in found.operations] == ["image", "convolution", "convolution", "average", "convolution"]
    a, b = first.number, second.number
    # changed is the second convolution's 4 channels; a shuffle of 6 in 2 groups deals 0 1 2 | 3 4 5 out as 0 3 1 4 2 5.
    assert mean.inputs == (((b, 0), (b, 3), (b, 1), (a, 1), (b, 2), (a, 2)),)
    assert found.answers == [((head.number, 0), (head.number, 1))]


def test_what_works_on_parts_of_two_results_is_an_operation_for_each():
    found = traced(net_of(lambda one, other: functional.relu(torch.cat((one, other), 1)), 8), 8)
    assert [(one.kind, one.channels) for one in found.operations[3:5]] == [("relu", 4), ("relu", 4)]


def test_early_exits_come_where_their_stage_is_there():
    student = described("mobilenet_v1", exits=(2,))
    found = traced(folded(student), 16)
    exit_logits, logits = (answer[0][0] for answer in found.answers)
    assert len(found.answers) == 2
    later = [one.name for one in found.operations[exit_logits + 1 :] if one.kind == "convolution"]
    assert exit_logits < logits
    assert later[0].startswith("stages.2")
    assert not any(name.startswith("exits") for name in later)


@pytest.mark.parametrize(
    "what",
    [
        lambda one, other: torch.sigmoid(one),
        lambda one, other: functional.gelu(one),
        lambda one, other: functional.softmax(one, 1),
        lambda one, other: one / other,
        lambda one, other: one + 1,
        lambda one, other: one * torch.ones(1, 4, 8, 8),
        lambda one, other: torch.add(one, other, alpha=2),
        lambda one, other: one.flip(3),
        lambda one, other: one.transpose(2, 3),
        lambda one, other: one.mean(1, keepdim=True).expand(1, 4, 8, 8),
        lambda one, other: functional.interpolate(one, scale_factor=2.0),
        lambda one, other: functional.conv2d(one, torch.ones(4, 4, 3, 3), dilation=2),
        lambda one, other: functional.conv_transpose2d(one, torch.ones(4, 4, 3, 3)),
        lambda one, other: functional.conv2d(one, torch.ones(2, 2, 3, 3), groups=2),
        lambda one, other: functional.max_pool2d(one, 2, dilation=2),
        lambda one, other: functional.avg_pool2d(one, 2, divisor_override=3),
        lambda one, other: functional.hardtanh(one),
    ],
)
def test_what_has_no_kernel_is_refused_in_one_line(what: Callable[[Tensor, Tensor], Tensor]):
    with pytest.raises(BadData, match="no kernel in C; export it to onnx-int8") as raised:
        traced(net_of(what, what(torch.zeros(1, 4, 8, 8), torch.ones(1, 4, 8, 8)).shape[1]), 8)
    assert "\n" not in str(raised.value)


def test_what_was_changed_in_place_through_a_view_is_refused():
    def what(one: Tensor, other: Tensor) -> Tensor:
        one[:, :2].relu_()
        return one

    with pytest.raises(BadData, match="changed in place"):
        traced(net_of(what, 4), 8)


@pytest.mark.parametrize(("side", "kernel", "stride", "padding"), [(7, 3, 2, 1), (8, 3, 2, 1), (5, 2, 2, 0)])
@pytest.mark.parametrize("padded_too", [True, False])
@pytest.mark.parametrize("ceil", [True, False])
def test_windows_average_as_torch_does(side: int, kernel: int, stride: int, padding: int, padded_too: bool, ceil: bool):
    line = torch.arange(1.0, side + 1, dtype=torch.float64)
    wanted = functional.avg_pool1d(line[None, None], kernel, stride, padding, ceil, padded_too)[0, 0]
    found = windows(side, len(wanted), kernel, stride, padding, padded_too)
    assert torch.allclose(torch.stack([line[a:b].sum() / count for a, b, count in found]), wanted)


@pytest.mark.parametrize(("side", "bins"), [(8, 4), (7, 4), (3, 4), (5, 1)])
def test_adaptive_windows_average_as_torch_does(side: int, bins: int):
    line = torch.arange(1.0, side + 1, dtype=torch.float64)
    wanted = functional.adaptive_avg_pool1d(line[None, None], bins)[0, 0]
    found = [line[a:b].sum() / count for a, b, count in adaptive_windows(side, bins)]
    assert torch.allclose(torch.stack(found), wanted)
