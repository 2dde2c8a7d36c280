"""What limits a training step on a CPU: depthwise convolutions by the side of their kernel, and ways to write a block.

    python benchmarks/step.py [--rounds N]

One thread's own time, so what else runs matters less; all take turns. A block is that of `largekernel`, in its whole
net: forward and backward of a batch of 64. "weights' gradient as products" sums shifted products of tiles, by the
forward convolution with tiles as channels.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional

from bantam.measure.turns import in_turns
from bantam.nets.students import describe
from bantam.nets.students.largekernel import GatedBlock
from evidence import RESULTS, medians, write

BATCH, CHANNELS, SIDE, KERNELS = 64, 32, 32, (3, 5, 7)
PARTS = {"forward": None, "gradient of the maps": (True, False), "gradient of the weights": (False, True)}


def thread_seconds(work: Callable[[], object]) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began


def convolution(kernel: int, part: str) -> Callable[[], object]:
    """One part of a depthwise convolution with `kernel` x `kernel` on maps [BATCH, CHANNELS, SIDE, SIDE]."""
    maps, gradient = (
        torch.randn(BATCH, CHANNELS, SIDE, SIDE).contiguous(memory_format=torch.channels_last) for _ in range(2)
    )
    weight = torch.randn(CHANNELS, 1, kernel, kernel).contiguous(memory_format=torch.channels_last)
    asked = PARTS[part]
    if asked is None:
        return lambda: functional.conv2d(maps, weight, None, 1, kernel // 2, 1, CHANNELS)
    return lambda: torch.ops.aten.convolution_backward(
        gradient, maps, weight, None, [1, 1], [kernel // 2] * 2, [1, 1], False, [0, 0], CHANNELS, [*asked, False]
    )


def as_products(kernel: int, tile: int = 16) -> Callable[[], object]:
    """The weights' gradient by a forward convolution: its kernels are tiles of the maps' gradient."""
    edge, pad = tile + kernel - 1, kernel // 2
    maps = torch.randn(BATCH, SIDE, SIDE, CHANNELS)
    gradient = torch.randn(BATCH, SIDE, SIDE, CHANNELS)
    split = (BATCH, SIDE // tile, tile, SIDE // tile, tile, CHANNELS)

    def work() -> Tensor:
        weights = gradient.reshape(split).permute(2, 4, 0, 1, 3, 5).reshape(tile, tile, -1)  # [t, t, tiles * C]
        padded = functional.pad(maps, (0, 0, pad, pad, pad, pad))
        tiles = padded.unfold(1, edge, tile).unfold(2, edge, tile)  # [N, H/t, W/t, C, e, e]
        images = tiles.permute(4, 5, 0, 1, 2, 3).reshape(edge, edge, -1)  # [e, e, tiles * C]
        groups = weights.shape[2]
        sums = functional.conv2d(images.permute(2, 0, 1)[None], weights.permute(2, 0, 1)[:, None], groups=groups)
        return sums.view(-1, CHANNELS, kernel, kernel).sum(0)  # [C, k, k]

    return work


class Gated(torch.autograd.Function):
    """hard-swish of one half of the channels times the other half, with one buffer for both gradients."""

    @staticmethod
    def forward(ctx, both: Tensor) -> Tensor:  # pyright: ignore
        ctx.save_for_backward(both)
        gate, value = both.chunk(2, 1)
        return functional.hardswish(gate) * value

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:  # pyright: ignore
        gate, value = ctx.saved_tensors[0].chunk(2, 1)
        both = torch.empty_like(ctx.saved_tensors[0])
        for_gate, for_value = both.chunk(2, 1)
        torch.mul(gradient, functional.hardswish(gate), out=for_value)
        torch.mul(torch.ops.aten.hardswish_backward(gradient, gate), value, out=for_gate)
        return both


def in_two(block: GatedBlock, maps: Tensor) -> Tensor:
    """The gate and the value by a pointwise convolution each."""
    mixed, channels = block.mix(maps), block.expand.in_channels
    weight, bias = block.expand.weight, block.expand.bias
    assert bias is not None
    gate, value = (
        functional.conv2d(mixed, weight[half], bias[half]) for half in (slice(channels), slice(channels, None))
    )
    return maps + block.project(block.gate(gate) * value)


def by_function(block: GatedBlock, maps: Tensor) -> Tensor:
    return maps + block.project(Gated.apply(block.expand(block.mix(maps))))


def step(net: nn.Module, images: Tensor, labels: Tensor, forward: Callable[..., Tensor]) -> None:
    with patch.object(GatedBlock, "forward", forward):
        functional.cross_entropy(net(images), labels).backward()


def ways_of_the_net() -> dict[str, Callable[[], object]]:
    images = torch.randn(BATCH, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 11, (BATCH,))
    net, lone = (
        describe("largekernel", 60_000, 11, 64, shape).build().to(memory_format=torch.channels_last)
        for shape in ({}, {"branches": 1})
    )
    usual = GatedBlock.forward
    return {
        "as it is": partial(step, net, images, labels, usual),
        "gate and value by a convolution each": partial(step, net, images, labels, in_two),
        "gate by a function of its own": partial(step, net, images, labels, by_function),
        "without the training-only branch": partial(step, lone, images, labels, usual),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=RESULTS / "benchmarks" / "step.json")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    parts = {f"{part}|{kernel}": convolution(kernel, part) for part in PARTS for kernel in KERNELS}
    parts |= {f"gradient of the weights, as products|{kernel}": as_products(kernel) for kernel in KERNELS}
    ways = ways_of_the_net()
    seconds = in_turns(options.rounds, {name: partial(thread_seconds, work) for name, work in (parts | ways).items()})
    middle = medians(seconds)
    macs = {kernel: BATCH * CHANNELS * SIDE**2 * kernel**2 for kernel in KERNELS}
    rows = [
        {
            "part": part,
            "kernel": int(kernel),
            "milliseconds": 1e3 * middle[f"{part}|{kernel}"],
            "gmacs_per_second": macs[int(kernel)] / middle[f"{part}|{kernel}"] / 1e9,
        }
        for part, kernel in (name.split("|") for name in parts)
    ]
    against = [
        {
            "way": way,
            "milliseconds": 1e3 * middle[way],
            "ratio": statistics.median(a / b for a, b in zip(seconds["as it is"], seconds[way], strict=True)),
        }
        for way in ways
    ]
    about = {"batch": BATCH, "channels": CHANNELS, "side": SIDE, "rounds": options.rounds}
    write(options.out, {**about, "parts": rows, "ways": against})
    console = Console()
    for row in rows:
        console.print(
            f"{row['part']:<42}{row['kernel']} x {row['kernel']}{row['milliseconds']:>8.2f} ms"
            f"{row['gmacs_per_second']:>7.1f} GMACs/s"
        )
    for row in against:
        console.print(f"{row['way']:<42}{row['milliseconds']:>8.1f} ms{row['ratio']:>7.2f} times as fast")


if __name__ == "__main__":
    main()
