"""Small students in bytes, which nobody trained, for the tests of what a small device computes."""

from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from bantam.compress.device import DeviceStudent, pixels
from bantam.compress.device_grids import device_student
from bantam.data.splits import IMAGENET
from bantam.nets.device.operations import traced
from bantam.nets.device.steps import Program, program
from bantam.nets.fold import deploy
from bantam.nets.output import StagedNet
from bantam.nets.students import Student, describe


def described(family: str, size: int = 16, exits: tuple[int, ...] = ()) -> Student:
    """The description of a small student of 5 classes; `sample` takes no images below 24 px."""
    sample = family == "sample"
    return replace(describe(family, 60_000 if sample else 6_000, 5, max(size, 24) if sample else size), exits=exits)


def folded(student: Student) -> StagedNet:
    """The student's net, folded, with statistics and scales that are not those of a fresh BatchNorm."""
    torch.manual_seed(1)
    net = student.build()
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.weight.uniform_(0.5, 2.0)
                layer.bias.normal_(0, 0.5)
        for _ in range(3):
            net.train()(torch.randn(16, 3, student.size, student.size))
    return deploy(net)


def images(count: int, size: int = 16) -> Tensor:
    """Four coloured squares each, uint8 [N, size, size, 3], the first image black and the second white."""
    squares = torch.randint(0, 256, (count, 2, 2, 3), generator=torch.Generator().manual_seed(2))
    made = squares.repeat_interleave(size // 2, 1).repeat_interleave(size // 2, 2).to(torch.uint8)
    made[0], made[1] = 0, 255
    return made


def steps_of(student: Student) -> Program:
    return program(traced(folded(student), student.size))


@cache
def in_bytes(family: str, exits: tuple[int, ...] = ()) -> DeviceStudent:
    """The small student of a family in bytes."""
    return bytes_of(described(family, exits=exits))


def bytes_of(student: Student) -> DeviceStudent:
    """A small student in bytes."""
    seen = pixels(images(12, student.size).permute(0, 3, 1, 2), IMAGENET)
    return device_student(steps_of(student), IMAGENET, list(seen.split(6)))
