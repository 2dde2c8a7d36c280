"""Unstructured pruning: single weights become zero and the net keeps its shape.

Han et al., "Learning both Weights and Connections for Efficient Neural Networks", 2015, arXiv:1506.02626: the weights
of the least magnitude go, either over the whole net, each layer keeping its largest, or the same share of every layer.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bantam.errors import BadPruning
from bantam.nets.blocks import ParallelConv, adds_nothing
from bantam.nets.output import StagedNet
from bantam.nets.students import Student
from bantam.nets.unfold import unfold


def maskable(net: nn.Module) -> dict[str, Tensor]:
    """The weights that may become zero: those of convolutions and linear layers, by their names in the state_dict."""
    return {
        f"{path}.weight": module.weight
        for path, module in net.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }


def one_branch(student: Student, net: StagedNet, images: Tensor) -> StagedNet:
    """`net` with each ParallelConv as the one convolution that ships, and a BatchNorm behind it; a net of its own.

    Only there is a zero weight one parameter less. `images` are those that `unfold` takes statistics on.
    """
    with torch.random.fork_rng(devices=[]):
        single = unfold(student, student.shipped_form(net), images)
    for module in list(single.modules()):
        for name, child in module.named_children():
            if isinstance(child, ParallelConv):
                setattr(module, name, next(branch for branch in child.branches if not adds_nothing(branch)))
    return single


def globally(weights: dict[str, Tensor], zeros: int) -> dict[str, Tensor]:
    """Boolean masks, True where a weight stays, that remove the `zeros` weights of least magnitude of the whole net.

    The largest of each layer comes after all others: without it the layer, and all that it is fed by, would be empty.
    """
    sizes = [weight.numel() for weight in weights.values()]
    magnitudes = [weight.flatten().abs() for weight in weights.values()]
    for layer in magnitudes:
        layer[layer.argmax()] = torch.inf
    stays = mask_of(torch.cat(magnitudes), zeros)
    parts = stays.split(sizes)
    return {name: part.view_as(weight) for (name, weight), part in zip(weights.items(), parts, strict=True)}


def by_layer(weights: dict[str, Tensor], zeros: int) -> dict[str, Tensor]:
    """Boolean masks, True where a weight stays, that remove the same share of each layer, `zeros` weights together."""
    total = sum(weight.numel() for weight in weights.values())
    masks: dict[str, Tensor] = {}
    passed = removed = 0
    for name, weight in weights.items():
        passed += weight.numel()
        # Rounded on the running sum, so that the layers' parts add up to `zeros` exactly.
        part = round(zeros * passed / total) - removed
        masks[name] = mask_of(weight.flatten(), part).view_as(weight)
        removed += part
    return masks


def mask_of(weights: Tensor, zeros: int) -> Tensor:
    """Boolean [N]: False for the `zeros` entries of least magnitude, exactly that many."""
    stays = torch.ones(len(weights), dtype=torch.bool)
    stays[weights.abs().argsort(stable=True)[:zeros]] = False
    return stays


MASKS: dict[str, Callable[[dict[str, Tensor], int], dict[str, Tensor]]] = {
    "global": globally,
    "layer": by_layer,
}


def masked(net: nn.Module, parameters: int, method: str, ratio: float) -> nn.Module:
    """A copy of `net` in which `ratio` of its `parameters` are zero, chosen by one of MASKS.

    `parameters` is the count of what ships; the zeros, round(ratio * parameters), are all taken from the weights of
    convolutions and linear layers. Raises BadPruning where a layer would have no weight left.
    """
    weights = {name: weight.detach() for name, weight in maskable(net).items()}
    zeros = round(ratio * parameters)
    available = sum(weight.numel() for weight in weights.values())
    masks = MASKS[method](weights, zeros) if zeros < available else {}
    emptied = next((name for name in weights if name not in masks or not masks[name].any()), None)
    if emptied is not None:
        raise BadPruning(
            f"method {method} at ratio {ratio:g} would empty the layer {emptied.removesuffix('.weight')}: "
            "give a smaller ratio or another method"
        )
    sparse = copy.deepcopy(net)
    hold(sparse, masks)
    return sparse


def hold(net: nn.Module, masks: dict[str, Tensor]) -> None:
    """Set the weights outside `masks` to zero, now and again before each use, so that training leaves them there.

    Hooks and not a parametrisation: the names in the state_dict stay those of the plain net.
    """

    def holder(mask: Tensor) -> Callable[[nn.Module, Any], None]:
        def silence(module: nn.Module, _inputs: Any) -> None:
            module.weight.data.mul_(mask)  # pyright: ignore[reportCallIssue]

        return silence

    for name, mask in masks.items():
        module = net.get_submodule(name.removesuffix(".weight"))
        silence = holder(mask)
        silence(module, None)
        module.register_forward_pre_hook(silence)


def zeros_in(net: nn.Module) -> int:
    """How many weights of convolutions and linear layers are exactly zero."""
    return sum(int((weight == 0).sum()) for weight in maskable(net).values())
