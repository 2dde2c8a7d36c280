"""The counts against the real torchsummary 1.5.1, on every student and on nets that set traps for it."""

import contextlib
import io
import itertools
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bantam.errors import BudgetExceeded
from bantam.nets.budget import Weight, enforce, summary, weigh
from bantam.nets.students import STUDENTS, describe

torchsummary = pytest.importorskip("torchsummary")


def reference(net: nn.Module, size: int) -> tuple[dict[str, int], list[tuple[str, str, int]]]:
    """Run the real package and parse what it prints: its totals, and its rows."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        torchsummary.summary(net, (3, size, size), device="cpu")
    text = printed.getvalue()
    totals = {
        kind: int(number.replace(",", ""))
        for kind, number in re.findall(r"^(Total|Trainable|Non-trainable) params: ([\d,]+)$", text, re.M)
    }
    rows = [
        (layer, shape, int(number.replace(",", "")))
        for layer, shape, number in re.findall(r"^ *(\w+-\d+) +(\[.*\]) +([\d,]+)$", text, re.M)
    ]
    return totals, rows


class Shared(nn.Module):
    """One convolution of 81 weights, called three times."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(self.conv(self.conv(images)))


class Tied(nn.Module):
    """Two convolutions with the same weight tensor of 81 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.second = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.second.weight = self.first.weight

    def forward(self, images: Tensor) -> Tensor:
        return self.second(self.first(images))


class Convolution(nn.Module):
    """A convolution of 216 weights and 8 biases; the nets below add something to it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images)


class Scale(nn.Module):
    """A parameter of 1,050 numbers under a name that torchsummary does not know."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.ones(1050))

    def forward(self, maps: Tensor) -> Tensor:
        return maps * self.table[0]


class BareOnContainer(Convolution):
    def __init__(self) -> None:
        super().__init__()
        self.scale = Scale()

    def forward(self, images: Tensor) -> Tensor:
        return self.scale(self.conv(images))


class BareOnRoot(Convolution):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1050))

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images) * self.weight[0]


class Unused(Convolution):
    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Linear(100, 100)


class BelowTwoParents(nn.Module):
    """A module registered below two parents is hooked twice, so each of its calls counts twice."""

    def __init__(self) -> None:
        super().__init__()
        conv = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.first = nn.Sequential(conv, nn.ReLU())
        self.second = nn.Sequential(conv)

    def forward(self, images: Tensor) -> Tensor:
        return self.second(self.first(images))


class Pair(nn.Module):
    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        return maps, 2 * maps


class ReturnsPair(Convolution):
    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair()

    def forward(self, images: Tensor) -> Tensor:
        return self.pair(self.conv(images))[1]


def frozen_weight() -> nn.Module:
    net = Convolution()
    net.conv.weight.requires_grad_(False)
    return net


def frozen_net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).requires_grad_(False)


def old_weight_norm() -> nn.Module:
    net = Convolution()
    net.conv = torch.nn.utils.weight_norm(net.conv)  # pyright: ignore[reportAttributeAccessIssue]
    return net


def weight_norm() -> nn.Module:
    net = Convolution()
    torch.nn.utils.parametrizations.weight_norm(net.conv)
    return net


TRAPS: dict[str, tuple[Callable[[], nn.Module], Weight]] = {
    "shared module": (Shared, Weight(unique=81, torchsummary=243)),
    "tied weight": (Tied, Weight(unique=81, torchsummary=162)),
    "parameter of another name": (BareOnContainer, Weight(unique=1274, torchsummary=224)),
    "parameter of the root": (BareOnRoot, Weight(unique=1274, torchsummary=224)),
    "uncalled branch": (Unused, Weight(unique=10324, torchsummary=224)),
    "frozen weight, live bias": (frozen_weight, Weight(unique=224, torchsummary=224)),
    "frozen net": (frozen_net, Weight(unique=240, torchsummary=240)),
    "weight_norm by hooks": (old_weight_norm, Weight(unique=232, torchsummary=224)),
    "weight_norm by parametrization": (weight_norm, Weight(unique=232, torchsummary=224)),
    "below two parents": (BelowTwoParents, Weight(unique=81, torchsummary=324)),
    "several outputs": (ReturnsPair, Weight(unique=224, torchsummary=224)),
}


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.parametrize("trap", TRAPS)
def test_traps_are_counted_by_both_rules(trap: str):
    build, expected = TRAPS[trap]
    net = build()
    assert weigh(net, 16) == expected
    assert reference(net, 16)[0]["Total"] == expected.torchsummary
    assert expected.counted == max(expected.unique, expected.torchsummary)


@pytest.mark.parametrize("size", [32, 64, 224])
@pytest.mark.parametrize("classes", [2, 11])
@pytest.mark.parametrize("name", STUDENTS)
def test_every_student_has_the_table_that_torchsummary_prints(name: str, classes: int, size: int):
    net = describe(name, 60_000, classes, size).build()
    ours = summary(net, size)
    totals, rows = reference(net, size)

    assert ours.weight.torchsummary == totals["Total"]
    assert ours.non_trainable == totals["Non-trainable"] == 0
    assert totals["Trainable"] == ours.weight.torchsummary  # it adds up at every call here, too
    assert ours.trainable == ours.weight.unique
    assert [(row.layer, str(list(row.output_shape)), row.parameters) for row in ours.rows] == rows


def test_frozen_parameters_count_and_are_told_apart_one_by_one():
    net = frozen_weight()
    ours = summary(net, 16)
    assert (ours.trainable, ours.non_trainable) == (8, 216)
    # torchsummary calls a layer's bias frozen when its weight is: it prints 0 trainable.
    assert reference(net, 16)[0] == {"Total": 224, "Trainable": 0, "Non-trainable": 224}
    assert summary(frozen_net(), 16).trainable == 0


def test_running_statistics_are_not_parameters():
    assert weigh(nn.Sequential(nn.BatchNorm2d(3)), 16) == Weight(unique=6, torchsummary=6)


def test_a_root_without_children_counts_by_unique_alone():
    assert weigh(nn.Conv2d(3, 8, 3), 16) == Weight(unique=224, torchsummary=0)


class Noisy(nn.Module):
    """Everything that a pass in train mode may disturb: statistics, dropout, a counter kept as a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(0.5)
        self.calls: Tensor
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        return self.drop(self.norm(self.conv(images + torch.rand_like(images))))


