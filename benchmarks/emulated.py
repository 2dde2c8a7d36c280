"""A student's C file on an emulated Cortex-M: its scores, its size in flash and RAM, and the instructions of an image.

    apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm

QEMU runs the machine; the file is linked bare for its size, and beside a program that reads photographs through
semihosting for its scores. Instructions are counted by QEMU's -icount, where each takes a nanosecond: no cycles, for
which QEMU has no model.
"""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bantam.deliver.export.compiled import decoded

COMPILER, EMULATOR = "arm-none-eabi-gcc", "qemu-system-arm"


@dataclass(frozen=True)
class Core:
    """A Cortex-M and the machine of QEMU that has it; `tick_ns` is what a tick of its clock takes."""

    name: str
    machine: str
    flags: tuple[str, ...]
    tick_ns: float


CORES = {
    core.name: core
    for core in (
        Core("Cortex-M3", "mps2-an385", ("-mcpu=cortex-m3", "-mfloat-abi=soft"), 40.0),
        Core("Cortex-M7", "mps2-an500", ("-mcpu=cortex-m7", "-mfloat-abi=hard", "-mfpu=fpv5-sp-d16"), 40.0),
        Core("Cortex-M55", "mps3-an547", ("-mcpu=cortex-m55+nomve", "-mfloat-abi=hard", "-mfpu=fpv5-sp-d16"), 31.25),
    )
}

STRICT = ("-std=c99", "-O2", "-mthumb", "-Wall", "-Wextra", "-Werror", "-ffunction-sections", "-fdata-sections")

LINKING = """ENTRY(start)
MEMORY { FLASH (rx) : ORIGIN = 0x00000000, LENGTH = 512K  RAM (rwx) : ORIGIN = 0x20000000, LENGTH = 512K }
SECTIONS {
  .text : {
    KEEP(*(.vectors)) *(.text*) *(.rodata*) *(.init) *(.fini) KEEP(*(.init_array)) KEEP(*(.fini_array))
  } > FLASH
  .ARM.exidx : { *(.ARM.exidx*) *(.ARM.extab*) } > FLASH
  _from = LOADADDR(.data);
  .data : { _data = .; *(.data*) . = ALIGN(4); _edata = .; } > RAM AT > FLASH
  .bss (NOLOAD) : { _bss = .; *(.bss*) *(COMMON) . = ALIGN(4); _ebss = .; end = .; } > RAM
  _stack = ORIGIN(RAM) + LENGTH(RAM);
}
"""

START = """#include <stdint.h>
extern uint32_t _from, _data, _edata, _bss, _ebss, _stack;
int main(void);
void finish(int status);
void start(void)
{
    *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20; /* the floating-point unit, where there is one */
    for (uint32_t *from = &_from, *to = &_data; to < &_edata;)
        *to++ = *from++;
    for (uint32_t *to = &_bss; to < &_ebss;)
        *to++ = 0;
    finish(main());
    for (;;)
        ;
}
static void fault(void)
{
    finish(9);
    for (;;)
        ;
}
__attribute__((section(".vectors"), used)) static void *const vectors[16] = {
    &_stack, (void *)start, (void *)fault, (void *)fault, (void *)fault, (void *)fault, (void *)fault};
"""

BARE = """#include "student.h"
static uint8_t image[3 * BANTAM_SIZE * BANTAM_SIZE];
static float scores[BANTAM_CLASSES];
void finish(int status) { (void)status; }
int main(void) { return bantam_classify(image, scores); }
"""

HOSTED = """#include <stdio.h>
#include <stdlib.h>
#include "student.h"
extern void initialise_monitor_handles(void);
static uint8_t image[3 * BANTAM_SIZE * BANTAM_SIZE];
static volatile uint32_t *const clock = (uint32_t *)0xE000E010;
void finish(int status) { exit(status); }
int main(void)
{
    initialise_monitor_handles();
    FILE *in = fopen("images", "rb"), *out = fopen("answers", "wb"), *ticks = fopen("ticks", "wb");
    if (!in || !out || !ticks)
        return 1;
    while (fread(image, sizeof image, 1, in) == 1) {
        float scores[BANTAM_CLASSES];
        clock[1] = 0xFFFFFF;
        clock[2] = 0;
        clock[0] = 5;
        int32_t told[2] = {bantam_classify(image, scores), 0};
        uint32_t taken = 0xFFFFFF - clock[2];
        if (clock[0] >> 16 & 1)
            taken = 0;
#ifdef BANTAM_EXITS
        told[1] = bantam_left;
#endif
        fwrite(told, sizeof told, 1, out);
        fwrite(scores, sizeof scores, 1, out);
        fwrite(&taken, sizeof taken, 1, ticks);
    }
    return fclose(in) || fclose(out) || fclose(ticks);
}
"""


@dataclass(frozen=True)
class Measured:
    """What a core says of images, and needs: bytes of `flash` and `ram`, of which `image` holds the photograph, and the
    `instructions` of each image, 0 where they were too many for the clock."""

    scores: Tensor
    classes: Tensor
    left: Tensor
    flash: int
    ram: int
    image: int
    instructions: Tensor


def missing() -> str:
    """What is not installed of the two programs; empty where both are."""
    return ", ".join(name for name in (COMPILER, EMULATOR) if shutil.which(name) is None)


def measured(core: Core, source: bytes, header: bytes, images: Tensor, classes: int, folder: Path) -> Measured:
    """Run a student's file on `core`, on images uint8 [N, H, W, 3], in an empty `folder`."""
    texts = {"student.c": source.decode(), "student.h": header.decode(), "start.c": START, "link.ld": LINKING}
    for name, text in (texts | {"bare.c": BARE, "hosted.c": HOSTED}).items():
        (folder / name).write_text(text)

    def run(*words: str, limit: float = 3600) -> str:
        return subprocess.run(words, cwd=folder, check=True, capture_output=True, text=True, timeout=limit).stdout

    link = ("-nostartfiles", "-T", "link.ld", "-Wl,--gc-sections")
    run(COMPILER, *core.flags, *STRICT, "-c", "student.c", "-o", "student.o")
    rest = (*core.flags, "-std=gnu99", "-O2", "-mthumb", "student.o", "start.c")
    run(COMPILER, *rest, "bare.c", *link, "-nostdlib", "-lgcc", "-lc", "-o", "bare.elf")
    run(COMPILER, *rest, "hosted.c", *link, "--specs=rdimon.specs", "-o", "hosted.elf")
    text, data, bss = map(int, run("arm-none-eabi-size", "bare.elf").splitlines()[1].split()[:3])
    (folder / "images").write_bytes(images.contiguous().numpy().tobytes())
    run(
        EMULATOR, "-M", core.machine, "-kernel", "hosted.elf", "-nographic", "-monitor", "none", "-serial", "null",
        "-semihosting-config", "enable=on,target=native", "-icount", "shift=0",
    )  # fmt: skip
    scores, found, left = decoded((folder / "answers").read_bytes(), len(images), classes)
    ticks = np.fromfile(folder / "ticks", "<u4").astype(np.float64)
    instructions = torch.from_numpy(ticks * core.tick_ns)
    return Measured(scores, found, left, text + data, data + bss, images[0].numel(), instructions)
