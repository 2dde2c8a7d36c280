"""The grids and integers of a student for a small device, found on training images without training.

As `bantam.compress.integers.post_training` does it, on the steps and maps of `bantam.compress.device`: the way whose
answers are nearest to those in float32.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import torch
from torch import Tensor, nn

from bantam.compress.device import (
    LARGEST_SUM,
    DeviceStudent,
    Grid,
    Layer,
    axes,
    computed,
    counts,
    forget,
    largest,
    store,
    sum_bound,
    windowed,
)
from bantam.compress.integers import CLIPS, SAMPLED, along, input_range, weight_scales
from bantam.data.splits import Normalisation
from bantam.errors import BadData
from bantam.nets.device.operations import Operation
from bantam.nets.device.steps import Program, Step

TOP = 127
"""The largest integer of a weight, int8."""

MOST_BIAS = 2**28
"""The largest bias in steps of the sums, so that these stay within 32 bits."""


def in_floats(program: Program, images: Tensor) -> Iterator[tuple[Step, Tensor, dict[int, Tensor]]]:
    """The same pass in float32, of normalised images [N, 3, H, W]: each step, its vector, and the maps it has made."""
    maps: dict[int, Tensor] = {}
    for step in program.steps:
        vector = float_vector(step, maps, images)
        values = [
            computed(write.value, vector, lambda leaf: maps[leaf.map][:, list(leaf.places)]) for write in step.writes
        ]
        for write, value in zip(step.writes, values, strict=True):
            store(maps, program, write, value)
        yield step, vector, maps
        forget(maps, program, step)


def float_vector(step: Step, maps: Mapping[int, Tensor], images: Tensor) -> Tensor:
    """What the step's convolution or pooling gives in float32 [N, C, H, W]; empty where there is none."""
    one = step.operation
    if one is None:
        return torch.empty(0)
    if step.source < 0:
        return images
    read = maps[step.source][:, step.start : step.start + len(one.inputs[0])]
    if one.kind == "convolution":
        assert one.weight is not None
        return nn.functional.conv2d(read, one.weight, one.bias, one.stride, one.padding, one.dilation, one.groups)
    if one.kind == "largest":
        return largest(one, read)
    rows, columns = (windowed(windows, side).float() for windows, side in zip(axes(one), read.shape[2:], strict=True))
    return rows @ read @ columns.T / counts(one)


@torch.no_grad()
def device_student(
    program: Program,
    normalisation: Normalisation,
    batches: Sequence[Tensor],
    scales: Mapping[str, Tensor] = MappingProxyType({}),
) -> DeviceStudent:
    """The student of `program` in bytes, without training: the way whose answers are nearest to those in float32.

    `batches` are normalised training images [B, 3, S, S]: on every other one ranges and biases are found, on the rest
    the ways are compared by the mean KL divergence. `scales` has the steps [O] of weights, by their layer's name, that
    lie on a grid already. Raises BadData where a sum does not fit 32 bits.
    """
    fitted, held = list(batches[::2]), list(batches[1::2]) or list(batches)
    values = sampled(program, fitted)
    wanted = [
        [maps[-1].double().log_softmax(1) for step, _, maps in in_floats(program, batch) if step.answer >= 0]
        for batch in held
    ]
    found: list[tuple[float, DeviceStudent]] = []
    for ends, clips in (("least squared error", CLIPS), ("largest value", CLIPS[:1])):
        grids = tuple(Grid.over(*input_range(values[number], clips)) for number in range(len(program.maps)))
        layers = {
            step.operation.number: layer_of(step.operation, scales, grids[step.source])
            for step in program.steps
            if step.operation is not None and step.operation.kind == "convolution"
        }
        plain = DeviceStudent(program, grids, layers, normalisation, f"ranges by {ends}, biases as they were")
        moved = replace(plain, layers=corrected(plain, torch.cat(fitted)), way=f"ranges by {ends}, biases corrected")
        found += [(distance(student, held, wanted), student) for student in (plain, moved)]
    student = min(found, key=lambda pair: pair[0])[1]
    require_sums(student)
    return student


def layer_of(operation: Operation, scales: Mapping[str, Tensor], grid: Grid) -> Layer:
    """The integers of a convolution whose input is on `grid`.

    A channel of hardly any weight beside its bias, a dead one above all, gets coarser steps: those in which its bias is
    no more than MOST_BIAS.
    """
    assert operation.weight is not None
    weight = operation.weight.detach()
    bias = torch.zeros(len(weight)) if operation.bias is None else operation.bias.detach()
    scale = scales.get(operation.name)
    scale = weight_scales(weight, TOP) if scale is None else scale
    scale = scale.maximum(bias.abs() / (grid.scale * MOST_BIAS))
    integers = (weight / along(scale, weight)).round().clamp(-TOP, TOP).to(torch.int8)
    return Layer(integers, scale, bias)


def sampled(program: Program, batches: Sequence[Tensor]) -> dict[int, Tensor]:
    """For each map some of its values in float32 on `batches`, the smallest and the largest among them."""
    writers = {write.map: step for step in program.steps for write in step.writes}  # the last of each map
    seen: dict[int, list[Tensor]] = {number: [] for number in range(len(program.maps))}
    for batch in batches:
        for step, _, maps in in_floats(program, batch):
            for number in step.written:
                if writers[number] is step:
                    values = maps[number].flatten()
                    share = max(1, len(values) * len(batches) // SAMPLED)
                    seen[number].append(torch.cat((values[::share], values.amin()[None], values.amax()[None])))
    return {number: torch.cat(values) for number, values in seen.items()}


def corrected(student: DeviceStudent, images: Tensor) -> dict[int, Layer]:
    """The layers with biases for which the means of each one's outputs on `images` are those in float32.

    Each is corrected with those before it corrected already, as `bantam.compress.integers.correct_biases` does.
    """
    layers, maps = dict(student.layers), dict[int, Tensor]()
    for step, wanted, _ in in_floats(student.program, images):
        now = replace(student, layers=layers)
        vector = now.vector(step, maps, images)
        if step.operation is not None and step.operation.number in layers:
            number = step.operation.number
            layer = layers[number]
            layers[number] = replace(layer, bias=layer.bias - (vector - wanted).mean((0, 2, 3)))
            vector = now.vector(step, maps, images)
        now.fill(step, vector, maps)
    return layers


def distance(student: DeviceStudent, batches: Sequence[Tensor], wanted: Sequence[list[Tensor]]) -> float:
    """The mean KL divergence of the student's answers on `batches` from the log-probabilities `wanted`."""
    found: list[Tensor] = []
    for batch, told in zip(batches, wanted, strict=True):
        said = [maps[-1].double().log_softmax(1) for step, maps in student.walk(batch) if step.answer >= 0]
        found += [
            nn.functional.kl_div(one, other, reduction="batchmean", log_target=True)
            for one, other in zip(said, told, strict=True)
        ]
    return float(torch.stack(found).mean())


def require_sums(student: DeviceStudent) -> None:
    """Raises BadData where the sums of a layer can leave 32 bits."""
    for step in student.program.steps:
        if step.operation is not None and (layer := student.layers.get(step.operation.number)):
            biases = layer.bias_integers(student.grids[step.source]).abs()
            if int((sum_bound(layer.weight) + biases).max()) > LARGEST_SUM // 2:
                raise BadData(
                    f"the sums of {step.operation.name} need more than 32 bits: its bias is that much larger than its "
                    "weights; train the student longer, or with weight decay"
                )
