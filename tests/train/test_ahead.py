"""Views made ahead are the same views, and the second thread is kept only where it pays."""

import itertools
import threading
import time
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from bantam.data import batches
from bantam.train import ahead as ahead_module
from bantam.train.ahead import TRIED, WARM_UP, Ahead
from tiny_run import tiny_step


@pytest.mark.parametrize("pays", [True, False, None], ids=["second thread", "one thread", "both in turn"])
def test_steps_with_views_made_ahead_end_with_the_same_bits(pays: bool | None, photographs: Path) -> None:
    plain, other = tiny_step(photographs), tiny_step(photographs)
    ahead = Ahead(other)
    ahead.pays = pays
    for epoch in range(2):
        order = batches.epoch(len(plain.labels), 10, 0, epoch)
        view = torch.full_like(order[0], epoch)
        for row in range(len(order)):
            expected = plain(order[row], view)
            terms = ahead(order[row], view, order[row + 1] if row + 1 < len(order) else None)
            assert torch.equal(terms["loss"], expected["loss"]), (epoch, row)
    ahead.close()
    assert other.count == plain.count == 2 * len(order)
    for name, value in plain.net.state_dict().items():
        assert torch.equal(other.net.state_dict()[name], value), name


class Sleeper:
    """A step that only takes time, in seconds: the views, the views in another thread, the rest."""

    def __init__(self, look: float, apart: float, learn: float) -> None:
        self.seconds = (look, apart, learn)
        self.looked: list[tuple[int, bool]] = []

    def look(self, index: Tensor, view: Tensor) -> tuple[Tensor, Tensor]:
        main = threading.current_thread() is threading.main_thread()
        self.looked.append((int(index), main))
        time.sleep(self.seconds[0] if main else self.seconds[1])
        return index, view

    def learn(self, images: Tensor, targets: Tensor, index: Tensor, view: Tensor) -> dict[str, Tensor]:
        assert torch.equal(images, index), "the views of other images"
        time.sleep(self.seconds[2])
        return {"loss": index}


@pytest.mark.parametrize(
    ("sleeper", "pays", "line"),
    [
        (
            Sleeper(look=0.01, apart=0.01, learn=0.01),
            True,
            "while the net works: time of a step with a second thread 0.",
        ),
        (Sleeper(look=0.001, apart=0.03, learn=0.001), False, "as a second thread does not pay: time of a step"),
    ],
    ids=["pays", "does not"],
)
def test_the_faster_way_stays(sleeper: Sleeper, pays: bool, line: str) -> None:
    said: list[str] = []
    ahead = Ahead(cast(Any, sleeper), said.append)
    tried = 2 * (WARM_UP + TRIED)
    view = torch.tensor(0)
    for number in range(tried):
        assert ahead.pays is None
        assert not said
        ahead(torch.tensor(number), view, torch.tensor(number + 1))
    assert ahead.pays is pays
    assert len(said) == 1
    assert line in said[0]
    for number in range(tried, tried + 5):
        ahead(torch.tensor(number), view, torch.tensor(number + 1))
    ahead(torch.tensor(tried + 5), view, None)
    ahead.close()
    assert [index for index, _ in sleeper.looked] == list(range(tried + 6)), "every batch is looked at once"
    assert [main for _, main in sleeper.looked[-5:]] == [not pays] * 5
    assert len(said) == 1


class Clock:
    """A step that moves a clock: by a second for views, or by `apart` where another thread makes them."""

    def __init__(self, apart: float) -> None:
        self.now, self.apart = 0.0, apart

    def perf_counter(self) -> float:
        return self.now

    def look(self, index: Tensor, view: Tensor) -> tuple[Tensor, Tensor]:
        main = threading.current_thread() is threading.main_thread()
        self.now += 1.0 if main else self.apart
        return index, view

    def learn(self, images: Tensor, targets: Tensor, index: Tensor, view: Tensor) -> dict[str, Tensor]:
        return {"loss": index}


def test_both_ways_are_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that becomes another one while it trains; one line is said of it."""
    clock = Clock(apart=0.5)
    monkeypatch.setattr(ahead_module, "time", clock)
    monkeypatch.setattr(ahead_module, "AGAIN", 5)
    monkeypatch.setattr(ahead_module, "TRIED", 1)
    said: list[str] = []
    ahead = Ahead(cast(Any, clock), said.append)
    chosen: list[bool | None] = []
    for number in range(29):
        if number == 8:
            clock.apart = 3.0
        ahead(torch.tensor(number), torch.tensor(0), torch.tensor(number + 1))
        chosen.append(ahead.pays)
    ahead.close()
    found = [(choice, len(list(steps))) for choice, steps in itertools.groupby(chosen)]
    assert found == [(None, 5), (True, 6), (None, 6), (False, 6), (None, 6)]
    assert len(said) == 1


def test_what_fails_in_the_second_thread_fails_the_step(photographs: Path) -> None:
    step = tiny_step(photographs)
    ahead = Ahead(step)
    ahead.pays = True
    index = torch.arange(10)
    with pytest.raises(IndexError):
        ahead(index, torch.zeros_like(index), index + len(step.labels))
    ahead.close()
