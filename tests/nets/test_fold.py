import copy
import itertools

import pytest
import torch
from torch import nn

from bantam.nets.blocks import ParallelConv, conv_bn
from bantam.nets.budget import weigh
from bantam.nets.fold import deploy
from bantam.nets.output import StagedNet
from bantam.nets.students import STUDENTS, Student, describe


def with_statistics(net: StagedNet) -> StagedNet:
    """Give every BatchNorm scales, shifts and statistics far from those of a fresh net."""
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            nn.init.normal_(layer.running_mean, std=0.3)
            nn.init.uniform_(layer.running_var, 0.5, 2.0)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.3)
    return net


def trained(name: str) -> tuple[Student, StagedNet]:
    torch.manual_seed(0)
    student = describe(name, 60_000, 11, 32)
    return student, with_statistics(student.build())


@pytest.mark.parametrize("name", STUDENTS)
def test_the_deployed_net_computes_the_same(name: str):
    """In float64, where no logit is so near another that rounding could swap them."""
    _, net = trained(name)
    net.double()
    images = torch.randn(8, 3, 32, 32).double()
    before = copy.deepcopy(net.state_dict())
    net.eval()
    with torch.no_grad():
        expected, deployed = net.observe(images), deploy(net).observe(images)

    torch.testing.assert_close(deployed.logits, expected.logits, rtol=1e-9, atol=1e-9)
    assert torch.equal(deployed.logits.argmax(1), expected.logits.argmax(1))
    for ours, theirs in zip(deployed.features, expected.features, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@pytest.mark.parametrize("name", STUDENTS)
def test_shipped_weights_load_strictly_into_a_net_built_from_the_description(name: str):
    student, net = trained(name)
    shipped = student.shipped_form(net)
    twin = Student.from_json(student.to_json()).shipped_net()
    twin.load_state_dict(shipped.state_dict(), strict=True)

    images = torch.randn(4, 3, 32, 32)
    assert not shipped.training
    assert not twin.training
    with torch.no_grad():
        assert torch.equal(twin(images), shipped(images))
        torch.testing.assert_close(shipped(images), net.eval()(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in STUDENTS if STUDENTS[name].folds])
def test_no_parallel_branch_and_no_norm_behind_a_convolution_is_shipped(name: str):
    student, net = trained(name)
    deployed = student.shipped_form(net)
    assert not any(isinstance(layer, ParallelConv) for layer in deployed.modules())
    for layer in deployed.modules():
        if isinstance(layer, nn.Sequential):
            kinds = [type(child) for child in layer]
            assert (nn.Conv2d, nn.BatchNorm2d) not in itertools.pairwise(kinds)
    assert all(parameter.requires_grad for parameter in deployed.parameters())


@pytest.mark.parametrize("name", [name for name in STUDENTS if STUDENTS[name].folds and name != "recurrent"])
def test_nothing_is_left_of_the_norms_where_no_convolution_is_shared(name: str):
    _, net = trained(name)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in deploy(net).modules())


def test_sample_is_shipped_as_the_course_counts_it():
    student, net = trained("sample")
    assert weigh(student.shipped_form(net), 32).counted == 59_723
    assert student.shipped_net().state_dict().keys() == net.state_dict().keys()


@pytest.mark.parametrize("groups", [1, 2, 12])
@pytest.mark.parametrize(("kernels", "stride", "identity"), [
    ((3,), 1, False), ((7, 3), 1, False), ((7, 3), 2, False), ((3, 1), 1, True), ((1, 1), 1, True), ((1, 5), 2, False),
])  # fmt: skip
def test_parallel_branches_become_one_convolution(kernels: tuple[int, ...], stride: int, identity: bool, groups: int):
    torch.manual_seed(1)
    block = ParallelConv(12, 12, kernels, stride, groups, identity)
    net = with_statistics(StagedNet([nn.Sequential(block)], 12, 2)).eval()
    images = torch.randn(2, 12, 11, 11)
    (merged,) = deploy(net).stages[0].children()  # pyright: ignore[reportGeneralTypeIssues]

    assert isinstance(merged, nn.Conv2d)
    assert merged.kernel_size == (max(kernels),) * 2
    assert merged.weight.shape == (12, 12 // groups, max(kernels), max(kernels))
    torch.testing.assert_close(merged(images), block(images), rtol=1e-4, atol=1e-4)


def test_folding_by_hand():
    net = StagedNet([conv_bn(1, 1, kernel=1)], 1, 1)
    conv, norm = net.stages[0][0], net.stages[0][1]  # pyright: ignore[reportIndexIssue]
    conv.weight.data.fill_(3.0)
    norm.weight.data.fill_(2.0)
    norm.bias.data.fill_(0.5)
    norm.running_mean.fill_(1.0)
    norm.running_var.fill_(4.0)
    norm.eps = 0.0
    # 2 * (3 x - 1) / sqrt(4) + 0.5 = 3 x - 0.5
    folded = deploy(net).stages[0][0]  # pyright: ignore[reportIndexIssue]
    assert (folded.weight.item(), folded.bias.item()) == (3.0, -0.5)


def test_a_convolution_with_a_bias_keeps_it():
    layers = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU())
    net = with_statistics(StagedNet([layers], 5, 2)).eval()
    images = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(deploy(net)(images), net(images), rtol=1e-4, atol=1e-4)


def test_a_norm_that_no_convolution_precedes_stays():
    layers = nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 5, 3), nn.ReLU(), nn.BatchNorm2d(5))
    net = with_statistics(StagedNet([layers], 5, 2)).eval()
    deployed, images = deploy(net), torch.randn(2, 3, 8, 8)
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in deployed.modules()) == 2
    assert torch.equal(deployed(images), net(images))


def test_deploying_draws_no_random_number_and_leaves_the_mode():
    net = describe("reparam", 20_000, 11, 32).build()
    before = torch.get_rng_state()
    deploy(net)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(layer.training for layer in net.modules())
