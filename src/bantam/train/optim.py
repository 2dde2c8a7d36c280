"""Optimizers, and the learning rate and averaging decay as pure functions of the step."""

import functools
import inspect
import math
from typing import Any

import torch
from torch import Tensor, nn

from bantam.recipes.kinds.training import Optimizer


def learning_rate(step: float, total: int, peak: float, warmup: float, final: float) -> float:
    """The learning rate at `step` in 0..total-1: linear warm-up, then a cosine (Loshchilov and Hutter, 2017).

    `step` may lie between two. `warmup` is the share of steps with the linear rise, which ends at `peak`; the cosine
    ends at `final * peak`.
    """
    warm = round(warmup * total)
    if step < warm:
        return peak * (step + 1) / (warm + 1)
    along = (step - warm) / max(1, total - 1 - warm)
    return peak * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, along))))


def averaging_decay(step: int, decay: float) -> float:
    """The decay of the averaged weights at step `step`: small at first, so that the start is forgotten."""
    return min(decay, (1 + step) / (10 + step))


def build_optimizer(plan: Optimizer, modules: list[nn.Module], lr: Tensor) -> torch.optim.Optimizer:
    """The optimizer of `plan` over all parameters of `modules`; `lr` is a scalar tensor that the loop writes to.

    Weight decay is left off vectors and scalars (biases, BatchNorm).
    """
    parameters = [item for module in modules for item in module.parameters() if item.requires_grad]
    groups = [
        {"params": [item for item in parameters if item.ndim > 1], "weight_decay": plan.weight_decay},
        {"params": [item for item in parameters if item.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    optimizer: torch.optim.Optimizer
    if plan.name == "adamw":
        adamw, capturable = without_compiler(torch.optim.AdamW), lr.is_cuda
        optimizer = adamw(groups, lr=0.0, betas=(plan.momentum, 0.999), fused=True, capturable=capturable)
    else:
        sgd = without_compiler(torch.optim.SGD)
        optimizer = sgd(groups, lr=0.0, momentum=plan.momentum, nesterov=plan.momentum > 0, fused=True)
    for group in optimizer.param_groups:
        group["lr"] = lr  # not before: they look at its value, and would wait for a GPU
    return optimizer


@functools.cache
def without_compiler(kind: Any) -> Any:
    """The optimizer `kind` with its methods as they are before torch wraps them.

    The wrappers import torch's compiler, seconds and hundreds of megabytes, only to keep it away from the methods; that
    of `step` also switches gradients off.
    """
    names = ("step", "add_param_group", "zero_grad", "state_dict", "load_state_dict")
    methods = {name: inspect.unwrap(getattr(kind, name)) for name in names}
    return type(kind.__name__, (kind,), {**methods, "step": torch.no_grad()(methods["step"])})
