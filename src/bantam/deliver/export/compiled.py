"""A student's C file, compiled and run: what it says about photographs, and with which warnings and faults."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bantam.errors import ParityFailed

STRICT = ("-std=c99", "-O2", "-Wall", "-Wextra", "-Werror")
SANITIZED = ("-std=c99", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")

DRIVER = """#include <stdio.h>
#include "student.h"

static uint8_t image[3 * BANTAM_SIZE * BANTAM_SIZE];

/* Reads images from the first file, and writes of each its class, where it left, and its scores to the second. */
int main(int arguments, char **names)
{
    FILE *in = arguments == 3 ? fopen(names[1], "rb") : NULL, *out = in ? fopen(names[2], "wb") : NULL;
    if (!out)
        return 1;
    while (fread(image, sizeof image, 1, in) == 1) {
        float scores[BANTAM_CLASSES];
        int32_t told[2] = {bantam_classify(image, scores), 0};
#ifdef BANTAM_EXITS
        told[1] = bantam_left;
#endif
        if (fwrite(told, sizeof told, 1, out) != 1 || fwrite(scores, sizeof scores, 1, out) != 1)
            return 1;
    }
    return fclose(in) || fclose(out);
}
"""


def compiler() -> str | None:
    """The system's C compiler: what CC names, cc, gcc or clang; None where there is none."""
    named = (os.environ.get("CC"), "cc", "gcc", "clang")
    return next((found for name in named if name and (found := shutil.which(name))), None)


def can_watch() -> bool:
    """Whether the compiler has the libraries of its sanitizers."""
    with tempfile.TemporaryDirectory(prefix="bantam-c-") as folder:
        (Path(folder) / "empty.c").write_text("int main(void) { return 0; }\n")
        words = [compiler() or "cc", *SANITIZED, "-o", "empty", "empty.c"]
        return not subprocess.run(words, cwd=folder, capture_output=True).returncode


class Compiled:
    """A student's file and header, compiled with `flags`, in a folder of its own that goes with it."""

    def __init__(self, source: bytes, header: bytes, flags: Sequence[str] = STRICT) -> None:
        """Raises ParityFailed where the compiler has anything to say."""
        self.keeper = tempfile.TemporaryDirectory(prefix="bantam-c-")
        self.folder = Path(self.keeper.name)
        (self.folder / "student.c").write_bytes(source)
        (self.folder / "student.h").write_bytes(header)
        (self.folder / "driver.c").write_text(DRIVER)
        found = compiler()
        assert found is not None
        self.run([found, *flags, "-o", "student", "student.c", "driver.c"])

    def run(self, words: Sequence[str]) -> None:
        done = subprocess.run(words, cwd=self.folder, capture_output=True, text=True, errors="replace")
        if done.returncode:
            said = next((line for line in done.stderr.splitlines() if "error" in line), "") or done.stderr[-200:]
            raise ParityFailed(f"the C file does not pass: {' '.join(said.split())[:300]}; nothing is written")

    def answers(self, images: Tensor, classes: int) -> tuple[Tensor, Tensor, Tensor]:
        """The scores float32 [N, K], the class and where each left, int64 [N], of images uint8 [N, H, W, 3]."""
        parts = images.chunk(os.cpu_count() or 1)
        with ThreadPoolExecutor(len(parts)) as pool:
            told = pool.map(lambda pair: self.told(pair[0], pair[1], classes), enumerate(parts))
        scores, found, left = zip(*told, strict=True)
        return torch.cat(scores), torch.cat(found), torch.cat(left)

    def told(self, number: int, images: Tensor, classes: int) -> tuple[Tensor, Tensor, Tensor]:
        """What one process says."""
        given, said = f"images{number}", f"answers{number}"
        (self.folder / given).write_bytes(images.contiguous().numpy().tobytes())
        self.run(["./student", given, said])
        return decoded((self.folder / said).read_bytes(), len(images), classes)


def decoded(told: bytes, images: int, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """What the driver wrote of so many images: scores, classes and where each left. Raises ParityFailed."""
    row = np.dtype([("class", "<i4"), ("left", "<i4"), ("scores", "<f4", (classes,))])
    if len(told) != images * row.itemsize:
        raise ParityFailed(f"the C file answered {len(told) // row.itemsize} of {images} images")
    rows = np.frombuffer(told, row)
    return (
        torch.from_numpy(rows["scores"].copy()),
        torch.from_numpy(rows["class"].astype(np.int64)),
        torch.from_numpy(rows["left"].astype(np.int64)),
    )
