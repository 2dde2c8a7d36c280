"""The way back from what ships to what trains: BatchNorms and training-only branches put back, for the same answers.

A shipped student has its BatchNorms folded into the convolutions (`bantam.nets.fold`); as it is, it neither trains
well nor can its statistics be taken anew, nor its channels be followed by a pruner. Here each folded BatchNorm comes
back with the statistics that its input has on given images, and with the scale and shift that undo exactly these. A
training-only branch comes back as it starts in a fresh net, behind a BatchNorm whose scale is 0: it adds nothing until
a training wants it.
"""

import copy

import torch
from torch import Tensor, nn

from bantam.nets.blocks import ParallelConv
from bantam.nets.output import StagedNet
from bantam.nets.students import Student

BATCH = 256


@torch.no_grad()
def unfold(student: Student, shipped: StagedNet, images: Tensor) -> StagedNet:
    """The trained form of `student` that gives the logits of `shipped`, its shipped form; a new net in eval mode.

    `images` float32 [N, 3, S, S], normalised, are what the statistics are taken on; a few hundred do. The float32
    logits are equal to 1e-4. A family that ships as it trains is copied. The weights with which training-only branches
    start are drawn from torch's random numbers.
    """
    if not student.kind.folds:
        return copy.deepcopy(shipped).eval()
    net = student.build().to(images.device)
    returned: list[nn.BatchNorm2d] = []
    _take(net, shipped, returned)
    _describe(net.eval(), images, returned)
    return net


def _take(module: nn.Module, folded: nn.Module, returned: list[nn.BatchNorm2d]) -> None:
    """Give `module` what `folded` computes; BatchNorms that were folded away do nothing yet, and join `returned`."""
    if isinstance(module, ParallelConv) and isinstance(folded, nn.Conv2d):
        _take_merged(module, folded, returned)
        return
    children = dict(module.named_children())
    if not children:
        module.load_state_dict(folded.state_dict())
        return
    own = [value for _, value in module.named_parameters(recurse=False)]
    theirs = [value for _, value in folded.named_parameters(recurse=False)]
    for mine, other in zip(own, theirs, strict=True):
        mine.copy_(other)
    layers, rest = list(children.values()), list(folded.children())
    place = 0
    for other in rest:
        layer = layers[place]
        place += 1
        behind = layers[place] if place < len(layers) and isinstance(module, nn.Sequential) else None
        if isinstance(layer, nn.Conv2d) and isinstance(behind, nn.BatchNorm2d) and isinstance(other, nn.Conv2d):
            _take_pair(layer, behind, other, returned)
            place += 1
        else:
            _take(layer, other, returned)
    assert place == len(layers), "the shipped form has fewer layers than folding leaves"


def _take_pair(conv: nn.Conv2d, norm: nn.BatchNorm2d, folded: nn.Conv2d, returned: list[nn.BatchNorm2d]) -> None:
    """`conv` takes the weight, and `norm` behind it the bias."""
    conv.weight.copy_(folded.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    nn.init.ones_(norm.weight)
    assert folded.bias is not None, "folding gives every convolution a bias"
    norm.bias.copy_(folded.bias)
    returned.append(norm)


def _take_merged(block: ParallelConv, folded: nn.Conv2d, returned: list[nn.BatchNorm2d]) -> None:
    """The branch with the widest kernel takes it all; the others add nothing."""
    branches = [branch for branch in block.branches if isinstance(branch, nn.Sequential)]
    for conv, norm in branches:
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and conv.kernel_size == folded.kernel_size:
            _take_pair(conv, norm, folded, returned)
            break
    for other in (layer for layer in block.modules() if isinstance(layer, nn.BatchNorm2d) and layer not in returned):
        nn.init.zeros_(other.weight)
        nn.init.zeros_(other.bias)
        returned.append(other)


def _describe(net: nn.Module, images: Tensor, returned: list[nn.BatchNorm2d]) -> None:
    """Give `returned` the statistics of their inputs on `images`, and the scale and shift that undo them.

    So far they are to pass their inputs on, scaled by their weight (1, or 0 in a branch that adds nothing).
    """
    sums = {norm: (torch.zeros(norm.num_features, dtype=torch.float64),) * 2 for norm in returned}
    count = dict.fromkeys(returned, 0)

    def see(norm: nn.Module, seen: tuple[Tensor, ...]) -> None:
        maps = seen[0].double()  # [B, C, H, W]
        assert isinstance(norm, nn.BatchNorm2d)
        first, second = sums[norm]
        sums[norm] = first + maps.sum((0, 2, 3)).cpu(), second + maps.square().sum((0, 2, 3)).cpu()
        count[norm] += maps.numel() // maps.shape[1]

    for norm in returned:
        assert norm.running_var is not None
        norm.running_var.fill_(1 - norm.eps)
    hooks = [norm.register_forward_pre_hook(see) for norm in returned]
    for part in images.split(BATCH):
        net(part)
    for hook in hooks:
        hook.remove()
    for norm in returned:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean = sums[norm][0] / count[norm]
        variance = (sums[norm][1] / count[norm] - mean.square()).clamp(min=0)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        # BatchNorm divides by the root of what is stored, in float32: undo that, not the float64 value.
        scale = (norm.running_var.double() + norm.eps).sqrt() * norm.weight.double()
        norm.bias.add_(norm.running_mean * norm.weight)
        norm.weight.copy_(scale)
