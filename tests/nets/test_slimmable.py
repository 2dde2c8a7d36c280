"""Switches of one net: against ordinary nets made by hand, in their weight, and in what they refuse."""

import json
import random

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bantam.errors import BadCheckpoint, BadRecipe, BudgetExceeded
from bantam.nets.budget import weigh
from bantam.nets.footprint import footprint
from bantam.nets.output import StagedNet
from bantam.nets.slimmable import OwnNorms, SharedConv, Switch, SwitchableNet, each_switch, extract, part_of
from bantam.nets.students import STUDENTS, Student, describe

WIDTHS = ((1.0, 32), (0.75, 32), (0.5, 32))
BOTH = ((1.0, 32), (1.0, 20), (0.6, 32), (0.6, 20))
SLIMS = [name for name, family in STUDENTS.items() if family.slims]


def trained(student: Student) -> SwitchableNet:
    """A net whose BatchNorms have seen something else at every switch."""
    torch.manual_seed(0)
    net = student.build().train()
    assert isinstance(net, SwitchableNet)
    with torch.no_grad():
        for norm in (module for module in net.modules() if isinstance(module, nn.BatchNorm2d)):
            norm.weight.normal_()
            norm.bias.normal_()
    for _ in range(3):
        for _ in each_switch(net):
            net(torch.randn(8, 3, student.size, student.size))
    return net.eval()


def by_hand(net: SwitchableNet, number: int, into: StagedNet) -> StagedNet:
    """The ordinary net of switch `number`, in the form that is trained: the first channels, and that switch's norms."""
    for path, layer in into.named_modules():
        theirs = net.get_submodule(path) if path else net
        if isinstance(layer, nn.Conv2d) and isinstance(theirs, SharedConv):
            layer.weight.data = theirs.weight[tuple(slice(side) for side in layer.weight.shape)].clone()
        elif isinstance(layer, nn.BatchNorm2d) and isinstance(theirs, OwnNorms):
            layer.load_state_dict(theirs.norms[number].state_dict())
    into.head.weight.data = net.head.weight[:, : into.head.in_features].clone()
    into.head.bias.data = net.head.bias.clone()
    return into.eval()


def resized(images: Tensor, size: int) -> Tensor:
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=True)


@pytest.mark.parametrize("switches", [WIDTHS, BOTH], ids=["widths", "widths and sizes"])
@pytest.mark.parametrize("family", SLIMS)
def test_every_switch_is_the_ordinary_net_that_it_names(family: str, switches: tuple[tuple[float, int], ...]) -> None:
    """Trained form, shipped form and extracted net give what a net cut out by hand does; the last two the same bits."""
    student = describe(family, 20_000, 5, 32, {}, switches)
    net = trained(student)
    shipped = student.shipped_form(net)
    assert isinstance(shipped, SwitchableNet)
    images = torch.randn(6, 3, 32, 32)
    costs: list[int] = []
    answers: list[Tensor] = []
    with torch.no_grad():
        for number, switch in enumerate(student.switches):
            ordinary = student.at(switch)
            assert ordinary.switches == ()
            looked = resized(images, switch.size)
            expected = by_hand(net, number, ordinary.build())(looked)
            extracted = extract(shipped, number, ordinary.shipped_net())
            with net.using(number), shipped.using(number):
                torch.testing.assert_close(net(images), expected)
                torch.testing.assert_close(shipped(images), expected, rtol=1e-4, atol=1e-4)
                assert torch.equal(extracted(looked), shipped(images))
                costs.append(footprint(shipped, 32).macs)
            assert footprint(extracted, switch.size).macs == costs[-1]
            assert Student.from_json(json.loads(json.dumps(ordinary.to_json()))) == ordinary
            answers.append(expected)
        assert torch.equal(shipped(images), extract(shipped, 0, student.at(student.switches[0]).shipped_net())(images))
    assert (costs[0], costs[-1]) == (max(costs), min(costs))
    assert all(not torch.allclose(answers[0], other) for other in answers[1:])


@pytest.mark.parametrize("budget", [5_000, 20_000, 60_000, 500_000])
@pytest.mark.parametrize("switches", [WIDTHS, BOTH], ids=["widths", "widths and sizes"])
@pytest.mark.parametrize("family", SLIMS)
def test_what_all_switches_ship_fills_the_budget(family: str, switches: tuple[tuple[float, int], ...], budget: int):
    shipped = describe(family, budget, 11, 32, {}, switches).shipped_net().to("meta")
    weight = weigh(shipped, 32)
    assert 0.995 * budget <= weight.counted <= budget
    # Nothing is shipped that is not counted: no statistics hide in buffers.
    assert sum(value.numel() for value in shipped.state_dict().values()) == weight.unique


def test_any_budget_is_filled() -> None:
    chosen = random.Random(0)
    for _ in range(8):
        budget = int(6_000 * 80 ** chosen.random())
        student = describe("mobilenet_v1", budget, chosen.randint(2, 100), 32, {}, WIDTHS)
        assert 0.995 * budget <= weigh(student.shipped_net().to("meta"), 32).counted <= budget, budget


