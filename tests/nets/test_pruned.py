"""Narrowed layers: what stays, what is refused, and the round trip through a description."""

import copy
import json

import pytest
import torch
from torch import nn

from bantam.errors import BadCheckpoint
from bantam.nets.pruned import keep, shrink, take, widths_of
from bantam.nets.students import Student, describe

SOME = torch.tensor([0, 2])


def test_a_convolution_keeps_the_rows_and_columns_it_is_told():
    conv = nn.Conv2d(4, 3, 3)
    weight, bias = conv.weight.clone(), conv.bias
    assert bias is not None
    expected = bias.clone()[SOME]
    keep(conv, SOME, torch.tensor([1, 3]))
    assert torch.equal(conv.weight, weight[[0, 2]][:, [1, 3]])
    assert conv.bias is not None
    assert torch.equal(conv.bias, expected)
    assert conv(torch.randn(1, 2, 5, 5)).shape == (1, 2, 3, 3)


def test_a_depthwise_convolution_and_a_batchnorm_have_one_side():
    conv, norm = nn.Conv2d(3, 3, 3, groups=3), nn.BatchNorm2d(3)
    norm.running_mean = torch.tensor([1.0, 2.0, 3.0])
    keep(conv, SOME, SOME)
    keep(norm, SOME, SOME)
    assert (conv.groups, conv.weight.shape[0], norm.num_features) == (2, 2, 2)
    assert norm.running_mean is not None
    assert norm.running_mean.tolist() == [1.0, 3.0]
    assert set(norm.state_dict()) == set(nn.BatchNorm2d(2).state_dict())
    with pytest.raises(ValueError, match="same inputs"):
        keep(nn.BatchNorm2d(3), SOME, torch.tensor([0, 1]))


def test_a_grouped_convolution_loses_nothing():
    with pytest.raises(ValueError, match="grouped"):
        keep(nn.Conv2d(4, 4, 1, groups=2), SOME, SOME)


def test_a_narrowed_student_is_rebuilt_from_plain_data():
    student = describe("mobilenet_v1", 5_000, 3, 32)
    net = student.build().eval()
    stays = torch.arange(7)
    last = f"stages.{len(net.stages) - 1}.1.1"
    kept = {f"{last}.0": (stays, torch.arange(41)), f"{last}.1": (stays, stays), "head": (torch.arange(3), stays)}
    widths = widths_of(net, kept)
    assert widths == {f"{last}.0": [7, 41], f"{last}.1": [7, 7], "head": [3, 7]}
    smaller = copy.deepcopy(net)
    take(smaller, kept)

    described = Student(student.family, student.shape, 3, 32, widths)
    again = Student.from_json(json.loads(json.dumps(described.to_json())))
    assert again == described
    twin = again.build().eval()
    twin.load_state_dict(smaller.state_dict())
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(twin(images), smaller(images))
    torch.testing.assert_close(again.shipped_form(twin)(images), twin(images))


@pytest.mark.parametrize(
    "pruned",
    [
        [["head", [3, 2]]],
        {"head": [3]},
        {"head": [3, 0]},
        {"head": [3, 9_999]},
        {"head": [3, 2.0]},
        {"nose": [1, 1]},
        {"stages": [1, 1]},
    ],
    ids=str,
)
def test_a_wrong_description_is_refused_in_one_line(pruned: object):
    good = describe("mobilenet_v1", 5_000, 3, 32).to_json()
    with pytest.raises(BadCheckpoint) as caught:
        Student.from_json({**good, "pruned": pruned})
    assert "\n" not in str(caught.value)


def test_shrinking_to_nothing_named_changes_nothing():
    net = describe("mobilenet_v1", 5_000, 3, 32).build()
    before = {name: value.shape for name, value in net.state_dict().items()}
    shrink(net, {})
    assert {name: value.shape for name, value in net.state_dict().items()} == before
