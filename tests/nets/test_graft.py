"""Grafting: what two nets of a family both have is taken over, and nothing else is touched."""

import copy

import pytest
import torch

from bantam.nets.graft import graft
from bantam.nets.students import STUDENTS, describe

SIZE = 32


@pytest.mark.parametrize("name", [name for name in STUDENTS if name != "sample"])
def test_a_net_of_the_same_shape_takes_over_all_but_the_head(name: str) -> None:
    student = describe(name, 12_000, 5, SIZE)
    source, net = student.build(), student.build()
    head = copy.deepcopy(net.head.state_dict())
    graft(net, source)
    theirs = source.state_dict()
    own = {key: value for key, value in net.state_dict().items() if not key.startswith("head.")}
    assert own
    assert all(torch.equal(value, theirs[key]) for key, value in own.items())
    assert all(torch.equal(value, head[key]) for key, value in net.head.state_dict().items())


def test_of_another_shape_the_first_channels_are_taken_over_and_the_others_stay() -> None:
    source, net = (
        describe("largekernel", budget, classes, SIZE).build() for budget, classes in ((9_000, 5), (12_000, 3))
    )
    before, theirs = copy.deepcopy(net.state_dict()), source.state_dict()
    graft(net, source)
    touched = 0
    for name, value in net.state_dict().items():
        expected = before[name].clone()
        if not name.startswith("head.") and name in theirs and theirs[name].ndim == value.ndim:
            shared = tuple(slice(min(pair)) for pair in zip(value.shape, theirs[name].shape, strict=True))
            expected[shared] = theirs[name][shared]
            touched += value.shape != theirs[name].shape
        assert torch.equal(value, expected)
    assert touched
