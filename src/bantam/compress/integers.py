"""Quantized students: every convolution and linear layer computes with the numbers that the integers stand for.

A layer's input is uint8 with one scale and zero point, its weight a signed integer with one scale per output channel,
its bias int32 with the product of the two, so that it is added to the sums as they are. In PyTorch all three are
simulated: rounded to the grid and back, with the gradient of the identity inside the grid's range
(Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR
2018, arXiv:1712.05877). So one module serves post-training quantization, quantization-aware training, and, without the
input's grid, weights of 4 bits for size. `bantam.compress.qdq` writes the same arithmetic as ONNX.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bantam.data.augment import plain
from bantam.data.splits import LabelledSplit, Normalisation, require_labelled
from bantam.errors import BadData
from bantam.nets.fold import deploy
from bantam.nets.output import StagedNet

ACTIVATION_TOP = 255
"""The largest value of an input's grid, uint8."""

CLIPS = torch.linspace(1.0, 0.4, 25)
"""Shares of the largest value at which a grid may end; the one with the least squared error is taken."""

SAMPLED = 16_384
"""Values of each layer's input from which its range is chosen."""

CALIBRATION = 512
"""Training images: on half of them ranges are measured, on the other half the ways to do it are compared."""


@dataclass(frozen=True)
class Precision:
    """How many bits: `dense` for the weights of pointwise, full and linear layers, `light` for the few of depthwise
    convolutions and of the layer that sees the image; `inputs` says whether the inputs of all layers are uint8."""

    dense: int
    light: int
    inputs: bool


INT8 = Precision(dense=8, light=8, inputs=True)
INT4 = Precision(dense=4, light=8, inputs=False)


class QuantizedLayer(nn.Module):
    """A convolution or linear layer on integer grids, simulated in float32.

    `weight_scale` [O] is the step of each output channel's weights; `input_scale` and `input_zero` are the step and the
    zero point of the input's grid 0..255, and input_scale is 0 where the input is not quantized.
    """

    weight_scale: Tensor
    input_scale: Tensor
    input_zero: Tensor
    zeros: Tensor

    def __init__(self, layer: nn.Conv2d | nn.Linear, bits: int) -> None:
        super().__init__()
        self.layer, self.bits = layer, bits
        self.top = 2 ** (bits - 1) - 1
        self.register_buffer("weight_scale", weight_scales(layer.weight.detach(), self.top))
        self.register_buffer("input_scale", torch.zeros(()))
        self.register_buffer("input_zero", torch.zeros((), dtype=torch.int32))
        self.register_buffer("zeros", torch.zeros(len(layer.weight), dtype=torch.int32), persistent=False)
        self.quantizes_input = False

    @property
    def in_channels(self) -> int:
        """Of a convolution, for nets that ask a layer how much it takes."""
        assert isinstance(self.layer, nn.Conv2d)
        return self.layer.in_channels

    def weight(self) -> Tensor:
        """The weight as the integers have it, float32, with the straight-through gradient."""
        return torch.fake_quantize_per_channel_affine(
            self.layer.weight.float(), self.weight_scale, self.zeros, 0, -self.top, self.top
        )

    def integers(self) -> Tensor:
        """The weight's integers, int8, in -top..top."""
        steps = self.layer.weight.detach() / along(self.weight_scale, self.layer.weight)
        return steps.round().clamp(-self.top, self.top).to(torch.int8)

    def bias_scale(self) -> Tensor:
        """The step [O] of the bias: that of the sums of products of input and weight, float32."""
        return (self.input_scale.double() * self.weight_scale.double()).float()

    def bias_integers(self, bias: Tensor) -> Tensor:
        """The integers, int32 [O], of a bias [O] of this layer."""
        limit = torch.iinfo(torch.int32).max
        steps = bias.detach().double() / self.bias_scale().double()
        return steps.round().clamp(-limit, limit).to(torch.int32)

    def bias(self) -> Tensor | None:
        """The bias as its integers have it, float32 [O], with the straight-through gradient; as it is without them."""
        bias = self.layer.bias
        if bias is None or not self.quantizes_input:
            return bias
        rounded = (self.bias_integers(bias).double() * self.bias_scale().double()).float()
        return rounded + (bias - bias.detach())

    def set_input(self, low: float, high: float) -> None:
        """Lay the input's grid over low..high, which is widened to hold 0."""
        low, high = min(low, 0.0), max(high, 0.0, 1e-8)
        scale = (high - low) / ACTIVATION_TOP
        self.input_scale.fill_(scale)
        self.input_zero.fill_(round(-low / scale))
        self.quantizes_input = True

    def forward(self, inputs: Tensor) -> Tensor:
        """Map [N, I, H, W] or [N, I] as the layer does."""
        if self.quantizes_input:
            inputs = torch.fake_quantize_per_tensor_affine(
                inputs.float(), self.input_scale, self.input_zero, 0, ACTIVATION_TOP
            )
        if isinstance(self.layer, nn.Linear):
            return nn.functional.linear(inputs, self.weight(), self.bias())
        return self.layer._conv_forward(inputs, self.weight(), self.bias())


