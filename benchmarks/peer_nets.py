"""The nets of two public solutions of the exercise, written anew from their description.

P1, depthwise ResNet, 59,790 parameters: 0.86654 / 0.85031 on the course's own images, fifth of 297.
P2, wide depthwise net, 58,939 parameters: 0.82687 / 0.81244 there.
Both look at 224 px.
"""

from collections.abc import Callable

from torch import Tensor, nn


def depthwise(inputs: int, outputs: int, kernel: int, stride: int, padding: int) -> nn.Sequential:
    """P1's layer: depthwise, then pointwise without anything between them, BN, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, kernel, stride, padding, groups=inputs, bias=False),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Block(nn.Module):
    """P1's residual block: one or two layers, a plain sum, and no ReLU after it."""

    def __init__(self, inputs: int, outputs: int, layers: int = 2) -> None:
        super().__init__()
        stride = 2 if inputs != outputs else 1
        body = [depthwise(inputs, outputs, 3, stride, 1)]
        if layers == 2:
            body.append(depthwise(outputs, outputs, 3, 1, 1))
        self.body = nn.Sequential(*body)
        self.shortcut = depthwise(inputs, outputs, 1, 2, 0) if stride == 2 else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        return self.body(maps) + self.shortcut(maps)


def depthwise_resnet(classes: int = 11) -> nn.Sequential:
    """P1: [N, 3, 224, 224] to logits [N, classes]."""
    return nn.Sequential(
        depthwise(3, 16, 7, 2, 3),  # [N, 16, 112, 112]
        nn.MaxPool2d(3, 2, 1),  # [N, 16, 56, 56]
        Block(16, 16),
        Block(16, 16),
        Block(16, 32),  # [N, 32, 28, 28]
        Block(32, 32, layers=1),
        Block(32, 32),
        Block(32, 64, layers=1),  # [N, 64, 14, 14]
        Block(64, 64),
        Block(64, 128, layers=1),  # [N, 128, 7, 7]
        Block(128, 128, layers=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, classes),
    )


def separable(inputs: int, outputs: int, stride: int = 2) -> nn.Sequential:
    """P2's layer: depthwise, BN, ReLU, pointwise, BN, ReLU, both convolutions with a bias."""
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs),
        nn.BatchNorm2d(inputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(inputs, outputs, 1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def wide(classes: int = 11) -> nn.Sequential:
    """P2: [N, 3, 224, 224] to logits [N, classes]."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),  # [N, 64, 112, 112]
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),  # [N, 64, 56, 56]
        separable(64, 64, stride=1),
        separable(64, 64),  # [N, 64, 28, 28]
        separable(64, 128),  # [N, 128, 14, 14]
        separable(128, 200),  # [N, 200, 7, 7]
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(200, classes),
    )


NETS: dict[str, Callable[[int], nn.Module]] = {"P1": depthwise_resnet, "P2": wide}
