"""Boards that people have: their flash and RAM, as their makers' data sheets say."""

from dataclasses import dataclass

from bantam.errors import BadData
from bantam.nets.device.needs import Needs

KIB = 1024

OTHERS = Needs(ram=8 * KIB, flash=16 * KIB)
"""What is left of a board for the stack and for the program around a student, beside the image."""


@dataclass(frozen=True)
class Board:
    """A board: its chip and core, and bytes of flash and RAM (the largest piece of it, where it lies in several)."""

    name: str
    chip: str
    core: str
    flash: int
    ram: int

    def room(self, size: int) -> Needs:
        """What a student may need here, beside an image of `size` x `size` pixels and OTHERS."""
        return Needs(self.ram - OTHERS.ram - 3 * size * size, self.flash - OTHERS.flash)


BOARDS = {
    board.name: board
    for board in (
        Board("bluepill", "STM32F103C8", "Cortex-M3", 64 * KIB, 20 * KIB),
        Board("arduino-zero", "SAMD21G18", "Cortex-M0+", 256 * KIB, 32 * KIB),
        Board("arduino-uno-r4", "RA4M1", "Cortex-M4F", 256 * KIB, 32 * KIB),
        Board("nucleo-g431rb", "STM32G431RB", "Cortex-M4F", 128 * KIB, 32 * KIB),
        Board("nucleo-l432kc", "STM32L432KC", "Cortex-M4F", 256 * KIB, 64 * KIB),
        Board("nucleo-f401re", "STM32F401RE", "Cortex-M4F", 512 * KIB, 96 * KIB),
        Board("nucleo-f446re", "STM32F446RE", "Cortex-M4F", 512 * KIB, 128 * KIB),
        Board("microbit-v2", "nRF52833", "Cortex-M4F", 512 * KIB, 128 * KIB),
        Board("arduino-nano-33-ble", "nRF52840", "Cortex-M4F", 1024 * KIB, 256 * KIB),
        Board("raspberry-pi-pico", "RP2040", "Cortex-M0+", 2048 * KIB, 256 * KIB),
        Board("esp32-c3", "ESP32-C3", "RISC-V", 4096 * KIB, 400 * KIB),
        Board("raspberry-pi-pico-2", "RP2350", "Cortex-M33", 4096 * KIB, 512 * KIB),
        Board("esp32-s3", "ESP32-S3", "Xtensa LX7", 8192 * KIB, 512 * KIB),
        Board("nucleo-h743zi", "STM32H743ZI", "Cortex-M7", 2048 * KIB, 512 * KIB),
        Board("teensy-4.0", "i.MX RT1062", "Cortex-M7", 1984 * KIB, 512 * KIB),
    )
}


def board(name: str) -> Board:
    """The board of this name. Raises BadData where there is none."""
    if name not in BOARDS:
        raise BadData(f'there is no board "{name}" in the table; give --ram and --flash, or one of {", ".join(BOARDS)}')
    return BOARDS[name]


def room(name: str | None, ram: int | None, flash: int | None, size: int) -> tuple[int | None, int | None]:
    """The limits of RAM and flash for a student of `size` px: those given, and those of the board of this name.

    Raises BadData where there is no such board, or the image alone is too large for it.
    """
    if name is None:
        return ram, flash
    there = board(name)
    left = there.room(size)
    if left.ram < 1:
        raise BadData(
            f"an image of {size} x {size} pixels alone fills the {there.ram:,} bytes of RAM of {name}; lower --size"
        )
    return min(left.ram, ram or left.ram), min(left.flash, flash or left.flash)
