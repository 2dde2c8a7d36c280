"""Counting parameters, and enforcing the budget.

There are two counts, and the budget holds for the larger. `unique` is every parameter once, frozen ones
included. `torchsummary` is what the package torchsummary 1.5.1 reports: a hook adds up `weight` and `bias`
at every call of a module, so a module that is called twice counts twice, while a parameter of another name,
one of the root module, and one of a module that is never called count nothing.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bantam.errors import BudgetExceeded
from bantam.nets.output import StagedNet


@dataclass(frozen=True)
class Weight:
    """A net's number of parameters by both counts."""

    unique: int
    torchsummary: int

    @property
    def counted(self) -> int:
        """The count that the budget holds for: the larger one."""
        return max(self.unique, self.torchsummary)


@dataclass(frozen=True)
class Row:
    """One call of a module: its name as torchsummary gives it, its output's shape, its weight and bias.

    The shape has -1 for the batch; it is a tuple of shapes for a module that returns several tensors, and
    empty for one that returns none.
    """

    layer: str
    output_shape: tuple[Any, ...]
    parameters: int


@dataclass(frozen=True)
class Summary:
    """A net's calls in order, and its totals; `trainable` is the part of `weight.unique` that learns."""

    rows: tuple[Row, ...]
    weight: Weight
    trainable: int

    @property
    def non_trainable(self) -> int:
        """How many of the parameters are frozen."""
        return self.weight.unique - self.trainable

    def text(self, budget: int) -> str:
        """Return the table, both counts, and the verdict against `budget`, as lines to print."""
        ruler = "-" * 64
        lines = [ruler, f"{'Layer (type)':>20}  {'Output Shape':>25} {'Param #':>15}", "=" * 64]
        for row in self.rows:
            shape = str(_listed(row.output_shape))
            lines.append(f"{row.layer:>20}  {shape:>25} {row.parameters:>15,}")
        lines += [
            "=" * 64,
            f"Total params: {self.weight.unique:,}",
            f"Trainable params: {self.trainable:,}",
            f"Non-trainable params: {self.non_trainable:,}",
            ruler,
            f"Each parameter once: {self.weight.unique:,}",
            f"As torchsummary counts: {self.weight.torchsummary:,}",
            _verdict(self.weight, budget),
            ruler,
        ]
        return "\n".join(lines)


def weigh(net: nn.Module, size: int) -> Weight:
    """Count the parameters of `net` for inputs [N, 3, size, size], by both counts; nothing in it changes."""
    return summary(net, size).weight


def summary(net: nn.Module, size: int) -> Summary:
    """List every call in one forward pass of `net`, on inputs [2, 3, size, size], with its parameters.

    The pass runs in the mode the net is in, as torchsummary's does, and leaves the net, its BatchNorm
    statistics and the random numbers as they were.
    """
    rows = _calls(net, size)
    return Summary(
        rows=rows,
        weight=Weight(
            unique=sum(parameter.numel() for parameter in net.parameters()),
            torchsummary=sum(row.parameters for row in rows),
        ),
        trainable=sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad),
    )


def enforce(nets: Sequence[nn.Module], size: int, budget: int) -> Weight:
    """Return the weight of all `nets` together; raises BudgetExceeded if either sum is above `budget`.

    An ensemble counts the sum of its models, so one that lists the same net twice pays for it twice.
    """
    weights = [weigh(net, size) for net in nets]
    total = Weight(
        unique=sum(weight.unique for weight in weights),
        torchsummary=sum(weight.torchsummary for weight in weights),
    )
    if total.counted > budget:
        what = "the net counts" if len(weights) == 1 else f"the {len(weights)} nets together count"
        raise BudgetExceeded(
            f"{what} {total.unique:,} parameters ({total.torchsummary:,} as torchsummary counts), "
            f"{total.counted - budget:,} over the budget of {budget:,}: "
            "choose a smaller net or raise the budget"
        )
    return total


def _calls(net: nn.Module, size: int) -> tuple[Row, ...]:
    """Run `net` once on zeros and return one row per call of a module that torchsummary would hook."""
    rows: list[Row] = []
    handles = []

    def record(module: nn.Module, _inputs: Any, output: Any) -> None:
        name = f"{type(module).__name__}-{len(rows) + 1}"
        rows.append(Row(name, _shape(output), _weight_and_bias(module)))

    def hook(module: nn.Module) -> None:
        if module is not net and not isinstance(module, nn.Sequential | nn.ModuleList):
            handles.append(module.register_forward_hook(record))

    first = next((parameter for parameter in net.parameters() if parameter.is_floating_point()), None)
    device = torch.device("cpu") if first is None else first.device
    # Two images, because BatchNorm in train mode needs more than one value where the map is 1 x 1.
    images = torch.zeros(2, 3, size, size, device=device, dtype=None if first is None else first.dtype)
    # BatchNorm in train mode writes its statistics, so the pass gets copies of all buffers to write to.
    buffers = {f"net.{name}": buffer.clone() for name, buffer in net.named_buffers()}
    gpus = [device] if device.type == "cuda" else []
    try:
        # `apply`, as torchsummary: a module below two parents is hooked, and so counted, twice.
        net.apply(hook)
        with torch.no_grad(), torch.random.fork_rng(devices=gpus):
            functional_call(_Whole(net), buffers, (images,))
    finally:
        for handle in handles:
            handle.remove()
    return tuple(rows)


class _Whole(nn.Module):
    """Calls all that `net` has: of a student its early exits as well, which `forward` leaves out."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Any:
        return self.net.observe(images) if isinstance(self.net, StagedNet) else self.net(images)


def _weight_and_bias(module: nn.Module) -> int:
    """Count what torchsummary counts of one call: the attributes `weight` and `bias`, if they are tensors."""
    attributes = (getattr(module, name, None) for name in ("weight", "bias"))
    return sum(math.prod(attribute.shape) for attribute in attributes if isinstance(attribute, Tensor))


def _shape(output: Any) -> tuple[Any, ...]:
    """Return the shape of a module's output with -1 for the batch, nested as the output is."""
    if isinstance(output, Tensor):
        return (-1, *output.shape[1:])
    if isinstance(output, list | tuple):
        return tuple(_shape(part) for part in output)
    return ()


def _listed(shape: tuple[Any, ...]) -> list[Any]:
    """Turn nested tuples into nested lists, which is how torchsummary prints shapes."""
    return [_listed(part) if isinstance(part, tuple) else part for part in shape]


def _verdict(weight: Weight, budget: int) -> str:
    """Say in one line whether the larger count is within `budget`."""
    if weight.counted > budget:
        return f"OVER the budget of {budget:,} by {weight.counted - budget:,}"
    used, left = weight.counted / budget, budget - weight.counted
    return f"Within the budget of {budget:,}: {used:.1%} used, {left:,} left"
