"""The C file on emulated Cortex-M boards: needs gcc-arm-none-eabi and qemu-system-arm, which .ci/run installs."""

from pathlib import Path

import pytest
import torch

from bantam.deliver.export.c import CFile
from bantam.deliver.export.c_text import Facts
from bantam.nets.device.arena import plan
from bantam.nets.device.needs import code, constants
from device_students import images, in_bytes
from emulated import CORES, measured, missing

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"not installed: {missing()}")


@pytest.mark.parametrize("core", CORES)
def test_a_microcontroller_says_the_same_within_what_was_planned(core: str, tmp_path: Path):
    student = in_bytes("mobilenet_v1", (1, 3))
    made = CFile(student, plan(student.program), Facts("a student", tuple("abcde"), 16, 0.3, "not checked"))
    shown = images(6)
    scores, left = made.expected(shown, 0.3)
    found = measured(CORES[core], *made.files(), shown, 5, tmp_path)
    assert torch.equal(found.scores, scores)
    assert torch.equal(found.left, left)
    # Beside the planned arena there are the image, the scores, and where the last image left.
    assert found.ram == (made.arena.ram + 3 * 16 * 16 + 4 * 5 + 4 + 3) // 4 * 4
    assert (
        constants(student.program, made.arena)
        < found.flash
        <= constants(student.program, made.arena) + code(student.program)
    )
    assert (found.instructions > 100_000).all()
