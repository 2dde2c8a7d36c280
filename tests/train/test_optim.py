import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

from bantam.recipes.kinds.training import Optimizer
from bantam.train.optim import averaging_decay, build_optimizer, learning_rate, without_compiler


def test_the_learning_rate_rises_peaks_and_falls_as_by_hand() -> None:
    rates = [learning_rate(step, 11, peak=2.0, warmup=2 / 11, final=0.1) for step in range(11)]
    assert rates[0] == pytest.approx(2 / 3)
    assert rates[1] == pytest.approx(4 / 3)
    assert rates[2] == pytest.approx(2.0)
    assert rates[6] == pytest.approx(2 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 2))))
    assert rates[10] == pytest.approx(0.2)
    assert rates[2:] == sorted(rates[2:], reverse=True)


def test_without_warm_up_it_starts_at_the_peak_and_one_step_is_enough() -> None:
    assert learning_rate(0, 10, 1.0, 0.0, 0.0) == 1.0
    assert learning_rate(0, 1, 1.0, 0.0, 0.0) == 1.0


def test_the_average_forgets_the_start_then_keeps_its_decay() -> None:
    assert averaging_decay(0, 0.99) == 0.1
    assert averaging_decay(90, 0.99) == pytest.approx(0.91)
    assert averaging_decay(10_000, 0.99) == 0.99


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_vectors_are_not_decayed_and_the_rate_is_read_at_every_step(name: str) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    rate = torch.zeros(())
    optimizer = build_optimizer(Optimizer(name=name, weight_decay=0.5), [net], rate)  # pyright: ignore[reportArgumentType]
    decay = {parameter: group["weight_decay"] for group in optimizer.param_groups for parameter in group["params"]}
    assert {tuple(parameter.shape): value for parameter, value in decay.items()} == {
        (4, 3, 3, 3): 0.5,
        (4,): 0.0,
    }
    before = net[0].weight.detach().clone()
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert torch.equal(net[0].weight, before)
    rate.fill_(0.1)
    optimizer.step()
    assert not torch.equal(net[0].weight, before)


def test_sgd_matches_nesterov_by_hand() -> None:
    weight = nn.Parameter(torch.tensor([[1.0]]))
    module = nn.Module()
    module.weight = weight
    optimizer = build_optimizer(Optimizer(name="sgd", momentum=0.9, weight_decay=0.1), [module], torch.tensor(0.5))
    expected, velocity = 1.0, 0.0
    for gradient in (1.0, -2.0):
        weight.grad = torch.tensor([[gradient]])
        optimizer.step()
        total = gradient + 0.1 * expected
        velocity = 0.9 * velocity + total
        expected -= 0.5 * (total + 0.9 * velocity)
    assert weight.item() == pytest.approx(expected)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD])
def test_without_the_compilers_wrappers_an_optimizer_computes_the_same(kind: Any, fused: bool) -> None:
    nets = [nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    theirs, ours = (
        each(net.parameters(), lr=torch.tensor(0.1), fused=fused)
        for each, net in zip((kind, without_compiler(kind)), nets, strict=True)
    )
    assert isinstance(ours, kind)
    for step in range(3):
        for optimizer, net in zip((theirs, ours), nets, strict=True):
            optimizer.zero_grad(set_to_none=True)
            net(torch.ones(2, 3, 5, 5) * (step + torch.arange(5))).square().sum().backward()
            optimizer.step()
        if step == 1:
            ours.load_state_dict(copy.deepcopy(theirs.state_dict()))  # which a loading shares
    for one, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(one, other)
    assert str(theirs.state_dict()) == str(ours.state_dict())
    assert without_compiler(kind) is without_compiler(kind)
