import dataclasses
import json

import pytest
import torch
from torch import nn

from bantam.errors import BadRecipe, BantamError, BudgetExceeded
from bantam.measure import cost as cost_module
from bantam.measure.cost import Fitted, Latency, costs, families, latencies
from bantam.nets.budget import weigh
from bantam.nets.footprint import disk_bytes, footprint
from bantam.nets.limits import Limits
from bantam.nets.students import STUDENTS, describe


class Recorder(nn.Module):
    """Notes the mode, the threads and the input of each call."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 2, 1)
        self.calls = CALLS

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls.append(
            (self.training, torch.get_num_threads(), tuple(images.shape), torch.is_inference_mode_enabled())
        )
        return self.layer(images)

    def __deepcopy__(self, memo: object) -> "Recorder":
        return self


CALLS: list[tuple[bool, int, tuple[int, ...], bool]] = []


def test_latency_is_taken_on_one_image_and_one_thread_in_the_mode_of_the_net():
    CALLS.clear()
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        latencies([(Recorder().eval(), 16)], rounds=3)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert CALLS == [(False, 1, (1, 3, 16, 16), True)] * 3 * (cost_module.WARM_UP + cost_module.TIMED)


def test_median_and_percentile_leave_the_warm_up_out(monkeypatch: pytest.MonkeyPatch):
    # Each turn: three slow passes to warm up, then 10 timed ones of 1 to 10 ms.
    turn = [9.0] * cost_module.WARM_UP + [number / 1000 for number in range(1, cost_module.TIMED + 1)]
    passes = iter(turn * 2)
    monkeypatch.setattr(cost_module, "seconds_of", lambda _net, _image: next(passes))
    (latency,) = latencies([(nn.Conv2d(3, 2, 1), 8)], rounds=2)
    assert latency.median_ms == pytest.approx(5.5)
    assert latency.p95_ms == pytest.approx(10.0, abs=0.06)
    assert next(passes, None) is None


def test_nets_take_turns(monkeypatch: pytest.MonkeyPatch):
    order: list[int] = []

    def seconds_of(_net: nn.Module, image: torch.Tensor) -> float:
        order.append(image.shape[-1])
        return 1.0

    monkeypatch.setattr(cost_module, "seconds_of", seconds_of)
    latencies([(nn.Conv2d(3, 2, 1), 8), (nn.Conv2d(3, 2, 1), 16)], rounds=2)
    turn = cost_module.WARM_UP + cost_module.TIMED
    assert order == ([8] * turn + [16] * turn) * 2


def test_a_cost_is_all_its_parts_and_the_net_stays_as_it_is():
    net = describe("recurrent", 5_000, 3, 32).shipped_net()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    (cost,) = costs([(net, 32)])
    assert cost.weight == weigh(net, 32)
    assert cost.weight.torchsummary > cost.weight.unique  # shared weights: the counts differ, and both are said
    assert cost.footprint == footprint(net, 32)
    assert cost.disk_bytes == disk_bytes(net)
    assert 0 < cost.latency.median_ms <= cost.latency.p95_ms
    assert cost.to_json() == {
        "parameters": dataclasses.asdict(cost.weight),
        "macs": cost.footprint.macs,
        "activation_bytes": cost.footprint.activation_bytes,
        "disk_bytes": cost.disk_bytes,
        "latency": {"median_ms": cost.latency.median_ms, "p95_ms": cost.latency.p95_ms},
    }
    assert json.loads(json.dumps(cost.to_json())) == cost.to_json()
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name])
        assert tensor.stride() == before[name].stride()


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost_module, "latencies", lambda nets: [Latency(1.0, 2.0)] * len(nets))


@pytest.mark.usefixtures("untimed")
def test_every_family_is_costed_in_the_form_that_is_shipped_or_has_a_reason():
    random = torch.get_rng_state()
    found = families(Limits(60_000), 11, 24)
    assert torch.equal(torch.get_rng_state(), random)
    assert list(found) == list(STUDENTS)
    for name, row in found.items():
        assert isinstance(row, Fitted)
        assert row.student == describe(name, 60_000, 11, 24)
        assert 59_700 <= row.cost.weight.counted <= 60_000
    reasons = {name: str(row) for name, row in families(Limits(2_000), 11, 32).items() if isinstance(row, BantamError)}
    assert "needs 59,723 parameters" in reasons["sample"]
    assert "the smallest mobilenet_v3" in reasons["mobilenet_v3"]
    assert "mobilenet_v1" not in reasons


@pytest.mark.usefixtures("untimed")
def test_where_no_family_fits_the_lightest_says_what_it_needs():
    with pytest.raises(BudgetExceeded, match=r"no family fits; the smallest \w+ .*needs [\d,]+ parameters") as caught:
        families(Limits(100), 11, 32)
    assert "\n" not in str(caught.value)
    with pytest.raises(BadRecipe, match="too small"):
        families(Limits(60_000), 11, 0)
