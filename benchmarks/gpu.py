"""The training step on a GPU against what the GPU can do: a roofline measured in the same run.

The roofline has two sides, both measured: the rate at which the device copies memory, and the rate of a large bf16
matrix product. A step's work is counted like this:
  - operations: those of the forward pass (FlopCounterMode), three times: the backward pass computes two gradients;
  - bytes: every layer's output is written and read once in the forward pass, and the same twice in the backward
    pass, in the step's precision; and the views: a uint8 photograph read, float32 pixels written and read.
A step cannot be faster than max(bytes / copy rate, operations / matrix rate). Where libraries fuse layers they move
fewer bytes; so a second count takes convolutions and linear layers alone, as if all the rest were fused into them.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bantam.data import batches
from bantam.data.splits import LabelledSplit
from bantam.train.capture import Captured
from bantam.train.step import Step

BATCHES = (64, 256, 512, 1024, 2048)
EPOCH = 10_000  # images
EPOCHS = 5

Maker = Callable[[str, LabelledSplit, int], tuple[Step, Any]]


def seconds_of(work: Callable[[], object], repeats: int = 20) -> float:
    """Median seconds of `work` on the device."""
    times: list[float] = []
    for repeat in range(repeats + 3):  # three to warm up
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        if repeat >= 3:
            times.append(start.elapsed_time(end) / 1e3)
    return statistics.median(times)


def copy_rate(size: int = 2**30) -> float:
    """Bytes a second that the device reads and writes when it copies `size` bytes."""
    source = torch.empty(size, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * size / seconds_of(lambda: target.copy_(source))


def matrix_rate(side: int = 8192) -> float:
    """Operations a second of a bf16 product of two square matrices; a multiplication and an addition are two."""
    left, right = (torch.randn(side, side, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    product = torch.empty_like(left)
    return 2 * side**3 / seconds_of(lambda: torch.mm(left, right, out=product))


def work_of(step: Step, images: int) -> dict[str, float]:
    """Operations and bytes of a step on one image, by the rules above; see there for `bytes_fused`."""
    sizes: list[tuple[nn.Module, int]] = []

    def note(module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            sizes.append((module, output.numel()))

    layers = [module for module in step.net.modules() if not list(module.children())]
    handles = [layer.register_forward_hook(note) for layer in layers]
    training = step.net.training
    stored = step.images.shape[1:].numel()
    views = torch.zeros(images, 3, step.stage.size, step.stage.size, device=step.device)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        step.net.eval()(views)  # eval: no statistic may change
    step.net.train(training)
    for handle in handles:
        handle.remove()
    wide = 2 if step.autocast else 4
    looked = stored + 2 * 4 * views[0].numel()
    each = {
        "bytes": sum(size for _, size in sizes),
        "bytes_fused": sum(size for layer, size in sizes if isinstance(layer, nn.Conv2d | nn.Linear)),
    }
    return {
        "operations": 3 * counter.get_total_flops() / images,
        **{name: looked + 3 * 2 * wide * count / images for name, count in each.items()},
    }


def measure(training: LabelledSplit, step_of: Maker, *, compiled: bool) -> dict[str, Any]:
    """Images a second of whole epochs at several batch sizes, and the share of the roofline that each reaches."""
    roofline = {"copy_bytes_per_second": copy_rate(), "matrix_operations_per_second": matrix_rate()}
    rows = [
        row_of(net, batch, training, step_of, roofline, compiled=variant)
        for net in ("sample", "mobilenet_v1")
        for batch in BATCHES
        if batch <= len(training)
        for variant in ((False, True) if compiled else (False,))
    ]
    return {
        "roofline": roofline,
        "steps": rows,
        "best_images_per_second": max(row["images_per_second"] for row in rows),
    }


def row_of(
    net: str, batch: int, training: LabelledSplit, step_of: Maker, roofline: dict[str, float], *, compiled: bool
) -> dict[str, Any]:
    """One student at one batch size, end to end: the order of each epoch, its way to the device, and all steps."""
    step, _ = step_of(net, training, batch)
    work = work_of(step, 2)
    if compiled:
        step.observed = torch.compile(step.observed)  # pyright: ignore[reportAttributeAccessIssue]
    index = torch.arange(batch, device=step.device)
    captured = Captured(step, index, torch.zeros_like(index))
    images, seconds = 0, []
    for epoch in range(EPOCHS + 1):
        torch.cuda.synchronize()
        started = time.perf_counter()
        order = batches.epoch(len(training), batch, 0, epoch).to(step.device)
        view = torch.full_like(order[0], epoch)
        for row in order:
            captured(row, view)
        torch.cuda.synchronize()
        if epoch:  # the first one warms up
            seconds.append(time.perf_counter() - started)
        images = order.numel()
    speed = images / statistics.median(seconds)
    replay = batch / seconds_of(lambda: captured(index, torch.zeros_like(index)))
    matrices = work["operations"] / roofline["matrix_operations_per_second"]
    bounds = {
        name: max(work[key] / roofline["copy_bytes_per_second"], matrices)
        for name, key in (("of_roofline", "bytes"), ("of_roofline_fused", "bytes_fused"))
    }
    return {
        "net": net,
        "batch": batch,
        "compiled": compiled,
        "images_per_second": speed,
        "images_per_second_of_replays": replay,
        "epoch_milliseconds": 1e3 * EPOCH / speed,
        **{name: bound * speed for name, bound in bounds.items()},
        "per_image": work,
    }


def show(console: Console, result: dict[str, Any]) -> None:
    roofline = result["roofline"]
    console.print(
        f"GPU: copies {roofline['copy_bytes_per_second'] / 1e12:.2f} TB/s, multiplies "
        f"{roofline['matrix_operations_per_second'] / 1e12:.0f} Tflop/s in bf16"
    )
    for row in result["steps"]:
        console.print(
            f"  {row['net']:<14} batch {row['batch']:<5}{' compiled' if row['compiled'] else ''}"
            f"{row['images_per_second']:>10,.0f} images/s  {row['of_roofline']:>6.1%} of the roofline "
            f"({row['of_roofline_fused']:.1%} fused)  {EPOCH:,} images in {row['epoch_milliseconds']:.0f} ms"
        )
