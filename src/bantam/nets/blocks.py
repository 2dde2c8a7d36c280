"""The building blocks that families share, each beside the formula of its parameters.

The formulas let `fit` try hundreds of shapes in milliseconds; tests compare them with the built modules.
"""

from torch import nn


def conv_bn(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1, activation: bool = True
) -> nn.Sequential:
    """Convolution without bias, batch normalisation (Ioffe and Szegedy, 2015) and, unless left out, ReLU.

    Maps [N, inputs, H, W] to [N, outputs, ceil(H / stride), ceil(W / stride)] for odd kernels.
    """
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    if activation:
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def conv_bn_parameters(inputs: int, outputs: int, kernel: int = 3, groups: int = 1) -> int:
    """Count the parameters of `conv_bn`: I * O * k * k / groups weights, a scale and a shift per output."""
    return inputs * outputs * kernel * kernel // groups + 2 * outputs


def depthwise_separable(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Depthwise k x k, then pointwise 1 x 1 convolution, each with BN and ReLU (Howard et al., 2017).

    Maps [N, inputs, H, W] to [N, outputs, ceil(H / stride), ceil(W / stride)] for odd kernels.
    """
    return nn.Sequential(
        conv_bn(inputs, inputs, kernel, stride, groups=inputs),
        conv_bn(inputs, outputs, kernel=1),
    )


def depthwise_separable_parameters(inputs: int, outputs: int, kernel: int = 3) -> int:
    """Count the parameters of `depthwise_separable`: I * k * k + I * O weights instead of I * O * k * k."""
    return conv_bn_parameters(inputs, inputs, kernel, groups=inputs) + conv_bn_parameters(inputs, outputs, 1)


def linear_parameters(inputs: int, outputs: int) -> int:
    """Count the parameters of a linear layer with a bias."""
    return (inputs + 1) * outputs
