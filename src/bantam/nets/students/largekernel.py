"""Large kernels and gates: accuracy bought with compute, of which a budget of parameters asks nothing.

Three ideas, each cheap in parameters. A depthwise kernel of 7 x 7 sees half of a 16 x 16 map for 49 parameters
a channel; it trains beside a 3 x 3 one with its own BatchNorm, and both are one kernel when deployed (Ding et
al., "Scaling Up Your Kernels to 31x31", CVPR 2022, arXiv:2203.06717). Two pointwise branches multiplied element
by element give each block features of second order, which helps narrow nets most (Ma et al., "Rewrite the
Stars", CVPR 2024, arXiv:2403.19967); here the gate is hard-swish. And the map shrinks late, at nearly even
widths, so that most blocks work on maps of 16 x 16 and 8 x 8. Each of these can be taken back by a choice
(CHOICES), so that what it brings can be measured.
"""

from typing import Any

from torch import Tensor, nn

from bantam.nets.blocks import (
    ParallelConv,
    SqueezeExcite,
    conv_bn,
    conv_bn_parameters,
    linear_parameters,
    squeeze_excite_parameters,
    start_near_identity,
    transition,
    transition_parameters,
)
from bantam.nets.family import Family
from bantam.nets.fit import Shape, Widths, early_strides, fit_widths, late_strides
from bantam.nets.output import StagedNet

PAPER = "Ma et al., Rewrite the Stars, CVPR 2024, arXiv:2403.19967, with RepLKNet's kernels, CVPR 2022"

PROPORTIONS = (1.0, 1.5, 2.0, 2.75, 4.0)
"""Widths of the four stages and of the last pointwise convolution, as multiples of the first stage's."""

LAST_KERNEL = 5
"""Largest side of the last stage's depthwise kernels: on a map of 8 x 8, 5 reach nearly as far as 7."""

SQUEEZE = 4
"""How many times narrower the hidden layer of a SqueezeExcite is."""

GATES: dict[str, type[nn.Module]] = {"hardswish": nn.Hardswish, "relu": nn.ReLU, "sigmoid": nn.Hardsigmoid}

CHOICES: dict[str, tuple[Any, ...]] = {
    "kernel": (7, 3, 5, 9),
    "downsampling": ("late", "early"),
    "branches": (2, 1),
    "gate": ("hardswish", "relu", "sigmoid"),
    "squeeze_excite": (False, True),
    "head": ("wide", "none"),
}
"""What may be chosen besides the widths, the usual value first.

kernel: side of the depthwise kernels in pixels, at most LAST_KERNEL in the last stage. downsampling: whether the map
shrinks as late or as early as possible. branches: 2 for a training-only 3 x 3 beside each large kernel. gate: its
activation. squeeze_excite: whether channels are gated by their means as well. head: a wide pointwise convolution
before the pooling, or none.
"""


def fit(budget: int, classes: int, size: int, **choices: Any) -> Shape:
    """Return the shape that fills 99.5% to 100% of `budget` parameters, for `size` x `size` pixels.

    `choices` are of CHOICES. Raises BudgetExceeded if the smallest net is heavier than the budget.
    """
    chosen = {name: values[0] for name, values in CHOICES.items()} | choices
    blocks = _blocks(budget)
    strides = late_strides(size) if chosen["downsampling"] == "late" else early_strides(size)

    def shape(widths: Widths) -> Shape:
        return _shape(widths, blocks, strides, chosen)

    proportions = PROPORTIONS if chosen["head"] == "wide" else PROPORTIONS[:-1]
    return shape(fit_widths("largekernel", lambda widths: parameters(shape(widths), classes), proportions, budget))


def parameters(shape: Shape, classes: int) -> int:
    """Count the parameters that the net of `build` has when it is deployed."""
    width: int = shape["stem"]
    squeezed = shape.get("squeeze_excite", False)
    total = conv_bn_parameters(3, width)
    for outputs, blocks, kernel, stride in _stages(shape):
        total += transition_parameters(width, outputs, stride) + blocks * gated_parameters(outputs, kernel, squeezed)
        width = outputs
    if shape["last"]:
        total += conv_bn_parameters(width, shape["last"], 1)
    return total + linear_parameters(shape["last"] or width, classes)


