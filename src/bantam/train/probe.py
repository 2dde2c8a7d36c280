"""Which arithmetic trains this very net fastest on this very processor: measured, not guessed.

bf16 doubles the speed of a ResNet-18 on a processor with bf16 instructions, and halves that of a tiny depthwise net.
"""

import statistics
import time
from dataclasses import asdict, dataclass

import torch
from torch import nn
from torch.nn import functional as F

ROUNDS = 3
WORTH_IT = 0.95  # a change must save at least 5% of the time to be made


@dataclass(frozen=True)
class Choice:
    """The precision ("fp32" or "bf16") of a training, and why."""

    precision: str
    why: str

    @property
    def autocast(self) -> torch.dtype | None:
        return torch.bfloat16 if self.precision == "bf16" else None

    def to_json(self) -> dict[str, str]:
        return asdict(self)


def choose(net: nn.Module, size: int, classes: int, batch_size: int, wanted: str) -> Choice:
    """The precision to train `net` in; "auto" is decided by timing a few steps of a copy's forward and backward."""
    if wanted != "auto":
        return Choice(wanted, "asked for by the recipe")
    device = next(net.parameters()).device
    if device.type == "cuda":
        return Choice("bf16", "the GPU has bf16 matrix units")
    seconds = time_of_step(net, size, classes, min(batch_size, 32))
    ratio = seconds["bf16"] / seconds["fp32"]
    precision = "bf16" if ratio < WORTH_IT else "fp32"
    return Choice(precision, f"a step in bf16 takes {ratio:.2f} times as long as in fp32 on this processor")


def time_of_step(net: nn.Module, size: int, classes: int, batch_size: int) -> dict[str, float]:
    """Median seconds of forward and backward in fp32 and bf16, interleaved; the net is left as it was."""
    state = {name: value.clone() for name, value in net.state_dict().items()}
    random = torch.get_rng_state()
    images = torch.randn(batch_size, 3, size, size).to(memory_format=torch.channels_last)
    labels = torch.randint(classes, (batch_size,))
    was_training = net.training
    net.train()
    seconds: dict[str, list[float]] = {"fp32": [], "bf16": []}
    for round_ in range(ROUNDS + 1):  # the first round warms up
        for precision in seconds:
            started = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                logits = net(images)
            F.cross_entropy(logits.float(), labels).backward()
            net.zero_grad(set_to_none=True)
            if round_:
                seconds[precision].append(time.perf_counter() - started)
    net.load_state_dict(state)
    net.train(was_training)
    torch.set_rng_state(random)
    return {precision: statistics.median(times) for precision, times in seconds.items()}
