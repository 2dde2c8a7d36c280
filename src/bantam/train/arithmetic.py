"""In which arithmetic a net trains: a function of the net and the processor, never of a stopwatch.

So the same command on the same machine ends with the same bits, however busy the machine was at any moment.
"""

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from bantam.runs.environment import processor

FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}

SAFE_INPUTS = 8
"""Of a dense pointwise convolution with a stride, on a CPU in channels_last: with fewer input channels the backward
pass of torch 2.14.1 writes outside its memory, and the process aborts sooner or later. Nets pruned to very few
channels have such layers; they train in contiguous format."""

DENSE = 100
"""Multiply-adds for each number that the layers put out, from which on bf16 pays. Measured: a ResNet-18 (730) trains
twice as fast, the sample (123) 1.4 times, mobilenet_v1 (32) at 0.7 of the speed: it loses more by converting than the
processor's bf16 units save."""


@dataclass(frozen=True)
class Arithmetic:
    """How a net is trained: precision "fp32" or "bf16", memory format (a key of FORMATS), threads; why, and on what.

    `micro_batch` is how many images are looked at at once where a whole batch does not fit the memory, else None.
    """

    precision: str = "fp32"
    memory_format: str = "channels_last"
    threads: int = 1
    why: str = ""
    machine: str = ""
    micro_batch: int | None = None

    @property
    def autocast(self) -> torch.dtype | None:
        return torch.bfloat16 if self.precision == "bf16" else None

    @property
    def format(self) -> torch.memory_format:
        return FORMATS[self.memory_format]

    def __str__(self) -> str:
        parts = f", micro-batches of {self.micro_batch}" if self.micro_batch else ""
        return f"{self.precision}, {self.memory_format}, {self.threads} thread(s){parts}"

    @contextmanager
    def threading(self) -> Iterator[None]:
        """Within it torch uses so many threads; after it as many as before."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def to_json(self) -> dict[str, str | int | None]:
        return asdict(self)


FP32 = Arithmetic()


def choose(net: nn.Module, size: int, wanted: str) -> Arithmetic:
    """How to train `net` on `size` x `size` pixels; `wanted` is "fp32", "bf16", or "auto" for what is likely faster.

    With "auto" it is bf16 on a GPU, and on a processor with bf16 instructions for nets that have DENSE multiply-adds
    for each number they put out. All cores are used, and the memory format is the `safe_format`. The net and its
    random numbers are left as they were.
    """
    on_cpu = next(net.parameters()).device.type == "cpu"
    if wanted != "auto":
        precision, why = wanted, "asked for by the recipe"
    elif not on_cpu:
        precision, why = "bf16", "the GPU has bf16 matrix units, which want channels_last"
    elif not has_bf16():
        precision, why = "fp32", "the processor has no bf16 instructions"
    else:
        dense = density(net, size)
        precision, why = "bf16" if dense >= DENSE else "fp32", f"{dense:.0f} multiply-adds an output, bf16: {DENSE}"
    return Arithmetic(precision, safe_format(net), cores(), why, machine())


def answering(net: nn.Module, size: int, wanted: str) -> torch.dtype | None:
    """What a teacher's `net` computes its answers in, on `size` px: None for float32, which it is on a GPU always.

    The rule is that of `choose`. A ResNet-18 at 112 px answers 3.3 times as fast in bf16, and its probabilities differ
    by 0.002 at most, less than two views of an image do.
    """
    on_cpu = next(net.parameters()).device.type == "cpu"
    return choose(net, size, wanted).autocast if on_cpu else None


def safe_format(net: nn.Module) -> str:
    """The key in FORMATS in which `net` trains: channels_last wherever that is safe."""
    on_cpu = next(net.parameters()).device.type == "cpu"
    unsafe = any(
        layer.kernel_size == (1, 1) and max(layer.stride) > 1 and layer.groups == 1 and layer.in_channels < SAFE_INPUTS
        for layer in net.modules()
        if isinstance(layer, nn.Conv2d)
    )
    return "contiguous" if on_cpu and unsafe else "channels_last"


@torch.no_grad()
def density(net: nn.Module, size: int) -> float:
    """Multiply-adds for each number that the convolutions and linear layers of `net` put out, at `size` px."""
    counted = [0, 0]  # multiply-adds, numbers

    def count(layer: nn.Module, _: object, output: Tensor) -> None:
        assert isinstance(layer.weight, Tensor)
        counted[0] += output.numel() * layer.weight[0].numel()
        counted[1] += output.numel()

    apart = copy.deepcopy(net).eval()
    for layer in apart.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    apart(torch.zeros(1, 3, size, size))
    return counted[0] / max(1, counted[1])


def has_bf16() -> bool:
    """Whether the processor multiplies bf16 numbers itself."""
    return "bf16" in processor()


def machine() -> str:
    """What the last bits of a result depend on, beside the arithmetic: the processor and the version of torch."""
    return f"{processor()}, torch {torch.__version__}"


def cores() -> int:
    """The cores that this process may use: no more than torch was told, it is bound to, or its container is given."""
    allowed = [torch.get_num_threads(), quota(Path("/sys/fs/cgroup/cpu.max"))]
    if hasattr(os, "sched_getaffinity"):
        allowed.append(len(os.sched_getaffinity(0)))
    return max(1, min(number for number in allowed if number is not None))


def quota(path: Path) -> int | None:
    """The whole cores that a container may use, as cgroup v2 says in `path`; None where nothing limits them."""
    try:
        limit, period = path.read_text(encoding="ascii").split()
        return None if limit == "max" else max(1, int(limit) // int(period))
    except (OSError, ValueError):
        return None