def along(scale: Tensor, weight: Tensor) -> Tensor:
    """[O] as [O, 1, ...], to be multiplied with `weight`."""
    return scale.reshape(-1, *[1] * (weight.ndim - 1))


def weight_scales(weight: Tensor, top: int) -> Tensor:
    """The step [O] of each output channel's grid -top..top with the least squared error among CLIPS."""
    flat = weight.flatten(1)  # [O, I * k * k]
    largest = flat.abs().amax(1).clamp_min(1e-8)  # [O]
    scales = largest * CLIPS[:, None].to(flat) / top  # [clips, O]
    grid = (flat / scales[..., None]).round().clamp(-top, top) * scales[..., None]  # [clips, O, I * k * k]
    best = (grid - flat).square().sum(2).argmin(0)  # [O]
    return scales.gather(0, best[None])[0]


def quantized(net: StagedNet, precision: Precision) -> StagedNet:
    """A copy of `net`, folded, with QuantizedLayers for convolutions and linear layers; inputs have no grid yet."""
    copied = deploy(net)
    first = next(module for module in copied.modules() if isinstance(module, nn.Conv2d | nn.Linear))

    def replace(module: nn.Module) -> None:
        for name, child in module.named_children():
            if isinstance(child, nn.Conv2d | nn.Linear):
                depthwise = isinstance(child, nn.Conv2d) and child.groups == child.in_channels > 1
                light = depthwise or child is first
                setattr(module, name, QuantizedLayer(child, precision.light if light else precision.dense))
            else:
                replace(child)

    replace(copied)
    return copied


def layers_of(net: nn.Module) -> dict[str, QuantizedLayer]:
    """The quantized layers of `net` by name."""
    return {name: module for name, module in net.named_modules() if isinstance(module, QuantizedLayer)}


def unquantized(net: StagedNet) -> StagedNet:
    """A copy of a quantized net as a plain one again, with the weights and biases that the integers stand for."""
    copied = copy.deepcopy(net).eval()

    def replace(module: nn.Module) -> None:
        for name, child in module.named_children():
            if isinstance(child, QuantizedLayer):
                weight, bias = child.weight().detach(), child.bias()
                child.layer.weight = nn.Parameter(weight)
                if bias is not None:
                    child.layer.bias = nn.Parameter(bias.detach())
                setattr(module, name, child.layer)
            else:
                replace(child)

    replace(copied)
    return copied


def calibration_batches(
    training: LabelledSplit, size: int, normalisation: Normalisation, images: int = CALIBRATION
) -> list[Tensor]:
    """`images` training images, spread evenly over the split, as normalised batches [B, 3, size, size].

    Raises SplitLeak for anything but a labelled split, and BadData for one without images.
    """
    split = require_labelled(training, "the calibration of a quantized net")
    if not len(split):
        raise BadData("there are no training images to calibrate on; give --data a folder with a training split")
    chosen = torch.linspace(0, len(split) - 1, min(images, len(split))).long()  # [images]
    mean, std = normalisation.mean, normalisation.std
    return [plain(split.images[index], size, mean, std) for index in chosen.split(64)]


