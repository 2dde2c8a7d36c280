"""The building blocks that families share, each beside the formula of its parameters.

The formulas count the shipped form of a block (see `bantam.nets.fold`): a convolution and the BatchNorm
behind it are one convolution with a bias. They let `fit` try hundreds of shapes in milliseconds; tests compare
them with the built and deployed modules.
"""

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional


def conv_bn(
    inputs: int,
    outputs: int,
    kernel: int = 3,
    stride: int = 1,
    groups: int = 1,
    activation: Callable[..., nn.Module] | None = nn.ReLU,
    dilation: int = 1,
) -> nn.Sequential:
    """Convolution without bias, batch normalisation (Ioffe and Szegedy, 2015) and an activation, or None.

    Maps [N, inputs, H, W] to [N, outputs, ceil(H / stride), ceil(W / stride)] for odd kernels.
    """
    padding = dilation * (kernel // 2)
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    if activation:
        layers.append(activation(inplace=True))
    return nn.Sequential(*layers)


def conv_bn_parameters(inputs: int, outputs: int, kernel: int = 3, groups: int = 1) -> int:
    """Count the parameters that `conv_bn` ships: I * O * k * k / groups weights, and a bias per output."""
    return inputs * outputs * kernel * kernel // groups + outputs


class ParallelConv(nn.Module):
    """Adds up parallel conv-BN branches, which `deploy` folds into one convolution with the widest kernel.

    Ding et al., "RepVGG: Making VGG-style ConvNets Great Again", CVPR 2021, arXiv:2101.03697: branches of their
    own BatchNorm train better than the one convolution they amount to. `kernels` are odd, one per branch;
    `identity` adds a branch of BatchNorm alone, which needs as many outputs as inputs and stride 1. Ships
    `conv_bn_parameters` of the widest kernel.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernels: Sequence[int],
        stride: int = 1,
        groups: int = 1,
        identity: bool = False,
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            conv_bn(inputs, outputs, kernel, stride, groups, activation=None) for kernel in kernels
        )
        if identity:
            self.branches.append(nn.BatchNorm2d(outputs))

    def forward(self, maps: Tensor) -> Tensor:
        """Map [N, inputs, H, W] to [N, outputs, ceil(H / stride), ceil(W / stride)]."""
        first, *others = self.branches
        total = first(maps)
        for branch in others:
            total = total + branch(maps)
        return total


def adds_nothing(branch: nn.Module) -> bool:
    """Whether every BatchNorm in this branch of a ParallelConv has the scale 0, as `unfold` brings it back."""
    return not any(layer.weight.any() for layer in branch.modules() if isinstance(layer, nn.BatchNorm2d))


def depthwise_separable(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Depthwise k x k, then pointwise 1 x 1 convolution, each with BN and ReLU (Howard et al., 2017).

    Maps [N, inputs, H, W] to [N, outputs, ceil(H / stride), ceil(W / stride)] for odd kernels.
    """
    return nn.Sequential(
        conv_bn(inputs, inputs, kernel, stride, groups=inputs),
        conv_bn(inputs, outputs, kernel=1),
    )


def depthwise_separable_parameters(inputs: int, outputs: int, kernel: int = 3) -> int:
    """Count the parameters that are shipped: I * k * k + I * O weights instead of I * O * k * k, and biases."""
    return conv_bn_parameters(inputs, inputs, kernel, groups=inputs) + conv_bn_parameters(inputs, outputs, 1)


def transition(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    """Return the layers that bring [N, inputs, H, W] to [N, outputs, ceil(H / stride), ceil(W / stride)].

    They are a depthwise 3 x 3 and a pointwise convolution with BN; none where the shape stays as it is.
    """
    if stride == 1 and inputs == outputs:
        return []
    return [
        nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
    ]


def transition_parameters(inputs: int, outputs: int, stride: int) -> int:
    """Count the parameters that `transition` ships."""
    if stride == 1 and inputs == outputs:
        return 0
    return 9 * inputs + conv_bn_parameters(inputs, outputs, 1)


def linear_parameters(inputs: int, outputs: int) -> int:
    """Count the parameters of a linear layer with a bias."""
    return (inputs + 1) * outputs


class Residual(nn.Module):
    """Adds its input to what `layers` make of it (He et al., "Deep Residual Learning", 2016)."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, maps: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, C, H, W]."""
        return maps + self.layers(maps)


RESIDUAL_SCALE = 0.2
"""BatchNorm's scale at the end of a residual branch of a fresh net, where a family asks for it."""


def start_near_identity(end: nn.Module) -> None:
    """Set the scale of each BatchNorm in `end`, the end of a residual branch, to RESIDUAL_SCALE.

    A young deep net learns faster where its blocks are nearly the identity (Goyal et al., 2017, arXiv:1706.02677,
    who start at 0); a scale above 0 leaves every parameter of the branch a gradient from the first step.
    """
    for layer in end.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.constant_(layer.weight, RESIDUAL_SCALE)


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate in 0..1 that is computed from the means of all channels.

    Hu et al., "Squeeze-and-Excitation Networks", 2018, arXiv:1709.01507, with the hard sigmoid of MobileNetV3.
    The hidden layer has hard-swish instead of ReLU, because among a handful of units a dead one is a loss.
    """

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.excite = nn.Conv2d(squeezed, channels, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Map [N, channels, H, W] to the same shape."""
        means = maps.mean((2, 3), keepdim=True)  # [N, C, H, W] -> [N, C, 1, 1]
        return maps * functional.hardsigmoid(self.excite(functional.hardswish(self.squeeze(means))))


def squeeze_excite_parameters(channels: int, squeezed: int) -> int:
    """Count the parameters of `SqueezeExcite`: two layers with biases."""
    return 2 * channels * squeezed + squeezed + channels


def channel_shuffle(maps: Tensor, groups: int) -> Tensor:
    """Deal the channels of each group out to all groups (Zhang et al., ShuffleNet, 2018, arXiv:1707.01083).

    With n channels in a group, channel g * n + i of [N, C, H, W] becomes channel i * groups + g.
    """
    last = maps.permute(0, 2, 3, 1).unflatten(-1, (groups, -1))  # [N, C, H, W] -> [N, H, W, groups, n]
    # Channels stay last in memory, as the convolutions around want them.
    return last.transpose(-1, -2).flatten(-2).permute(0, 3, 1, 2)  # [N, H, W, n, groups] -> [N, C, H, W]


def inverted_residual(
    inputs: int,
    expanded: int,
    outputs: int,
    kernel: int = 3,
    stride: int = 1,
    squeezed: int = 0,
    activation: Callable[..., nn.Module] = nn.ReLU6,
) -> nn.Module:
    """Pointwise expansion, depthwise k x k, pointwise projection without activation (Sandler et al., 2018).

    The expansion is left out where `expanded` equals `inputs`, and the input is added where the shapes agree.
    `squeezed` is the hidden width of a SqueezeExcite before the projection (Howard et al., 2019), 0 for none.
    Maps [N, inputs, H, W] to [N, outputs, ceil(H / stride), ceil(W / stride)] for odd kernels.
    """
    layers: list[nn.Module] = []
    if expanded != inputs:
        layers.append(conv_bn(inputs, expanded, kernel=1, activation=activation))
    layers.append(conv_bn(expanded, expanded, kernel, stride, groups=expanded, activation=activation))
    if squeezed:
        layers.append(SqueezeExcite(expanded, squeezed))
    layers.append(conv_bn(expanded, outputs, kernel=1, activation=None))
    block = nn.Sequential(*layers)
    return Residual(block) if stride == 1 and inputs == outputs else block


def inverted_residual_parameters(inputs: int, expanded: int, outputs: int, kernel: int = 3, squeezed: int = 0) -> int:
    """Count the parameters that `inverted_residual` ships."""
    expansion = conv_bn_parameters(inputs, expanded, 1) if expanded != inputs else 0
    gate = squeeze_excite_parameters(expanded, squeezed) if squeezed else 0
    depthwise = conv_bn_parameters(expanded, expanded, kernel, groups=expanded)
    return expansion + depthwise + gate + conv_bn_parameters(expanded, outputs, 1)
