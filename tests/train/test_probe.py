"""The probe: what it measures is what it chooses, it is kept, and it leaves no trace."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from bantam.compress.integers import QuantizedLayer
from bantam.nets.students import describe
from bantam.train import probe
from bantam.train.arithmetic import FORMATS, Arithmetic
from bantam.train.probe import choose, safe_format, time_of_step


@pytest.fixture
def net() -> nn.Module:
    return describe("mobilenet_v1", 5000, 3, 32).build()


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def test_it_leaves_the_net_the_random_numbers_and_the_threads_as_they_were(net: nn.Module) -> None:
    before = {name: value.clone() for name, value in net.state_dict().items()}
    random, threads = torch.get_rng_state(), torch.get_num_threads()
    choice = choose(net, 32, 3, 8, "auto")
    assert choice.precision in ("fp32", "bf16")
    assert choice.memory_format in FORMATS
    assert 1 <= choice.threads <= threads
    assert "contiguous for channels_last" in choice.why
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.usefixtures("four_threads")
@pytest.mark.parametrize(
    ("fastest", "wanted", "expected"),
    [
        (("fp32", "channels_last", 4), "auto", ("fp32", "channels_last", 4)),
        (("fp32", "channels_last", 1), "auto", ("fp32", "channels_last", 1)),
        (("bf16", "contiguous", 2), "auto", ("bf16", "contiguous", 2)),
        (("bf16", "contiguous", 2), "fp32", ("fp32", "channels_last", 4)),
        (("fp32", "contiguous", 2), "bf16", ("bf16", "channels_last", 4)),
    ],
)
def test_it_chooses_what_is_fastest(
    net: nn.Module, monkeypatch: pytest.MonkeyPatch, fastest: tuple[str, str, int], wanted: str,
    expected: tuple[str, str, int],
) -> None:  # fmt: skip
    """On a machine where each property that differs from the fastest way costs a tenth of a second."""

    def seconds(
        net: nn.Module, size: int, classes: int, batch: int, options: Sequence[Arithmetic]
    ) -> dict[Arithmetic, float]:
        def cost(option: Arithmetic) -> float:
            own = (option.precision, option.memory_format, option.threads)
            return 1 + 0.1 * sum(one != other for one, other in zip(own, fastest, strict=True))

        return {option: cost(option) for option in options}

    monkeypatch.setattr(probe, "time_of_step", seconds)
    choice = choose(net, 32, 3, 8, wanted)
    assert (choice.precision, choice.memory_format, choice.threads) == expected


def test_a_gain_below_five_percent_changes_nothing(net: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        probe,
        "time_of_step",
        lambda net, size, classes, batch, options: {option: 1 - 0.04 * (option != options[0]) for option in options},
    )
    choice = choose(net, 32, 3, 8, "auto")
    assert (choice.precision, choice.memory_format) == ("fp32", "channels_last")
    assert choice.threads == torch.get_num_threads()
    assert "0.96" in choice.why


def test_the_choice_is_kept_for_this_net_alone(net: nn.Module, tmp_path: Path) -> None:
    choice = choose(net, 32, 3, 8, "auto", tmp_path)
    (path,) = tmp_path.glob("*.json")
    path.write_text(json.dumps({**choice.to_json(), "why": "kept"}))
    assert choose(net, 32, 3, 8, "auto", tmp_path).why == "kept"
    assert choose(net, 64, 3, 8, "auto", tmp_path).why != "kept"
    assert choose(describe("sample", 60_000, 3, 32).build(), 32, 3, 8, "auto", tmp_path).why != "kept"


@pytest.mark.parametrize(
    ("inputs", "kernel", "stride", "groups", "expected"),
    [
        (7, 1, 2, 1, "contiguous"),
        (8, 1, 2, 1, "channels_last"),
        (7, 3, 2, 1, "channels_last"),
        (7, 1, 1, 1, "channels_last"),
        (7, 1, 2, 7, "channels_last"),
    ],
)
def test_a_net_that_would_break_in_channels_last_trains_in_contiguous_format(
    inputs: int, kernel: int, stride: int, groups: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = nn.Conv2d(inputs, 7, kernel, stride, groups=groups)
    net = nn.Sequential(nn.Conv2d(3, inputs, 3), layer, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    timed: list[str] = []

    def constant(*rest: object) -> dict[Arithmetic, float]:
        options = rest[-1]
        assert isinstance(options, list)
        timed.extend(option.memory_format for option in options)
        return dict.fromkeys(options, 1.0)

    monkeypatch.setattr(probe, "time_of_step", constant)
    assert choose(net, 16, 7, 4, "fp32").memory_format == expected
    assert choose(net, 16, 7, 4, "auto").memory_format == expected
    assert ("channels_last" in timed) == (expected == "channels_last")


def test_a_layer_on_integers_is_no_safer() -> None:
    for inputs, expected in ((7, "contiguous"), (8, "channels_last")):
        assert safe_format(nn.Sequential(QuantizedLayer(nn.Conv2d(inputs, 7, 1, 2), 8))) == expected


def test_every_way_is_timed(net: nn.Module) -> None:
    options = [Arithmetic(precision, form, 1, "") for precision in ("fp32", "bf16") for form in FORMATS]
    seconds = time_of_step(net, 32, 3, 4, options)
    assert seconds.keys() == set(options)
    assert all(0 < value < 10 for value in seconds.values())
    assert all(parameter.grad is None for parameter in net.parameters())


def test_threading_is_for_as_long_as_it_lasts() -> None:
    before = torch.get_num_threads()
    with Arithmetic("fp32", "channels_last", 1, "").threading():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
