"""How this very net trains fastest on this very processor: measured, not guessed.

bf16 doubles the speed of a ResNet-18 on a processor with bf16 instructions, and halves that of a tiny depthwise net;
channels_last helps where convolutions are wide, and a second thread may cost a tiny net more than it brings.
"""

import contextlib
import copy
import hashlib
import json
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from bantam.errors import BadRunFile
from bantam.runs import runfolder
from bantam.runs.environment import processor
from bantam.train.arithmetic import Arithmetic

ROUNDS = 3
WORTH_IT = 0.95  # a change must save at least 5% of the time to be made
IMAGES = 32  # at most so many in a timed step
SAFE_INPUTS = 8
"""Of a dense pointwise convolution with a stride, on a CPU in channels_last: with fewer input channels the backward
pass of torch 2.14.1 writes outside its memory, and the process aborts sooner or later. Nets pruned to very few
channels have such layers; they train in contiguous format."""


def choose(
    net: nn.Module, size: int, classes: int, batch_size: int, wanted: str, cache: Path | None = None
) -> Arithmetic:
    """How to train `net` on `size` x `size` pixels; `wanted` is "fp32", "bf16", or "auto" for what is fastest.

    A precision that is asked for is taken with all threads and in the `safe_format`: nothing is probed, so that the run
    repeats to the bit wherever these are the same. With "auto", on a CPU a few steps of forward and backward are timed
    with fewer threads, then in the other memory format, then in bf16; a change that does not save 5% is not made. The
    net, its random numbers and torch's threads are left as they were. With `cache` the choice is kept in that folder,
    for this net, processor and version of torch.
    """
    threads = torch.get_num_threads()
    if wanted == "auto" and next(net.parameters()).device.type == "cuda":
        return Arithmetic("bf16", "channels_last", threads, "the GPU has bf16 matrix units, which want channels_last")
    if wanted != "auto":
        return Arithmetic(wanted, safe_format(net), threads, "asked for by the recipe")
    batch = min(batch_size, IMAGES)
    about = [str(net), size, batch, processor(), threads, os.cpu_count(), torch.__version__, safe_format(net)]
    key = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]
    path = cache / f"{key}.json" if cache else None
    with contextlib.suppress(BadRunFile):  # a damaged one is measured again
        if path and path.exists():
            kept = runfolder.checked(runfolder.Probe, path, runfolder.table(path, ""), "")
            return Arithmetic(kept.precision, kept.memory_format, kept.threads, kept.why)
    choice = measured(net, size, classes, batch, threads)
    if path:
        runfolder.write(path, choice.to_json())
    return choice


def safe_format(net: nn.Module) -> str:
    """The key in FORMATS that training `net` starts from: channels_last wherever that is safe."""
    on_cpu = next(net.parameters()).device.type == "cpu"
    unsafe = any(
        layer.kernel_size == (1, 1) and max(layer.stride) > 1 and layer.groups == 1 and layer.in_channels < SAFE_INPUTS
        for layer in net.modules()
        if isinstance(layer, nn.Conv2d)
    )
    return "contiguous" if on_cpu and unsafe else "channels_last"


def measured(net: nn.Module, size: int, classes: int, batch: int, threads: int) -> Arithmetic:
    """The choice by timing, one property after the other: each question keeps what the ones before it have found."""
    halves = [threads >> shift for shift in range(1, threads.bit_length())]  # 16 threads: 8, 4, 2, 1
    chosen = Arithmetic("fp32", safe_format(net), threads, "")
    found: list[str] = []
    questions: dict[str, list[str] | list[int]] = {
        "threads": halves,
        "memory_format": ["contiguous"] if chosen.memory_format != "contiguous" else [],
        "precision": ["bf16"],
    }
    for name, values in questions.items():
        options = [replace(chosen, **{name: value}) for value in values]
        if not options:
            continue
        seconds = time_of_step(net, size, classes, batch, [chosen, *options])
        best = min(options, key=seconds.__getitem__)
        ratio = seconds[best] / seconds[chosen]
        found.append(f"{getattr(best, name)} for {getattr(chosen, name)}: {ratio:.2f}")
        chosen = best if ratio < WORTH_IT else chosen
    return replace(chosen, why=f"time of a step, {', '.join(found)}")


def time_of_step(
    net: nn.Module, size: int, classes: int, batch_size: int, options: Sequence[Arithmetic]
) -> dict[Arithmetic, float]:
    """Median seconds of forward and backward with each of `options`, interleaved; everything is left as it was."""
    random, threads = torch.get_rng_state(), torch.get_num_threads()
    images = torch.randn(batch_size, 3, size, size)
    labels = torch.randint(classes, (batch_size,))
    nets = {option: copy.deepcopy(net).train().to(memory_format=option.format) for option in options}
    seconds: dict[Arithmetic, list[float]] = {option: [] for option in options}
    for round_ in range(ROUNDS + 1):  # the first round warms up
        for option in options:
            torch.set_num_threads(option.threads)
            there = images.contiguous(memory_format=option.format)
            started = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=option.precision == "bf16"):
                logits = nets[option](there)
            F.cross_entropy(logits.float(), labels).backward()
            nets[option].zero_grad(set_to_none=True)
            if round_:
                seconds[option].append(time.perf_counter() - started)
    torch.set_num_threads(threads)
    torch.set_rng_state(random)
    return {option: statistics.median(times) for option, times in seconds.items()}
