"""One net at several widths and resolutions: the same convolutions, at each switch with BatchNorms of its own.

A switch is a width, of which each layer uses its first channels (Yu et al., "Slimmable Neural Networks", ICLR 2019,
arXiv:1812.08928), and a resolution, to which the images are brought first (Wang et al., "Resolution Switchable
Networks", ECCV 2020, arXiv:2007.09558). Both papers find that convolutions can be shared and statistics cannot.

A convolution that is shared cannot be folded with every switch's BatchNorm. It is folded with that of the first
switch, which so ships as any other net; each further one ships a scale and a bias for each of its channels. Scaling the
weights, not the maps, a switch costs the multiply-accumulates of the ordinary net that it is, and gives its bits.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from bantam.nets.fold import scale_and_shift
from bantam.nets.output import Output, StagedNet
from bantam.nets.pruned import Widths, channels_of

SANDWICH = 3
"""How many switches learn in one step: the first, the last, and one between them."""

TINY = 1e-12
"""Stands for a scale of 0 in the first switch's BatchNorm, by which the others' are divided."""


class Switch(NamedTuple):
    """A share in 0..1 of each layer's channels, and the side of the net's input in pixels."""

    width: float
    size: int


def switches_from(values: Any, size: int) -> tuple[Switch, ...]:
    """Read [width, size] pairs; the first has all channels at `size` pixels. Raises ValueError for anything else."""
    switches = tuple(Switch(float(width), side) for width, side in values)
    for switch in switches:
        if not 0 < switch.width <= 1 or type(switch.size) is not int or not 1 <= switch.size <= size:
            raise ValueError(f"no switch can be {[*switch]}")
    if switches and (switches[0] != (1.0, size) or len(set(switches)) < len(switches)):
        raise ValueError(f"the switches must differ, and begin with {[1.0, size]}")
    return switches


def part_of(channels: int, width: float) -> int:
    """How many of a layer's `channels` a switch of this width uses: at least one."""
    return max(1, round(width * channels))


def further_parameters(norms: Iterable[int], switches: Sequence[Switch]) -> int:
    """Count what the switches after the first ship: a scale and a bias for each channel, of `norms` at full width."""
    return sum(2 * part_of(channels, switch.width) for channels in norms for switch in switches[1:])


class SharedConv(nn.Module):
    """A convolution of which each switch uses the first outputs, of as many inputs as it is given."""

    def __init__(self, conv: nn.Conv2d, outputs: Sequence[int]) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self.stride, self.padding, self.depthwise = conv.stride, conv.padding, conv.groups > 1
        self.outputs = tuple(outputs)
        self.at = 0

    def used(self, inputs: int) -> tuple[Tensor, Tensor | None]:
        """Weight [O, I, k, k] and bias [O] of the switch that is on."""
        weight = self.weight[: self.outputs[self.at]]
        return (weight if self.depthwise else weight[:, :inputs]), self.bias

    def forward(self, maps: Tensor) -> Tensor:
        """Map [N, inputs, H, W] to [N, outputs, h, w]."""
        inputs = maps.shape[1]
        weight, bias = self.used(inputs)
        groups = inputs if self.depthwise else 1
        return functional.conv2d(maps, weight, bias, self.stride, self.padding, groups=groups)


class OwnNorms(nn.Module):
    """One BatchNorm for each switch; the first is that of the net as it was built."""

    def __init__(self, norm: nn.BatchNorm2d, outputs: Sequence[int]) -> None:
        super().__init__()
        device = norm.weight.device
        others = (nn.BatchNorm2d(channels, norm.eps, norm.momentum, device=device) for channels in outputs[1:])
        self.norms = nn.ModuleList([norm, *others])
        self.at = 0

    def forward(self, maps: Tensor) -> Tensor:
        """Map [N, C, H, W] to the same shape."""
        return self.norms[self.at](maps)


class FoldedConv(SharedConv):
    """A shared convolution with all its BatchNorms folded in: the first into `weight` and `bias`, the others beside."""

    def __init__(self, conv: SharedConv, norms: OwnNorms) -> None:
        nn.Module.__init__(self)
        self.stride, self.padding, self.depthwise = conv.stride, conv.padding, conv.depthwise
        self.outputs, self.at = conv.outputs, 0
        (scale, shift), *others = (scale_and_shift(norm) for norm in norms.norms if isinstance(norm, nn.BatchNorm2d))
        # In float64, so that the only rounding is that of the result; the quotients keep their relative precision.
        scale = torch.where(scale.abs() < TINY, TINY, scale)
        kind = conv.weight.dtype
        self.weight = nn.Parameter((conv.weight.double() * scale[:, None, None, None]).to(kind))
        self.bias = nn.Parameter(shift.to(kind))
        self.scales = nn.ParameterList(nn.Parameter((own / scale[: len(own)]).to(kind)) for own, _ in others)
        self.biases = nn.ParameterList(nn.Parameter(own.to(kind)) for _, own in others)

    def used(self, inputs: int) -> tuple[Tensor, Tensor | None]:
        weight, bias = super().used(inputs)
        if self.at == 0:
            return weight, bias
        return weight * self.scales[self.at - 1][:, None, None, None], self.biases[self.at - 1]


