"""What a student needs of a small device, to the byte, before anything is trained."""

from dataclasses import dataclass

from bantam.nets.device.arena import Arena, plan
from bantam.nets.device.operations import traced
from bantam.nets.device.steps import Program, program, stretches
from bantam.nets.fold import deploy
from bantam.nets.output import StagedNet

CODE, STEP_CODE, LOOP_CODE = 3072, 120, 140
"""Bytes of flash that are set aside for code: for any student, for each step, and for each loop that stores channels.

It is more than `size` finds of gcc's -O2 on a Cortex-M3 without floating-point unit, of every family."""

MAP_BYTES = 16
"""Of a map's description, where pointers have 32 bits."""


@dataclass(frozen=True)
class Needs:
    """Bytes of `ram` and `flash` that a student's C file takes: without the image, the stack and other programs."""

    ram: int
    flash: int


def needs(net: StagedNet, size: int) -> Needs:
    """What the int8 form of `net`, as shipped, needs for images of `size` x `size` pixels.

    Raises BadData for what has no kernel.
    """
    steps = program(traced(deploy(net), size))
    arena = plan(steps)
    return Needs(arena.ram, constants(steps, arena) + code(steps))


def code(steps: Program) -> int:
    """The bytes that are set aside for code."""
    loops = sum(len(stretches(write.columns())) for step in steps.steps for write in step.writes)
    return CODE + STEP_CODE * len(steps.steps) + LOOP_CODE * loops


def constants(steps: Program, arena: Arena) -> int:
    """The bytes of all constants: weights (those that are shared once), biases, scales, windows, tables."""
    weights: dict[int, int] = {}
    windows: set[tuple[object, ...]] = set()
    total = MAP_BYTES * len(steps.maps) + len(arena.order)
    for step in steps.steps:
        one = step.operation
        if one is None:
            continue
        if one.kind == "image":
            total += 768 * len(step.written)
        elif one.kind == "convolution":
            assert one.weight is not None
            weights[one.weight.data_ptr()] = one.weight.numel()
            total += 8 * one.channels
        else:
            windows |= {one.rows, one.columns}
    affine = sum(
        value.weight.numel()
        for step in steps.steps
        for write in step.writes
        for value in write.value.affine()
        if value.weight is not None
    )
    return total + sum(weights.values()) + 6 * sum(map(len, windows)) + 4 * affine
