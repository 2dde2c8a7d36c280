"""Temperatures: what fits, what it does to calibration, and that it changes no class and adds no parameter."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from bantam.data.splits import IMAGENET, LabelledSplit
from bantam.errors import NotFinite
from bantam.measure.accuracy import calibration
from bantam.measure.logits import logits_of
from bantam.measure.temperature import (
    COLDEST,
    HOTTEST,
    divide_logits,
    fit_temperature,
    fitted_elsewhere,
    temperatures_of,
)
from bantam.measure.tta import TTA, answers_of_tta
from bantam.nets.early_exit import with_exits
from bantam.nets.output import StagedNet
from bantam.nets.slimmable import each_switch
from bantam.nets.students import STUDENTS, describe


def believed(n: int = 4000, classes: int = 11) -> tuple[Tensor, Tensor]:
    """Logits [n, classes] in float64 that are right as often as they say, and labels [n] drawn from them."""
    draw = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(n, classes, generator=draw, dtype=torch.float64)
    return logits, torch.multinomial(logits.softmax(1), 1, generator=draw)[:, 0]


def least_nll(logits: Tensor, labels: Tensor) -> float:
    """The temperature of the least NLL, by trying many."""
    tried = torch.logspace(-2, 2, 4001, dtype=torch.float64).tolist()
    return min(tried, key=lambda one: float(functional.cross_entropy(logits / one, labels)))


@pytest.mark.parametrize("scale", [0.05, 0.4, 1.0, 3.0, 40.0])
def test_what_was_scaled_is_scaled_back(scale: float) -> None:
    logits, labels = believed()
    temperature = fit_temperature(scale * logits, labels)
    assert temperature == pytest.approx(scale, rel=0.05)
    assert temperature == pytest.approx(least_nll(scale * logits, labels), rel=0.005)
    after = calibration(scale * logits / temperature, labels)
    assert after.ece < 0.02
    if scale != 1:
        before = calibration(scale * logits, labels)
        assert after.ece < before.ece / 4
        assert after.nll < before.nll


def test_a_temperature_is_never_worse_than_none() -> None:
    logits, labels = believed(200, 3)
    best = logits / least_nll(logits, labels)
    assert calibration(best / fit_temperature(best, labels), labels).nll <= calibration(best, labels).nll


def test_a_few_images_that_are_all_right_do_not_make_certain() -> None:
    labels = torch.arange(30) % 3
    logits = functional.one_hot(labels).double() + 0.1 * torch.rand(30, 3, dtype=torch.float64)
    temperature = fit_temperature(logits, labels)
    assert COLDEST < temperature < 1
    assert 0.9 < float((logits / temperature).softmax(1).amax(1).mean()) < 0.995


@pytest.mark.parametrize(
    ("logits", "labels", "wanted"),
    [
        (torch.zeros(6, 3), torch.arange(6) % 3, 1.0),  # no temperature changes anything
        (torch.zeros(1, 1), torch.zeros(1, dtype=torch.long), 1.0),
        (10 * torch.eye(3), torch.tensor([1, 2, 0]), HOTTEST),  # always wrong: the less sure the better
    ],
)
def test_logits_that_say_nothing_have_a_finite_temperature(logits: Tensor, labels: Tensor, wanted: float) -> None:
    assert fit_temperature(logits, labels) == pytest.approx(wanted, rel=1e-3)
    assert bool(fitted_elsewhere(logits, labels).isfinite().all())


def test_logits_that_are_not_finite_are_refused() -> None:
    with pytest.raises(NotFinite):
        fit_temperature(torch.tensor([[math.nan, 0.0]]), torch.tensor([0]))


def test_the_last_bits_of_logits_do_not_reach_a_temperature() -> None:
    logits, labels = believed(500)
    other = logits * (1 + 1e-7 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(1)))
    assert fit_temperature(logits.float(), labels) == fit_temperature(other.float(), labels)


def test_each_half_is_divided_by_what_fits_the_other() -> None:
    logits, labels = believed(600)
    logits[::2] *= 4
    kept = logits.clone()
    divided = fitted_elsewhere(logits, labels)
    assert torch.equal(logits, kept)
    even, odd = fit_temperature(logits[::2], labels[::2]), fit_temperature(logits[1::2], labels[1::2])
    assert even > 2 * odd
    torch.testing.assert_close(divided[::2], logits[::2] / odd)
    torch.testing.assert_close(divided[1::2], logits[1::2] / even)


def split_of(n: int, size: int, seed: int = 0) -> LabelledSplit:
    images = torch.randint(0, 256, (n, size, size, 3), generator=torch.Generator().manual_seed(seed)).byte()
    labels = torch.arange(n) % 4
    return LabelledSplit("validation", images, labels, tuple(map(str, range(n))), ("a", "b", "c", "d"))


def unsure_net(family: str, size: int) -> StagedNet:
    torch.manual_seed(0)
    limit = 70_000 if family == "sample" else 20_000
    student = describe(family, limit, 4, size)
    return student.shipped_form(student.build()).eval()


@pytest.mark.parametrize("family", list(STUDENTS))
def test_every_family_is_divided_and_weighs_the_same(family: str) -> None:
    size = 48 if family == "sample" else 32
    net = unsure_net(family, size)
    split = split_of(24, size)
    before, names = logits_of(net, split, size, IMAGENET), list(net.state_dict())
    parameters = sum(one.numel() for one in net.parameters())
    divide_logits(net, [0.3])
    after = logits_of(net, split, size, IMAGENET)
    torch.testing.assert_close(after.double(), before.double() / 0.3, rtol=1e-4, atol=1e-4)
    assert torch.equal(after.argmax(1), before.argmax(1))
    assert list(net.state_dict()) == names
    assert sum(one.numel() for one in net.parameters()) == parameters


def test_the_probabilities_of_every_tta_follow_and_no_class_changes() -> None:
    net, split = unsure_net("mobilenet_v1", 32).double(), split_of(64, 32)

    def look(views: Tensor) -> Tensor:
        return net(views.double())

    before = answers_of_tta(net, split, 32, IMAGENET, tuple(TTA), look)
    divide_logits(net, [0.05])
    after = answers_of_tta(net, split, 32, IMAGENET, tuple(TTA), look)
    assert torch.equal(before.argmax(2), after.argmax(2))
    torch.testing.assert_close(after.softmax(2), (before / 0.05).softmax(2), rtol=1e-3, atol=1e-5)


def test_each_exit_has_a_temperature_of_its_own() -> None:
    net = with_exits(unsure_net("mobilenet_v1", 32), (1, 2), 32).double().eval()
    images = torch.randn(8, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    before = net.observe(images)
    divide_logits(net, [2.0, 3.0, 5.0])
    after = net.observe(images)
    for temperature, mine, other in zip(
        (2, 3, 5), (*after.exits, after.logits), (*before.exits, before.logits), strict=True
    ):
        torch.testing.assert_close(mine, other / temperature)
    with pytest.raises(ValueError, match="zip"):
        divide_logits(net, [2.0])


def test_all_switches_are_divided() -> None:
    torch.manual_seed(0)
    student = describe("mobilenet_v1", 20_000, 4, 32, switches=((1.0, 32), (0.5, 16)))
    images = torch.randn(8, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for net in (student.build().double().eval(), student.shipped_form(student.build()).double().eval()):
        before = [net(images) for _ in each_switch(net)]
        divide_logits(net, [4.0])
        after = [net(images) for _ in each_switch(net)]
        assert len(after) == 2
        for mine, other in zip(after, before, strict=True):
            torch.testing.assert_close(mine, other / 4)


def test_a_run_from_before_has_no_temperature() -> None:
    assert temperatures_of({"plain": 0.5, "n": 3}) == []
    assert temperatures_of({"calibration": {"temperature": 0.5}}) == [0.5]
    assert temperatures_of({"calibration": {"temperature": 0.5, "exits": [{"temperature": 2.0}]}}) == [2.0, 0.5]
