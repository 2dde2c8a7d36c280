"""Unfolding: a shipped net comes back in the form that trains, and gives the same answers."""

import copy

import pytest
import torch
from torch import nn

from bantam.nets.output import StagedNet
from bantam.nets.students import STUDENTS, describe
from bantam.nets.unfold import unfold

SIZE, CLASSES = 32, 5


def settled(net: StagedNet, images: torch.Tensor) -> StagedNet:
    """`net` with statistics, scales and shifts as of a training, in eval mode."""
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.3)
    net.train()
    for _ in range(20):
        net(images)
    return net.eval()


@pytest.mark.parametrize("name", STUDENTS)
def test_an_unfolded_net_answers_as_the_shipped_one_and_folds_back_to_it(name: str) -> None:
    torch.manual_seed(0)
    size, budget = (64, 60_000) if name == "sample" else (SIZE, 12_000)  # the sample code's net has one size
    images = torch.randn(24, 3, size, size)
    student = describe(name, budget, CLASSES, size)
    trained = settled(student.build(), images)
    shipped = student.shipped_form(trained)
    before = copy.deepcopy(shipped.state_dict())

    net = unfold(student, shipped, images)
    others = torch.randn(16, 3, size, size)
    with torch.no_grad():
        wanted = shipped(others)
        assert not net.training
        assert (net(others) - wanted).abs().max() < 1e-4 * max(1.0, float(wanted.abs().max()))
        again = student.shipped_form(net)(others)
    assert (again - wanted).abs().max() < 1e-4 * max(1.0, float(wanted.abs().max()))
    assert net.state_dict().keys() == trained.state_dict().keys()
    assert all(torch.equal(value, before[key]) for key, value in shipped.state_dict().items())


@pytest.mark.parametrize("name", ["mobilenet_v1", "largekernel", "reparam"])
def test_its_batchnorms_hold_the_statistics_of_the_images(name: str) -> None:
    torch.manual_seed(1)
    images = torch.randn(32, 3, SIZE, SIZE)
    student = describe(name, 12_000, CLASSES, SIZE)
    net = unfold(student, student.shipped_form(settled(student.build(), images)), images)
    with torch.no_grad():
        plain = net(images)
        net.train()  # now each BatchNorm takes the batch's own mean and variance: the same, but for n / (n - 1)
        assert (net(images) - plain).abs().max() < 2e-3 * float(plain.abs().max())


def test_training_only_branches_can_learn() -> None:
    torch.manual_seed(2)
    images = torch.randn(16, 3, SIZE, SIZE)
    student = describe("largekernel", 12_000, CLASSES, SIZE)
    net = unfold(student, student.shipped_form(settled(student.build(), images)), images).train()
    net(images).square().sum().backward()
    # The kernel behind a scale of 0 has no gradient in the first step; its BatchNorm's scale has one, and goes first.
    still = {name for name, value in net.named_parameters() if value.grad is None or not value.grad.any()}
    assert still == {name for name, _ in net.named_parameters() if name.endswith(".mix.branches.1.0.weight")}