def build(shape: Shape, classes: int) -> StagedNet:
    """Build the net as it trains, from `shape`.

    "stem" and "last" are the widths of the first and of the last convolution; "widths", "blocks" and "kernels"
    hold the channels, the number of blocks and the side of the depthwise kernels of each stage; "strides" are
    those of the stem and of each stage. "branches", "gate" and "squeeze_excite" are those of CHOICES, and may be
    missing; "last" is 0 for none.
    """
    options = {name: shape.get(name, CHOICES[name][0]) for name in ("branches", "gate", "squeeze_excite")}
    width: int = shape["stem"]
    stages: list[nn.Module] = []
    layers: list[nn.Module] = [conv_bn(3, width, stride=shape["strides"][0])]
    for outputs, blocks, kernel, stride in _stages(shape):
        layers += transition(width, outputs, stride)
        layers += [GatedBlock(outputs, kernel, **options) for _ in range(blocks)]
        width = outputs
        if shape["last"] and len(stages) == len(shape["widths"]) - 1:
            layers.append(conv_bn(width, shape["last"], kernel=1, activation=nn.Hardswish))
        stages.append(nn.Sequential(*layers))
        layers = []
    return StagedNet(stages, shape["last"] or width, classes)


class GatedBlock(nn.Module):
    """Large depthwise convolution, then the product of two pointwise ones, one of them a gate, as a residual.

    Maps [N, channels, H, W] to the same shape; inside it is as wide as outside.
    """

    def __init__(
        self, channels: int, kernel: int, branches: int = 2, gate: str = "hardswish", squeeze_excite: bool = False
    ) -> None:
        """`branches`, `gate` and `squeeze_excite` are those of CHOICES."""
        super().__init__()
        self.mix = ParallelConv(channels, channels, (kernel, 3)[:branches], groups=channels)
        self.gate = GATES[gate]()
        self.weigh = SqueezeExcite(channels, _squeezed(channels)) if squeeze_excite else nn.Identity()
        self.expand = nn.Conv2d(channels, 2 * channels, 1)
        self.project = conv_bn(channels, channels, kernel=1, activation=None)
        start_near_identity(self.project)

    def forward(self, maps: Tensor) -> Tensor:
        gate, value = self.expand(self.mix(maps)).chunk(2, 1)  # [N, C, H, W] -> 2 x [N, C, H, W]
        return maps + self.project(self.weigh(self.gate(gate) * value))


def gated_parameters(channels: int, kernel: int, squeeze_excite: bool = False) -> int:
    """Count the parameters that `GatedBlock` ships: C * k * k + 3 * C * C weights, and a bias per output."""
    mix = conv_bn_parameters(channels, channels, kernel, groups=channels)
    if squeeze_excite:
        mix += squeeze_excite_parameters(channels, _squeezed(channels))
    return mix + conv_bn_parameters(channels, 2 * channels, 1) + conv_bn_parameters(channels, channels, 1)


def _stages(shape: Shape) -> list[tuple[int, int, int, int]]:
    """List width, number of blocks, kernel and stride of each stage."""
    columns = (shape["widths"], shape["blocks"], shape["kernels"], shape["strides"][1:])
    return list(zip(*columns, strict=True))


def _blocks(budget: int) -> tuple[int, int, int, int]:
    """Return the number of blocks of each stage: a heavier net is also a deeper one."""
    if budget < 15_000:
        return 1, 1, 1, 1
    if budget < 150_000:
        return 1, 1, 2, 2
    return 1, 2, 4, 4


def _squeezed(channels: int) -> int:
    return max(1, channels // SQUEEZE)


def _shape(widths: Widths, blocks: tuple[int, ...], strides: list[int], chosen: dict[str, Any]) -> Shape:
    """Lay out the widths: the stem is as wide as the first stage, the last convolution has its own width."""
    kernel: int = chosen["kernel"]
    return {
        "stem": widths[0],
        "widths": list(widths[: len(blocks)]),
        "blocks": list(blocks),
        "kernels": [*[kernel] * (len(blocks) - 1), min(kernel, LAST_KERNEL)],
        "last": widths[-1] if chosen["head"] == "wide" else 0,
        "strides": strides,
        **{name: chosen[name] for name in ("branches", "gate", "squeeze_excite")},
    }


FAMILY = Family("largekernel", PAPER, fit, build, choices=CHOICES)
