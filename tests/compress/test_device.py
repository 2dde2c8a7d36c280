import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from bantam.compress.device import DeviceStudent, Grid, Layer, confidence, pixels, to_bytes
from bantam.compress.integers import INT8, QuantizedLayer, layers_of, quantized
from bantam.data.splits import IMAGENET
from bantam.nets.device.operations import Operation
from bantam.nets.students import STUDENTS
from device_students import described, folded, images, in_bytes, steps_of


@pytest.mark.parametrize(
    ("value", "byte"), [(0.5, 10), (1.5, 12), (2.5, 12), (-0.5, 10), (-1.5, 8), (300.0, 255), (-300.0, 0), (0.0, 10)]
)
def test_a_byte_is_rounded_half_to_even_and_stays_in_its_range(value: float, byte: int):
    assert to_bytes(torch.tensor([value]), Grid(1.0, 10)).tolist() == [byte]


def test_a_grid_holds_zero_and_its_scale_is_a_float32():
    grid = Grid.over(0.5, 2.0)
    assert grid.zero == 0
    assert grid.scale == float(np.float32(2.0 / 255))
    assert Grid.over(-3.0, -1.0).zero == 255
    assert Grid.over(0.0, 0.0).scale > 0


def student_of(layer: Layer) -> DeviceStudent:
    steps = steps_of(described("mobilenet_v1"))
    return DeviceStudent(steps, (), {0: layer}, IMAGENET)


def plain_sums(read: Tensor, weight: Tensor, stride: int, padding: int, groups: int) -> Tensor:
    """A convolution of whole numbers, one product after another."""
    outputs, inputs, high, wide = weight.shape
    padded = functional.pad(read.long(), [padding] * 4)
    side = (padded.shape[2] - high) // stride + 1
    found = torch.zeros(len(read), outputs, side, side, dtype=torch.int64)
    for o in range(outputs):
        first = o // (outputs // groups) * inputs
        for y in range(side):
            for x in range(side):
                part = padded[:, first : first + inputs, y * stride : y * stride + high, x * stride : x * stride + wide]
                found[:, o, y, x] = (part * weight[o].long()).flatten(1).sum(1)
    return found


@pytest.mark.parametrize(("groups", "kernel", "stride"), [(1, 3, 2), (4, 3, 1), (2, 1, 1), (1, 1, 1)])
def test_sums_are_those_of_whole_numbers(groups: int, kernel: int, stride: int):
    draw = torch.Generator().manual_seed(0)
    weight = torch.randint(-127, 128, (4, 4 // groups, kernel, kernel), dtype=torch.int8, generator=draw)
    layer = Layer(weight, torch.rand(4, generator=draw) + 0.01, torch.randn(4, generator=draw))
    grid = Grid(0.02, 7)
    read = torch.randint(-7, 249, (2, 4, 5, 5), dtype=torch.int32, generator=draw)
    operation = Operation(
        0, "convolution", 4, 5, 5, groups=groups, stride=(stride,) * 2, padding=(kernel // 2,) * 2, weight=weight
    )
    sums = plain_sums(read, weight, stride, kernel // 2, groups) + layer.bias_integers(grid)[:, None, None]
    scaled = sums.numpy().astype(np.float32) * layer.sum_scale(grid).numpy()[:, None, None]
    assert torch.equal(student_of(layer).sums(operation, grid, read), torch.from_numpy(scaled))


def test_sums_beyond_what_float32_adds_exactly_are_exact():
    weight = torch.full((1, 700, 1, 1), 127, dtype=torch.int8)
    layer = Layer(weight, torch.ones(1), torch.zeros(1))
    read = torch.full((1, 700, 1, 1), 255, dtype=torch.int32)
    read[0, -1] = 1  # an odd sum above 2 ** 24, which float32 would lose on its way
    operation = Operation(0, "convolution", 1, 1, 1, weight=weight)
    wanted = np.float32(699 * 255 * 127 + 127)
    assert float(student_of(layer).sums(operation, Grid(1.0, 0), read)) == float(wanted)


def test_a_layer_computes_what_the_simulated_int8_layer_does():
    net = quantized(folded(described("mobilenet_v1")), INT8)
    layer = next(one for name, one in layers_of(net).items() if name.startswith("stages.1"))
    assert isinstance(layer, QuantizedLayer)
    layer.set_input(-0.3, 2.0)
    grid = Grid(float(layer.input_scale), int(layer.input_zero))
    channels = layer.in_channels
    inputs = torch.randn(2, channels, 6, 6, generator=torch.Generator().manual_seed(0))
    read = to_bytes(inputs, grid).int() - grid.zero
    held = Layer(layer.integers(), layer.weight_scale, layer.layer.bias.detach())
    one = layer.layer
    operation = Operation(
        0, "convolution", channels, 6, 6, groups=one.groups, stride=one.stride, padding=one.padding, weight=one.weight
    )
    with torch.no_grad():
        wanted = layer(inputs)
    assert torch.allclose(student_of(held).sums(operation, grid, read), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", STUDENTS)
def test_a_student_in_bytes_answers_nearly_as_in_float32(family: str):
    student = described(family)
    shown = images(12, student.size)
    (found,) = in_bytes(family).answers(shown)
    with torch.no_grad():
        wanted = folded(student)(pixels(shown.permute(0, 3, 1, 2), IMAGENET))
    assert float((found - wanted).abs().max()) < 0.1 * float(wanted.abs().max())


def test_exits_are_asked_in_order_and_the_first_sure_one_answers():
    student = in_bytes("mobilenet_v1")
    answers = [torch.tensor([[9.0, 0.0], [0.1, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 9.0], [0.0, 9.0], [0.3, 0.0]])]
    answers.append(torch.full((3, 2), 5.0))
    scores, left = student.leave(answers, 0.9)
    assert left.tolist() == [0, 1, 2]
    assert torch.equal(scores, torch.stack((answers[0][0], answers[1][1], answers[2][2])))


def test_the_largest_probability_is_that_of_the_softmax():
    scores = torch.randn(64, 11, generator=torch.Generator().manual_seed(0)) * 20
    wanted = scores.double().softmax(1).amax(1)
    assert torch.allclose(confidence(scores).double(), wanted, rtol=1e-6)