class SharedLinear(nn.Module):
    """The classifier, which uses the weights of as many inputs as it is given."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias, self.in_features = linear.weight, linear.bias, linear.in_features

    def forward(self, embedding: Tensor) -> Tensor:
        """Map [N, D] to logits [N, K]."""
        return functional.linear(embedding, self.weight[:, : embedding.shape[1]], self.bias)


class SwitchableNet(StagedNet):
    """A net with several switches. Alone it is its first switch, all channels: a plain net for every tool.

    Made of the parts of `net`, a chain of convolutions with a BatchNorm each, perhaps with sums around some of them.
    """

    def __init__(self, net: StagedNet, switches: Sequence[Switch]) -> None:
        nn.Module.__init__(self)  # the parts are those of `net`: StagedNet would draw new ones
        self.stages, self.head = net.stages, SharedLinear(net.head)
        self.switches = tuple(switches)
        self.at = 0
        for module in list(self.stages.modules()):
            for name, layer in module.named_children():
                if isinstance(layer, nn.Conv2d):
                    setattr(module, name, SharedConv(layer, self.parts_of(layer.out_channels)))
                elif isinstance(layer, nn.BatchNorm2d):
                    setattr(module, name, OwnNorms(layer, self.parts_of(layer.num_features)))

    def parts_of(self, channels: int) -> list[int]:
        return [part_of(channels, switch.width) for switch in self.switches]

    @property
    def takes_turns(self) -> bool:
        """Whether not all switches learn in every step."""
        return len(self.switches) > SANDWICH

    def observe(self, images: Tensor) -> Output:
        """As every net; a switch of a lower resolution brings the images [N, 3, H, W] to it first."""
        size = self.switches[self.at].size
        if self.at and images.shape[2:] != (size, size):
            images = functional.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=True)
        return super().observe(images)

    @contextmanager
    def using(self, number: int) -> Iterator["SwitchableNet"]:
        """Within it the net is its switch of this number."""
        self.turn_to(number)
        try:
            yield self
        finally:
            self.turn_to(0)

    def turn_to(self, number: int) -> None:
        for module in self.modules():
            if isinstance(module, SwitchableNet | SharedConv | OwnNorms):
                module.at = number

    def sandwich(self, images: Tensor, step: int) -> list[Output]:
        """What the switches show that learn in step `step`, the first one first: the sandwich rule.

        Yu and Huang, "Universally Slimmable Networks", ICCV 2019, arXiv:1903.05134: the largest and the smallest learn
        in every step. One of those between goes with them, each in turn, so that no random number is needed.
        """
        last = len(self.switches) - 1
        chosen = range(last + 1) if not self.takes_turns else (0, 1 + step % (last - 1), last)
        shown: list[Output] = []
        for number in chosen:
            with self.using(number):
                shown.append(self.observe(images))
        return shown


def each_switch(net: nn.Module) -> Iterator[None]:
    """Once for each switch of `net`, which is on meanwhile; once for a net without switches."""
    if not isinstance(net, SwitchableNet):
        yield
        return
    for number in range(len(net.switches)):
        with net.using(number):
            yield


def deploy(net: SwitchableNet) -> SwitchableNet:
    """Return `net` folded, as a new net in eval mode that gives the same logits at every switch to 1e-4."""
    deployed = copy.deepcopy(net).eval()
    with torch.no_grad():
        for module in list(deployed.modules()):
            if not isinstance(module, nn.Sequential):
                continue
            # From the end, because a deletion moves the places behind it.
            for place in reversed(range(len(module) - 1)):
                conv, norms = module[place], module[place + 1]
                if isinstance(conv, SharedConv) and isinstance(norms, OwnNorms):
                    module[place] = FoldedConv(conv, norms)
                    del module[place + 1]
    return deployed


@torch.no_grad()
def extract(net: SwitchableNet, number: int, into: StagedNet) -> StagedNet:
    """Fill `into`, the ordinary net that is the switch `number` of `net`, both in the form that ships; gives it."""
    with net.using(number):
        for path, layer in net.named_modules():
            if not isinstance(layer, SharedConv | SharedLinear):
                continue
            theirs = into.get_submodule(path)
            if isinstance(theirs, nn.Linear) and isinstance(layer, SharedLinear):
                theirs.weight.copy_(layer.weight[:, : theirs.in_features])
                theirs.bias.copy_(layer.bias)
            elif isinstance(theirs, nn.Conv2d) and isinstance(layer, SharedConv):
                weight, bias = layer.used(theirs.in_channels)
                theirs.weight.copy_(weight)
                theirs.bias = None if bias is None else nn.Parameter(bias.clone())
    return into.eval()


def narrowed_to(net: StagedNet, width: float) -> Widths:
    """The channels of each layer of the ordinary `net` at this width, as `bantam.nets.pruned` has them."""
    layers = {path: found for path, layer in net.named_modules() if (found := channels_of(layer))}
    stem, head = next(iter(layers)), next(reversed(layers))
    return {
        path: [
            outputs if path == head else part_of(outputs, width),
            inputs if path == stem else part_of(inputs, width),
        ]
        for path, (outputs, inputs) in layers.items()
    }
