"""Early exits: classifiers after inner stages, so that an easy image need not go through the whole net.

Teerapittayanon, McDanel and Kung, "BranchyNet: Fast Inference via Early Exiting from Deep Neural Networks", ICPR 2016,
arXiv:1709.01686: an image leaves at the first exit that is sure of it. Here it is sure where its largest probability
reaches a threshold, as in Huang et al., "Multi-Scale Dense Networks", ICLR 2018, arXiv:1703.09844, and the exits are
taught as in Zhang et al., "Be Your Own Teacher", ICCV 2019, arXiv:1905.08094 (`bantam.objectives.self_distillation`).

Every student is stages, global average pooling and a head, so every student can have exits. They are part of the net:
what is weighed and shipped has their parameters, and an image pays for every exit that it passes.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from bantam.errors import BadRecipe
from bantam.nets.blocks import conv_bn
from bantam.nets.footprint import footprint
from bantam.nets.output import Output, StagedNet

SIDE = 4
"""Larger maps are averaged to this side before an exit looks at them. There a 3 x 3 kernel sees most of the image, and
a convolution costs a hundredth of the net."""

WIDTH = 64
"""Channels of an exit's last convolution: by the means of its own few channels an early stage hardly tells the classes
apart."""


class Exit(nn.Module):
    """A small classifier on one stage's maps: depthwise 3 x 3, pointwise, pooling, linear.

    Maps [N, channels, h, w] to logits [N, classes].
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.side = SIDE
        self.layers = nn.Sequential(
            conv_bn(channels, channels, groups=channels, activation=None),
            conv_bn(channels, WIDTH, kernel=1, activation=nn.Hardswish),
        )
        self.head = nn.Linear(WIDTH, classes)

    def forward(self, maps: Tensor) -> Tensor:
        if maps.shape[-1] > self.side:
            maps = functional.adaptive_avg_pool2d(maps, self.side)  # [N, C, h, w] -> [N, C, side, side]
        return self.head(self.layers(maps).mean((2, 3)))  # [N, WIDTH, h, w] -> [N, K]


class EarlyExitNet(StagedNet):
    """A StagedNet with an exit after some of its stages; `after` has their numbers, from 1 on, in order.

    As a net it goes the whole way and gives the last logits; `observe` shows those of every exit as well, and `leave`
    lets each image go as soon as an exit is sure of it.
    """

    def __init__(
        self, stages: nn.Sequential, head: nn.Linear, exits: Sequence[nn.Module], after: tuple[int, ...]
    ) -> None:
        nn.Module.__init__(self)  # the stages and the head are there already
        self.stages = stages
        self.head = head
        self.exits = nn.ModuleList(exits)
        self.after = after

    def observe(self, images: Tensor) -> Output:
        """Map normalised images [N, 3, H, W] to logits, embedding, one feature map per stage, and the exits' logits."""
        seen = super().observe(images)
        exits = [leave(seen.features[number - 1]) for leave, number in zip(self.exits, self.after, strict=True)]
        return seen._replace(exits=tuple(exits))

    def forward(self, images: Tensor) -> Tensor:
        """Map normalised images [N, 3, H, W] to the last logits [N, K]; no exit is computed."""
        maps = self.stages(images)  # [N, 3, H, W] -> [N, C, h, w]
        return self.head(maps.mean((2, 3)))  # [N, C, h, w] -> [N, C] -> [N, K]

    def leave(self, images: Tensor, thresholds: Sequence[float]) -> tuple[Tensor, Tensor]:
        """Map normalised images [N, 3, H, W] to logits [N, K] and the place int64 [N] where each image left.

        Place p is exit p, from 0 on, and len(exits) the end. An image leaves at the first exit whose largest
        probability is at least that exit's threshold; only the others go on.
        """
        left = torch.full((len(images),), len(self.exits), device=images.device)
        logits = images.new_zeros(len(images), self.head.out_features)
        going = torch.arange(len(images), device=images.device)
        maps = images
        for number, stage in enumerate(self.stages, 1):
            maps = stage(maps)
            if number in self.after:
                place = self.after.index(number)
                said: Tensor = self.exits[place](maps)
                sure = confidence(said) >= thresholds[place]
                logits[going[sure]], left[going[sure]] = said[sure].to(logits.dtype), place
                going, maps = going[~sure], maps[~sure]
                if not len(going):
                    return logits, left
        logits[going] = self.head(maps.mean((2, 3))).to(logits.dtype)
        return logits, left


def confidence(logits: Tensor) -> Tensor:
    """The largest probability of each image: [N, K] to float32 [N]."""
    return logits.float().softmax(1).amax(1)


def with_exits(net: StagedNet, after: Sequence[int], size: int) -> EarlyExitNet:
    """The modules of `net` with fresh exits after the stages `after`, for inputs of `size` x `size` pixels.

    Raises BadRecipe for stages that are not there, not in order, or the last one, after which the net ends anyway.
    """
    last = len(net.stages)
    if not after or list(after) != sorted({number for number in after if 0 < number < last}):
        raise BadRecipe(
            f"after = {list(after)} must name stages of the net in order, from 1 to {last - 1}: it has {last}, and the "
            "last one has its classifier"
        )
    # On the meta device a pass computes shapes alone.
    shapes = copy.deepcopy(net).to("meta").eval()
    features = shapes.observe(torch.zeros(1, 3, size, size, device="meta")).features
    exits = [Exit(features[number - 1].shape[1], net.head.out_features) for number in after]
    return EarlyExitNet(net.stages, net.head, exits, tuple(after))


def without_exits(net: StagedNet) -> StagedNet:
    """The same net without exits, of the same modules, for whoever always goes the whole way; others as they are."""
    if not isinstance(net, EarlyExitNet):
        return net
    with torch.device("meta"):  # the classifier made here is replaced at once
        plain = StagedNet(list(net.stages), net.head.in_features, net.head.out_features)
    plain.head = net.head
    return plain.train(net.training)


class Path(nn.Module):
    """What an image computes that leaves at exit `place`, from 0 on: the exits before it included."""

    def __init__(self, net: EarlyExitNet, place: int) -> None:
        super().__init__()
        self.net = net
        self.thresholds = [0.0 if number == place else float("inf") for number in range(len(net.exits))]

    def forward(self, images: Tensor) -> Tensor:
        return self.net.leave(images, self.thresholds)[0]


def macs_of_exits(net: EarlyExitNet, size: int) -> tuple[int, ...]:
    """The multiply-accumulates of one image of `size` px that leaves at each exit, and of one that goes to the end."""
    return tuple(footprint(Path(net, place), size).macs for place in range(len(net.exits) + 1))


def macs_alone(net: EarlyExitNet, size: int) -> tuple[int, ...]:
    """The multiply-accumulates of the static nets that end at each exit and at the end, without the exits before."""
    cut = [
        EarlyExitNet(net.stages, net.head, [leave], (number,))
        for leave, number in zip(net.exits, net.after, strict=True)
    ]
    return (*(footprint(Path(one, 0), size).macs for one in cut), footprint(net, size).macs)
