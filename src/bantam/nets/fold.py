"""The form of a net that is weighed and shipped: what only training needs is folded away.

At inference BatchNorm is a scale and a shift per channel, so it melts into the convolution before it, and
parallel convolutions that are added up are one convolution (Ding et al., "RepVGG: Making VGG-style ConvNets
Great Again", CVPR 2021, arXiv:2101.03697). A BatchNorm that does not follow a convolution directly stays.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from bantam.nets.blocks import ParallelConv
from bantam.nets.output import StagedNet


def deploy(net: StagedNet) -> StagedNet:
    """Return `net` folded, as a new net in eval mode; its float32 outputs equal those of `net.eval()` to 1e-4.

    `net` itself stays as it is. The names in the state_dict depend on the structure alone, so the weights of
    one deployed net load strictly into any other deployed net of the same shape. No random number is drawn.
    """
    deployed = copy.deepcopy(net).eval()
    with torch.no_grad():
        _fold(deployed)
    return deployed


def _fold(module: nn.Module) -> None:
    """Fold everything below `module`, in place."""
    for name, child in module.named_children():
        if isinstance(child, ParallelConv):
            setattr(module, name, _merged(child))
        else:
            _fold(child)
    if isinstance(module, nn.Sequential):
        # From the end, because a deletion moves the places behind it.
        for place in reversed(range(len(module) - 1)):
            conv, norm = module[place], module[place + 1]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                module[place] = _with_weights(conv, *_folded(conv.weight, conv.bias, norm))
                del module[place + 1]


def _merged(block: ParallelConv) -> nn.Conv2d:
    """Return the one convolution, with a bias, that computes the sum of the branches of `block`."""
    _fold(block)
    convs = [layer for layer in block.modules() if isinstance(layer, nn.Conv2d)]
    widest = max(convs, key=lambda conv: conv.kernel_size[0])
    weights, biases = [conv.weight for conv in convs], [conv.bias for conv in convs]
    for identity in (layer for layer in block.modules() if isinstance(layer, nn.BatchNorm2d)):
        weight, bias = _folded(_unit_kernel(identity, widest.groups), None, identity)
        weights.append(weight)
        biases.append(bias)
    kernel = widest.kernel_size[0]
    weight = torch.stack([_enlarged(weight, kernel) for weight in weights]).sum(0)
    return _with_weights(widest, weight, torch.stack([bias for bias in biases if bias is not None]).sum(0))


def scale_and_shift(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return the factor [C] and the summand [C], in float64, that `norm` is at inference."""
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise TypeError("a BatchNorm without running statistics cannot be folded")
    scale = norm.weight.double() / (variance.double() + norm.eps).sqrt()
    return scale, norm.bias.double() - mean.double() * scale


def _folded(weight: Tensor, bias: Tensor | None, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Return weight [O, I, k, k] and bias [O] of the convolution that does what a convolution and `norm` do."""
    # In float64, so that the only rounding is that of the result.
    scale, shift = scale_and_shift(norm)
    folded = weight.double() * scale[:, None, None, None]
    moved = shift if bias is None else shift + bias.double() * scale
    return folded.to(weight.dtype), moved.to(weight.dtype)


def _with_weights(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """Return a copy of `conv` that has this weight and bias."""
    copied = copy.deepcopy(conv)
    copied.weight, copied.bias = nn.Parameter(weight), nn.Parameter(bias)
    return copied


def _unit_kernel(norm: nn.BatchNorm2d, groups: int) -> Tensor:
    """Return the pointwise kernel [C, C / groups, 1, 1] that changes nothing."""
    unit = torch.eye(norm.num_features // groups, device=norm.weight.device, dtype=norm.weight.dtype)
    return unit.repeat(groups, 1)[:, :, None, None]  # [C / groups, C / groups] -> [C, C / groups, 1, 1]


def _enlarged(weight: Tensor, kernel: int) -> Tensor:
    """Surround a kernel [O, I, k, k] with zeros until it is [O, I, kernel, kernel]; both sides are odd."""
    return functional.pad(weight, [(kernel - weight.shape[-1]) // 2] * 4)