def test_further_switches_cost_a_scale_and_a_bias_for_each_channel() -> None:
    student = describe("mobilenet_v1", 20_000, 5, 32, {}, WIDTHS)
    ordinary = student.at(student.switches[0])
    channels = [norm.num_features for norm in ordinary.build().modules() if isinstance(norm, nn.BatchNorm2d)]
    extra = 2 * sum(part_of(count, width) for count in channels for width in (0.75, 0.5))
    weight = weigh(student.shipped_net(), 32)
    assert weight.unique == weigh(ordinary.shipped_net(), 32).unique + extra
    assert weight.torchsummary == weigh(ordinary.shipped_net(), 32).torchsummary


def test_it_starts_as_the_ordinary_net_with_the_same_random_numbers() -> None:
    student = describe("mobilenet_v1", 5000, 3, 32, {}, WIDTHS)
    images = torch.randn(4, 3, 32, 32)
    torch.manual_seed(3)
    net = student.build().train()
    drawn = torch.get_rng_state()
    torch.manual_seed(3)
    ordinary = student.at(student.switches[0]).build().train()
    assert torch.equal(net(images), ordinary(images))
    assert torch.equal(torch.get_rng_state(), drawn)


def test_a_channel_that_the_whole_net_has_switched_off_stays_on_elsewhere() -> None:
    student = describe("mobilenet_v1", 5000, 3, 32, {}, WIDTHS)
    net = trained(student)
    first = next(module for module in net.modules() if isinstance(module, OwnNorms)).norms[0]
    assert isinstance(first, nn.BatchNorm2d)
    with torch.no_grad():
        first.weight[:2] = 0.0
    shipped, images = student.shipped_form(net), torch.randn(4, 3, 32, 32)
    assert isinstance(shipped, SwitchableNet)
    for number in range(3):
        with net.using(number), shipped.using(number), torch.no_grad():
            torch.testing.assert_close(shipped(images), net(images), rtol=1e-4, atol=1e-4)


def test_a_net_is_whole_again_after_an_error() -> None:
    net = trained(describe("mobilenet_v1", 5000, 3, 32, {}, WIDTHS))
    images = torch.randn(2, 3, 32, 32)
    expected = net(images)
    with pytest.raises(RuntimeError), net.using(2):
        net(torch.randn(2, 4, 32, 32))
    assert torch.equal(net(images), expected)


def test_the_sandwich_has_the_first_the_last_and_one_between_in_turn() -> None:
    student = describe("mobilenet_v1", 20_000, 3, 32, {}, [(width / 10, 32) for width in (10, 8, 6, 4, 3)])
    net = student.build().train()
    assert isinstance(net, SwitchableNet)
    assert net.takes_turns
    norms = next(module for module in net.modules() if isinstance(module, OwnNorms)).norms
    seen: list[list[int]] = []
    for step in range(6):
        before = [int(norm.num_batches_tracked) for norm in norms]  # pyright: ignore
        assert len(net.sandwich(torch.randn(4, 3, 32, 32), step)) == 3
        after = [int(norm.num_batches_tracked) for norm in norms]  # pyright: ignore
        seen.append([number for number in range(5) if after[number] > before[number]])
    assert seen == [[0, 1, 4], [0, 2, 4], [0, 3, 4]] * 2


def test_gradients_of_three_widths_reach_every_parameter() -> None:
    net = describe("mobilenet_v1", 5000, 3, 32, {}, WIDTHS).build().train()
    assert isinstance(net, SwitchableNet)
    assert not net.takes_turns
    torch.stack(
        [F.cross_entropy(shown.logits, torch.arange(8) % 3) for shown in net.sandwich(torch.randn(8, 3, 32, 32), 0)]
    ).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in net.parameters())


def test_a_description_with_switches_survives_json() -> None:
    student = describe("mobilenet_v1", 20_000, 3, 32, {}, BOTH)
    again = Student.from_json(json.loads(json.dumps(student.to_json())))
    assert again == student
    assert again.switches[1] == Switch(1.0, 20)
    assert "switches" not in describe("mobilenet_v1", 20_000, 3, 32).to_json()


@pytest.mark.parametrize(
    "switches",
    [3, [1.0], [[0.5, 32]], [[1.0, 16], [0.5, 32]], [[1.0, 32], [0.0, 32]], [[1.0, 32], [1.0, 64]],
     [[1.0, 32], [1.0, 32]], [[1.0, 32], [0.5, 16.5]], [[1.0, 32], ["half", 32]]],
    ids=str,
)  # fmt: skip
def test_wrong_switches_are_refused_in_one_line(switches: object) -> None:
    good = describe("mobilenet_v1", 20_000, 3, 32).to_json()
    with pytest.raises(BadCheckpoint) as caught:
        Student.from_json({**good, "switches": switches})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", [name for name in STUDENTS if name not in SLIMS])
def test_other_families_are_refused_in_one_line(family: str) -> None:
    with pytest.raises(
        BadRecipe, match=f'"{family}" cannot share its weights.*mobilenet_v1, mobilenet_v2 can'
    ) as caught:
        describe(family, 60_000, 11, 64, {}, ((1.0, 64), (0.5, 64)))
    assert "\n" not in str(caught.value)


def test_a_budget_below_the_smallest_net_says_what_it_needs() -> None:
    with pytest.raises(BudgetExceeded, match=r"the smallest mobilenet_v1 .* needs [\d,]+ parameters"):
        describe("mobilenet_v1", 300, 11, 64, {}, ((1.0, 64), (0.5, 64)))
