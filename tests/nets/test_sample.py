import pytest
import torch
from torch import nn

from bantam.errors import BadRecipe, BudgetExceeded
from bantam.nets.students import describe, sample


def course_network() -> nn.Module:
    """The exercise's network written out flat, from its description."""

    def layer(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3), nn.BatchNorm2d(outputs), nn.ReLU()]

    def pool() -> list[nn.Module]:
        return [nn.MaxPool2d(2, 2, 0)]

    return nn.Sequential(
        *layer(3, 4), *layer(4, 16), *pool(), *layer(16, 64), *pool(), *layer(64, 84), *pool(),
        nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(84, 11),
    )  # fmt: skip


def test_it_has_exactly_59723_parameters():
    net = describe("sample", 60_000, 11, 224).build()
    assert sum(parameter.numel() for parameter in net.parameters()) == 59_723
    assert sample.parameters(11) == 59_723


@pytest.mark.parametrize("classes", [2, 10, 11, 101])
def test_the_formula_matches_the_built_net(classes: int):
    net = describe("sample", 100_000, classes, 64).build()
    assert sum(parameter.numel() for parameter in net.parameters()) == sample.parameters(classes)


@pytest.mark.parametrize("size", [24, 64, 224])
def test_it_computes_what_the_course_network_computes(size: int):
    torch.manual_seed(0)
    ours, theirs = describe("sample", 60_000, 11, size).build(), course_network()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    images = torch.randn(2, 3, size, size)
    torch.testing.assert_close(ours.eval()(images), theirs.eval()(images))


def test_a_budget_below_its_fixed_size_is_refused_and_a_larger_one_changes_nothing():
    assert describe("sample", 59_723, 11, 64).shape == describe("sample", 500_000, 11, 64).shape
    with pytest.raises(BudgetExceeded, match="59,723"):
        describe("sample", 59_722, 11, 64)


def test_an_input_without_a_map_left_is_refused():
    with pytest.raises(BadRecipe, match="23 px is too small"):
        describe("sample", 60_000, 11, 23)
    net = describe("sample", 60_000, 11, 24).build().eval()
    assert net.observe(torch.zeros(1, 3, 24, 24)).features[-1].shape == (1, 84, 1, 1)
    with pytest.raises(RuntimeError):  # so 24 is the true limit
        net(torch.zeros(1, 3, 23, 23))