@torch.no_grad()
def post_training(net: StagedNet, precision: Precision, batches: Sequence[Tensor]) -> tuple[StagedNet, str]:
    """`net` quantized without training, and how: the way whose answers are nearest to those of `net`.

    `batches` are normalised training images [B, 3, S, S]: on every other one ranges and biases are found, on the rest
    the ways are compared by the mean KL divergence of the quantized net's probabilities from those of `net`.
    """
    fitted, held = list(batches[::2]), list(batches[1::2]) or list(batches)
    plain = deploy(net)
    wanted = [plain(batch).double().log_softmax(1) for batch in held]
    found: dict[str, tuple[float, StagedNet]] = {}
    for ends, clips in (("least squared error", CLIPS), ("largest value", CLIPS[:1])):
        if len(clips) == 1 and not precision.inputs:
            continue
        for corrected in (False, True):
            student = quantized(net, precision)
            if precision.inputs:
                calibrate(student, fitted, clips)
            if corrected:
                correct_biases(student, net, torch.cat(fitted))
            far = [
                nn.functional.kl_div(
                    student(batch).double().log_softmax(1), told, reduction="batchmean", log_target=True
                )
                for batch, told in zip(held, wanted, strict=True)
            ]
            way = f"ranges by {ends}, biases {'corrected' if corrected else 'as they were'}"
            found[way] = float(torch.stack(far).mean()), student
    way = min(found, key=lambda name: found[name][0])
    return found[way][1], way


@torch.no_grad()
def calibrate(net: StagedNet, batches: Sequence[Tensor], clips: Tensor = CLIPS) -> None:
    """Give every quantized layer of `net` the input range of least squared error on `batches` of [B, 3, S, S].

    The batches are normalised training images; while they pass, no input is quantized. `clips` are the shares of the
    whole range that are tried; 1 alone takes the smallest and the largest value.
    """
    layers = layers_of(net)
    seen: dict[str, list[Tensor]] = {name: [] for name in layers}

    def noting(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def note(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            values = inputs[0].flatten()
            share = max(1, len(values) * len(batches) // SAMPLED)
            seen[name].append(torch.cat((values[::share], values.amin()[None], values.amax()[None])))

        return note

    handles = [layer.register_forward_pre_hook(noting(name)) for name, layer in layers.items()]
    for layer in layers.values():
        layer.quantizes_input = False
    net.eval()
    for batch in batches:
        net(batch)
    for handle in handles:
        handle.remove()
    for name, layer in layers.items():
        layer.set_input(*input_range(torch.cat(seen[name]), clips))


def input_range(values: Tensor, clips: Tensor) -> tuple[float, float]:
    """The range, whole times one of `clips`, whose grid of 256 steps has the least squared error on `values` [N]."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0, 1e-8)
    errors: list[Tensor] = []
    for clip in clips.tolist():
        scale = clip * (high - low) / ACTIVATION_TOP
        zero = round(-clip * low / scale)
        grid = torch.fake_quantize_per_tensor_affine(values, scale, zero, 0, ACTIVATION_TOP)
        errors.append((grid - values).square().sum())
    best = float(clips[int(torch.stack(errors).argmin())])
    return best * low, best * high


@torch.no_grad()
def correct_biases(net: StagedNet, reference: StagedNet, batch: Tensor) -> None:
    """Shift each layer's bias until the means of its outputs on `batch` [B, 3, S, S] are those of the plain net.

    Rounding has no mean of 0 over the few weights of a channel, so quantization moves the means; each layer is
    corrected with those before it corrected already. `reference` is the net that `quantized` was given.
    Source: Nagel et al., "Data-Free Quantization through Weight Equalization and Bias Correction", ICCV 2019,
    arXiv:1906.04721.
    """
    means: dict[str, Tensor] = {}
    folded, layers = deploy(reference), layers_of(net)

    def mean_of(output: Tensor) -> Tensor:
        return output.mean([place for place in range(output.ndim) if place != 1])  # [O]

    def noting(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def note(_layer: nn.Module, _inputs: object, output: Tensor) -> None:
            means.setdefault(name, mean_of(output))

        return note

    def correcting(name: str, bias: Tensor) -> Callable[[nn.Module, object, Tensor], Tensor | None]:
        def correct(_layer: nn.Module, _inputs: object, output: Tensor) -> Tensor | None:
            if name not in means:  # a shared layer's further calls
                return None
            moved = mean_of(output) - means.pop(name)
            bias.sub_(moved)
            return output - moved[None, :, None, None] if output.ndim == 4 else output - moved

        return correct

    modules = dict(folded.named_modules())
    handles = [modules[name].register_forward_hook(noting(name)) for name in layers]
    for name, layer in layers.items():
        if layer.layer.bias is not None:
            handles.append(layer.register_forward_hook(correcting(name, layer.layer.bias)))
    folded(batch)
    net.eval()(batch)
    for handle in handles:
        handle.remove()