@pytest.mark.parametrize("training", [True, False])
def test_weighing_changes_nothing(training: bool):
    torch.manual_seed(0)
    net = Noisy().train(training)
    net.drop.train(not training)  # a mode per module, as in a net that is partly frozen
    net(torch.randn(4, 3, 16, 16)).sum().backward()
    seen: list[nn.Module] = []
    net.conv.register_forward_pre_hook(lambda module, _: seen.append(module))
    state = {name: value.clone() for name, value in net.state_dict().items()}
    held = {name: id(value) for name, value in itertools.chain(net.named_parameters(), net.named_buffers())}
    grads = [parameter.grad.clone() for parameter in net.parameters() if parameter.grad is not None]
    modes = [module.training for module in net.modules()]
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in net.modules()]
    random_numbers = torch.get_rng_state()

    weigh(net, 16)

    assert {name: id(v) for name, v in itertools.chain(net.named_parameters(), net.named_buffers())} == held
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert all(torch.equal(p.grad, g) for p, g in zip(net.parameters(), grads, strict=True) if p.grad is not None)
    assert [module.training for module in net.modules()] == modes
    assert [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in net.modules()] == hooks
    assert torch.equal(torch.get_rng_state(), random_numbers)


def test_hooks_are_gone_and_buffers_are_back_after_a_pass_that_failed():
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Linear(5, 5))
    with pytest.raises(RuntimeError):
        weigh(net, 16)
    assert not any(module._forward_hooks for module in net.modules())
    assert torch.equal(net[0].running_mean, torch.zeros(3))  # pyright: ignore[reportArgumentType]


def test_nets_on_the_meta_device_and_in_half_precision_can_be_weighed():
    with torch.device("meta"):
        net = describe("sample", 60_000, 11, 64).build()
    assert weigh(net, 64) == Weight(59_723, 59_723)
    assert weigh(nn.Sequential(nn.Conv2d(3, 8, 3)).to(torch.bfloat16), 16) == Weight(224, 224)


def test_the_budget_holds_to_the_parameter():
    net = Convolution()
    assert enforce([net], 16, 224) == Weight(224, 224)
    with pytest.raises(BudgetExceeded, match=r"224 parameters .*, 1 over the budget of 223"):
        enforce([net], 16, 223)


@pytest.mark.parametrize(("build", "counted"), [(Shared, 243), (Unused, 10_324)])
def test_the_budget_holds_for_the_larger_count(build: Callable[[], nn.Module], counted: int):
    assert enforce([build()], 16, counted).counted == counted
    with pytest.raises(BudgetExceeded) as caught:
        enforce([build()], 16, counted - 1)
    weight = weigh(build(), 16)
    for number in (weight.unique, weight.torchsummary, counted - 1, 1):
        assert f"{number:,}" in str(caught.value)


def test_an_ensemble_is_the_sum_by_each_count():
    assert enforce([Shared(), Unused()], 16, 20_000) == Weight(81 + 10_324, 243 + 224)
    net = Convolution()
    with pytest.raises(BudgetExceeded, match="2 nets together count 448"):
        enforce([net, net], 16, 447)


def test_the_text_is_torchsummarys_table_with_both_counts_and_the_verdict():
    net = describe("sample", 60_000, 11, 64).build()
    ours = summary(net, 64)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        torchsummary.summary(net, (3, 64, 64), device="cpu")
    theirs = printed.getvalue().split("\nInput size")[0].splitlines()[:-1]

    text = ours.text(60_000)
    assert text.splitlines()[: len(theirs)] == theirs
    assert "Each parameter once: 59,723" in text
    assert "As torchsummary counts: 59,723" in text
    assert "Within the budget of 60,000: 99.5% used, 277 left" in text
    assert "OVER the budget of 50,000 by 9,723" in ours.text(50_000)


@pytest.mark.parametrize(("build", "counts"), [(Shared, (81, 243)), (Unused, (10_324, 224))])
def test_the_verdict_is_that_of_the_larger_count(build: Callable[[], nn.Module], counts: tuple[int, int]):
    """Of one net only torchsummary's count is above the budget, of the other only that of every parameter once."""
    found = summary(build(), 16)
    assert (found.weight.unique, found.weight.torchsummary) == counts
    larger, smaller = max(counts), min(counts)
    assert f"OVER the budget of {larger - 1:,} by 1\n" in found.text(larger - 1)
    assert f"OVER the budget of {smaller:,} by {larger - smaller:,}\n" in found.text(smaller)
    assert f"Within the budget of {larger:,}: 100.0% used, 0 left\n" in found.text(larger)
    share = f"{larger / (2 * larger):.1%}"
    assert f"Within the budget of {2 * larger:,}: {share} used, {larger:,} left\n" in found.text(2 * larger)


def test_the_text_shows_several_outputs_as_torchsummary_does():
    net = ReturnsPair()
    row = "[[-1, 8, 16, 16], [-1, 8, 16, 16]]"
    assert row in summary(net, 16).text(1_000)
    assert row in str(reference(net, 16)[1])
