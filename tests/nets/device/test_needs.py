import pytest

from bantam.errors import BadData, BudgetExceeded
from bantam.nets.device.arena import plan
from bantam.nets.device.boards import BOARDS, OTHERS, room
from bantam.nets.device.needs import code, constants, needs
from bantam.nets.limits import Limits, describe_within
from bantam.nets.students import describe
from device_students import described, folded, steps_of


def test_flash_is_constants_and_code_and_ram_is_the_arena_and_a_pixel():
    student = described("largekernel")
    steps = steps_of(student)
    arena = plan(steps)
    found = needs(folded(student), student.size)
    assert found.flash == constants(steps, arena) + code(steps)
    assert found.ram == arena.ram == arena.bytes + 4 * (arena.vector + arena.sums)


@pytest.mark.parametrize("limits", [Limits(6_000, ram=2_500), Limits(6_000, flash=12_000)], ids=["ram", "flash"])
def test_a_student_within_a_chip_uses_it_up(limits: Limits):
    student = describe_within("mobilenet_v1", limits, 5, 16)
    found, free = needs(student.shipped_net(), 16), needs(describe("mobilenet_v1", 6_000, 5, 16).shipped_net(), 16)
    if limits.ram is not None:
        assert 0.8 * limits.ram <= found.ram <= limits.ram < free.ram
    if limits.flash is not None:
        assert 0.9 * limits.flash <= found.flash <= limits.flash < free.flash


def test_a_chip_that_nothing_fits_is_said():
    with pytest.raises(BudgetExceeded, match=r"bytes of RAM on a device where the limit is 500: raise the limit"):
        describe_within("mobilenet_v1", Limits(5_000, ram=500), 5, 16)


def test_a_board_leaves_room_for_the_image_and_the_rest_of_a_program():
    board = BOARDS["nucleo-f446re"]
    ram, flash = room("nucleo-f446re", None, None, 64)
    assert ram == board.ram - 3 * 64 * 64 - OTHERS.ram
    assert flash == board.flash - OTHERS.flash
    assert room("nucleo-f446re", 10_000, None, 64) == (10_000, flash)
    assert room(None, 10_000, None, 64) == (10_000, None)
    assert all(one.ram < one.flash for one in BOARDS.values())


@pytest.mark.parametrize(
    ("name", "size", "said"),
    [("nucleo", 64, 'no board "nucleo" in the table; give --ram'), ("bluepill", 128, "fills the 20,480 bytes of RAM")],
)
def test_what_is_wrong_with_a_board(name: str, size: int, said: str):
    with pytest.raises(BadData, match=said):
        room(name, None, None, size)
