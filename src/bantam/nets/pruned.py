"""Nets with fewer channels than their family's shape says: what structured pruning leaves, as plain data.

A pruned net is its family's net with some convolutions, BatchNorms and linear layers narrowed. `Widths` names each
narrowed module and its channels, so that a description in JSON and a state_dict rebuild it without the library that
found out what can go.
"""

from typing import Any

import torch
from torch import Tensor, nn

Widths = dict[str, list[int]]
"""Path of each narrowed module: [output channels, input channels]; a BatchNorm has as many of both."""

Kept = dict[str, tuple[Tensor, Tensor]]
"""Path of each convolution, BatchNorm and linear layer: int64 indices of the outputs and of the inputs that stay."""


def channels_of(module: nn.Module) -> tuple[int, int] | None:
    """Output and input channels of a convolution, BatchNorm or linear layer; None for any other module."""
    if isinstance(module, nn.Conv2d):
        return module.out_channels, module.in_channels
    if isinstance(module, nn.BatchNorm2d):
        return module.num_features, module.num_features
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    return None


def widths_of(net: nn.Module, kept: Kept) -> Widths:
    """The plain-data form of `kept`: only the modules of `net` that lose something."""
    widths: Widths = {}
    for path, (outputs, inputs) in kept.items():
        if channels_of(net.get_submodule(path)) != (len(outputs), len(inputs)):
            widths[path] = [len(outputs), len(inputs)]
    return widths


def shrink(net: nn.Module, widths: Widths) -> None:
    """Narrow the modules of `net` that `widths` names, in place, to their first channels.

    Raises ValueError for numbers that no narrowed module can have, and AttributeError for a path that is not there.
    """
    for path, numbers in widths.items():
        module = net.get_submodule(path)
        present = channels_of(module)
        fits = present is not None and len(numbers) == 2 and all(type(number) is int for number in numbers)
        if present is None or not fits or not all(0 < n <= m for n, m in zip(numbers, present, strict=True)):
            raise ValueError(f"{path} cannot have the channels {numbers}")
        device = next(module.parameters()).device
        keep(module, torch.arange(numbers[0], device=device), torch.arange(numbers[1], device=device))


@torch.no_grad()
def take(net: nn.Module, kept: Kept) -> None:
    """Narrow `net` in place to the channels `kept`, with the weights that these have now."""
    for path, (outputs, inputs) in kept.items():
        keep(net.get_submodule(path), outputs, inputs)


@torch.no_grad()
def keep(module: nn.Module, outputs: Tensor, inputs: Tensor) -> None:
    """Narrow one convolution, BatchNorm or linear layer in place to these of its channels.

    Raises ValueError for a grouped convolution that is not depthwise, and for a depthwise one or a BatchNorm that would
    keep other inputs than outputs.
    """
    if isinstance(module, nn.BatchNorm2d):
        require_same(outputs, inputs)
        for name in ("weight", "bias", "running_mean", "running_var"):
            narrowed(module, name, getattr(module, name)[outputs])
        module.num_features = len(outputs)
    elif isinstance(module, nn.Linear):
        narrowed(module, "weight", module.weight[outputs][:, inputs])
        narrowed(module, "bias", module.bias[outputs])
        module.out_features, module.in_features = len(outputs), len(inputs)
    elif isinstance(module, nn.Conv2d):
        weight = module.weight[outputs]
        if module.groups == 1:
            weight = weight[:, inputs]
        elif module.groups == module.in_channels == module.out_channels:
            require_same(outputs, inputs)
            module.groups = len(outputs)
        elif (module.out_channels, module.in_channels) != (len(outputs), len(inputs)):
            raise ValueError("a grouped convolution cannot lose channels")
        narrowed(module, "weight", weight)
        if module.bias is not None:
            narrowed(module, "bias", module.bias[outputs])
        module.out_channels, module.in_channels = len(outputs), len(inputs)


def require_same(outputs: Tensor, inputs: Tensor) -> None:
    """Raises ValueError where a depthwise layer would keep other inputs than outputs."""
    # On the meta device there are no values, only lengths, to compare.
    if len(outputs) != len(inputs) or (not outputs.is_meta and not torch.equal(outputs, inputs)):
        raise ValueError("a layer that treats each channel alone keeps the same inputs as outputs")


def narrowed(module: nn.Module, name: str, value: Any) -> None:
    """Replace the parameter or buffer `name` of `module` by a copy of `value`."""
    copy = value.clone()
    setattr(module, name, nn.Parameter(copy) if name in dict(module.named_parameters(recurse=False)) else copy)
