from dataclasses import replace

import pytest
import torch

from bantam.compress.device import Grid, pixels
from bantam.compress.device_grids import corrected, device_student, in_floats, layer_of, require_sums, sampled
from bantam.compress.integers import calibration_batches
from bantam.data.splits import IMAGENET, LabelledSplit
from bantam.errors import BadData
from bantam.nets.device.operations import Operation, traced
from bantam.nets.device.steps import program
from bantam.nets.students import STUDENTS
from device_students import described, folded, images, in_bytes, steps_of


@pytest.mark.parametrize("family", STUDENTS)
def test_the_steps_compute_what_the_net_does(family: str):
    student = described(family)
    net = folded(student)
    seen = pixels(images(4, student.size).permute(0, 3, 1, 2), IMAGENET)
    with torch.no_grad():
        found = [maps[-1] for step, _, maps in in_floats(steps_of(student), seen) if step.answer >= 0]
        assert torch.allclose(found[0], net(seen), atol=1e-4, rtol=1e-4)


def test_the_steps_compute_every_exit():
    student = described("mobilenet_v1", exits=(1, 3))
    net = folded(student)
    seen = pixels(images(4, student.size).permute(0, 3, 1, 2), IMAGENET)
    with torch.no_grad():
        found = [maps[-1] for step, _, maps in in_floats(steps_of(student), seen) if step.answer >= 0]
        output = net.observe(seen)
    for one, wanted in zip(found, (*output.exits, output.logits), strict=True):
        assert torch.allclose(one, wanted, atol=1e-4, rtol=1e-4)


def convolution(weight: torch.Tensor, bias: torch.Tensor | None) -> Operation:
    return Operation(0, "convolution", len(weight), 1, 1, name="layer", weight=weight, bias=bias)


def test_a_dead_channel_keeps_its_bias():
    weight = torch.randn(2, 3, 1, 1, generator=torch.Generator().manual_seed(0))
    weight[1] = 0
    layer = layer_of(convolution(weight, torch.tensor([0.5, -0.25])), {}, Grid(0.01, 0))
    given = layer.bias_integers(Grid(0.01, 0)) * layer.sum_scale(Grid(0.01, 0)).double()
    assert torch.allclose(given, torch.tensor([0.5, -0.25], dtype=torch.float64), rtol=1e-3)
    assert not layer.weight[1].any()


def test_weights_that_lie_on_a_grid_already_keep_it():
    scale = torch.tensor([0.5, 0.25])
    weight = torch.tensor([[3.0, -7.0], [100.0, 5.0]])[:, :, None, None] * scale[:, None, None, None]
    layer = layer_of(convolution(weight, None), {"layer": scale}, Grid(0.01, 0))
    assert layer.weight.flatten(1).tolist() == [[3, -7], [100, 5]]
    assert torch.equal(layer.scale, scale)


def test_ranges_hold_the_smallest_and_the_largest_value():
    steps = steps_of(described("mobilenet_v1"))
    seen = pixels(images(6, 16).permute(0, 3, 1, 2), IMAGENET)
    with torch.no_grad():
        found = sampled(steps, [seen[:3], seen[3:]])
        for step, _, maps in in_floats(steps, seen):
            for number in step.written:
                assert float(found[number].max()) == pytest.approx(float(maps[number].max()), rel=1e-5, abs=1e-6)
                assert float(found[number].min()) == pytest.approx(float(maps[number].min()), rel=1e-5, abs=1e-6)


def test_corrected_biases_bring_the_means_back():
    student = in_bytes("mobilenet_v1")
    seen = pixels(images(8, 16).permute(0, 3, 1, 2), IMAGENET)
    coarse = replace(student, grids=tuple(Grid(8 * grid.scale, grid.zero // 8) for grid in student.grids))
    with torch.no_grad():
        moved = replace(coarse, layers=corrected(coarse, seen))
        wanted = next(maps[-1] for step, _, maps in in_floats(student.program, seen) if step.answer >= 0).mean(0)
        off = [
            float((maps[-1].mean(0) - wanted).abs().max())
            for one in (coarse, moved)
            for step, maps in one.walk(seen)
            if step.answer >= 0
        ]
    assert off[1] < 0.05 * off[0]


def test_sums_that_leave_32_bits_are_refused():
    student = in_bytes("mobilenet_v1")
    step = next(step for step in student.program.steps if step.operation and step.operation.number in student.layers)
    assert step.operation is not None
    number, grid = step.operation.number, student.grids[step.source]
    layer = student.layers[number]
    large = replace(layer, bias=layer.bias + 2e9 * layer.sum_scale(grid))
    with pytest.raises(BadData, match="need more than 32 bits"):
        require_sums(replace(student, layers={**student.layers, number: large}))


def test_only_training_images_set_the_grids():
    student = described("mobilenet_v1")
    split = LabelledSplit(
        "training", images(10, 16), torch.zeros(10).long(), tuple(map(str, range(10))), tuple("abcde")
    )
    batches = calibration_batches(split, 16, IMAGENET)
    steps = program(traced(folded(student), 16))
    assert device_student(steps, IMAGENET, batches).way.startswith("ranges by")
