"""What a net costs to ship and to run: parameters, file size, MACs, activation memory, and measured latency."""

import copy
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from bantam.errors import BadRecipe, BantamError, BudgetExceeded
from bantam.nets.budget import Weight, weigh
from bantam.nets.device.needs import Needs, needs
from bantam.nets.footprint import Footprint, disk_bytes, footprint
from bantam.nets.limits import Limits, describe_within, least_budget
from bantam.nets.students import STUDENTS, Student

ROUNDS = 20
"""How often each net has its turn."""

WARM_UP = 3
"""Passes at the beginning of a turn that are not timed: the caches still hold the net before."""

TIMED = 10
"""Timed passes of a turn; all turns together give the median and the percentile."""


@dataclass(frozen=True)
class Latency:
    """Wall-clock time of one pass with one image on one thread, in milliseconds."""

    median_ms: float
    p95_ms: float


@dataclass(frozen=True)
class Cost:
    """All costs of one net, for one image of its input size; on a small device where one was asked about."""

    weight: Weight
    footprint: Footprint
    disk_bytes: int
    latency: Latency
    device: Needs | None = None

    def to_json(self) -> dict[str, Any]:
        """Return a dict that `json` can write."""
        return {
            **({} if self.device is None else {"device": asdict(self.device)}),
            "parameters": asdict(self.weight),
            **asdict(self.footprint),
            "disk_bytes": self.disk_bytes,
            "latency": asdict(self.latency),
        }


def costs(nets: Sequence[tuple[nn.Module, int]]) -> list[Cost]:
    """Cost each (net, size in pixels), in the form in which it is given: pass the shipped form, in eval mode."""
    timed = latencies(nets)
    return [
        Cost(weigh(net, size), footprint(net, size), disk_bytes(net), latency)
        for (net, size), latency in zip(nets, timed, strict=True)
    ]


@torch.inference_mode()
def latencies(nets: Sequence[tuple[nn.Module, int]], rounds: int = ROUNDS) -> list[Latency]:
    """Time each (net, size in pixels) on the device it is on, with one image and one thread.

    The nets take turns of a few passes, so that a change of the machine's speed meets all of them. Timed are copies
    in channels_last memory format, in the mode that the nets are in.
    """
    pairs: list[tuple[nn.Module, Tensor]] = []
    for net, size in nets:
        image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
        image = image.to(next(net.parameters()).device).contiguous(memory_format=torch.channels_last)
        pairs.append((nn.Module.to(copy.deepcopy(net), memory_format=torch.channels_last), image))
    seconds: list[list[float]] = [[] for _ in nets]
    with one_thread():
        for _ in range(rounds):
            for (net, image), measured in zip(pairs, seconds, strict=True):
                passes = [seconds_of(net, image) for _ in range(WARM_UP + TIMED)]
                measured += passes[WARM_UP:]
    return [
        Latency(
            median_ms=1e3 * statistics.median(measured),
            p95_ms=1e3 * statistics.quantiles(measured, n=20, method="inclusive")[-1],
        )
        for measured in seconds
    ]


def seconds_of(net: nn.Module, image: Tensor) -> float:
    """Time one pass, until its result is really there."""
    start = time.perf_counter()
    net(image)
    if image.is_cuda:
        torch.cuda.synchronize(image.device)
    return time.perf_counter() - start


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread, and as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Fitted:
    """The student of a family within given limits, and what its shipped form costs."""

    student: Student
    cost: Cost

    def to_json(self) -> dict[str, Any]:
        """Return a dict that `json` can write."""
        return {"shape": self.student.shape, **self.cost.to_json()}


def families(limits: Limits, classes: int, size: int) -> dict[str, Fitted | BantamError]:
    """Cost the largest shipped student of every family in STUDENTS within `limits`, for `size` x `size` pixels.

    A family without such a student has the error that says why. Raises BudgetExceeded if no family has one, with
    what the lightest needs, and BadRecipe if no family takes inputs of this size.
    """
    students: dict[str, Student] = {}
    refused: dict[str, BantamError] = {}
    for name in STUDENTS:
        try:
            students[name] = describe_within(name, limits, classes, size)
        except (BudgetExceeded, BadRecipe) as error:
            refused[name] = error
    if not students:
        heavy = [name for name, error in refused.items() if isinstance(error, BudgetExceeded)]
        if not heavy:
            raise next(iter(refused.values()))
        lightest = min(heavy, key=lambda name: least_budget(name, classes, size))
        raise BudgetExceeded(f"no family fits; {refused[lightest]}")
    with torch.random.fork_rng(devices=[]):
        nets = [(student.shipped_net(), size) for student in students.values()]
    cost_of = dict(zip(students, costs(nets), strict=True))
    if limits.of_device:
        for name, (net, _) in zip(students, nets, strict=True):
            cost_of[name] = replace(cost_of[name], device=needs(net, size))
    return {name: Fitted(students[name], cost_of[name]) if name in students else refused[name] for name in STUDENTS}
