"""How a student's C file is written: its header, what stands before its numbers, and how these are spelled."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np
from torch import Tensor

from bantam.compress.device import SIXTH, DeviceStudent

COLUMNS = 116
"""How long a line of numbers may be."""


@dataclass(frozen=True)
class Facts:
    """What the file says of itself: what it computes, its classes, how surely images leave early, and what was checked.

    `threshold` is the least probability at which an image leaves at an early exit; above 1 none does.
    """

    title: str
    classes: tuple[str, ...]
    size: int
    threshold: float
    checked: str


def header_of(student: DeviceStudent, facts: Facts) -> str:
    """The .h file."""
    size, classes = facts.size, len(facts.classes)
    names = ", ".join(quoted(name) for name in facts.classes)
    exits = student.program.answers - 1
    lines = [
        f"/* {comment(facts.title)} */",
        "#ifndef BANTAM_STUDENT_H",
        "#define BANTAM_STUDENT_H",
        "",
        "#include <stdint.h>",
        "",
        f"#define BANTAM_SIZE {size} /* the side of the image in pixels */",
        f"#define BANTAM_CLASSES {classes}",
        f"#define BANTAM_CLASS_NAMES {{{names}}}",
    ]
    if exits:
        lines += [
            f"#define BANTAM_EXITS {exits} /* early exits */",
            "",
            "/* An image leaves at an exit that gives a class at least this probability. Above 1 none leaves early. */",
            "#ifndef BANTAM_SURE",
            f"#define BANTAM_SURE {float_text(facts.threshold)}",
            "#endif",
            "",
            "/* Where the last image left: 0 is the first exit, BANTAM_EXITS the end. */",
            "extern int bantam_left;",
        ]
    return "\n".join(
        [
            *lines,
            "",
            "#ifdef __cplusplus",
            'extern "C" {',
            "#endif",
            "",
            "/* The class, 0 to BANTAM_CLASSES - 1, of an image: BANTAM_SIZE rows of as many pixels of red, green",
            "   and blue. Its scores, before the softmax, go to scores. One image at a time: the memory is static. */",
            "int bantam_classify(const uint8_t *rgb, float *scores);",
            "",
            "#ifdef __cplusplus",
            "}",
            "#endif",
            "",
            "#endif",
            "",
        ]
    )


def comment(text: str) -> str:
    """Text that ends no comment, in ASCII."""
    return text.encode("ascii", "backslashreplace").decode().replace("*/", "* /").replace("/*", "/ *")


def quoted(text: str) -> str:
    """A string of C in ASCII; octal, because a hexadecimal escape would swallow the letters after it."""
    kept = "".join(
        chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\?' else f"\\{byte:03o}" for byte in text.encode()
    )
    return f'"{kept}"'


def float_text(value: float) -> str:
    """A float32 as C writes it: nine digits give it back exactly."""
    text = f"{np.float32(value):.9g}"
    return f"{text}f" if any(mark in text for mark in ".en") else f"{text}.0f"


def array(kind: str, name: str, values: Sequence[str], size: str = "") -> str:
    """A constant array, in lines of COLUMNS."""
    lines, line = [], "   "
    for value in values:
        if len(line) + len(value) + 2 > COLUMNS:
            lines.append(line)
            line = "   "
        line += f" {value},"
    body = "\n".join([*lines, line])
    return f"static const {kind} {name}[{size}] = {{\n{body}\n}};"


PRELUDE = f"""#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off") /* a fused product and sum is rounded once, and would be another number */
#endif

#include <float.h>
#if FLT_EVAL_METHOD == 1 || FLT_EVAL_METHOD == 2
#error "float has to be computed in float: compile with -msse2 -mfpmath=sse"
#endif
#ifdef __FAST_MATH__
#error "sums must not be rearranged: compile without -ffast-math"
#endif
typedef char int_must_have_32_bits[sizeof(int) >= 4 ? 1 : -1];

#define SIXTH {float_text(SIXTH)}"""


def kernels(body: str) -> list[str]:
    """The kernels that `body` calls, and those that they call, in the order of kernels.c."""
    text = resources.files("bantam.deliver.export").joinpath("kernels.c").read_text(encoding="utf-8")
    parts = re.split(r"/\* kernel: (\w+) \*/\n", text)
    found = dict(zip(parts[1::2], (part.strip() for part in parts[2::2]), strict=True))
    needed: set[str] = set()
    asked = [body]
    while asked:
        called = {name for name in re.findall(r"\b(\w+)\(", asked.pop()) if name in found} - needed
        needed |= called
        asked += [found[name] for name in called]
    return [part for name, part in found.items() if name in needed]


def whole(values: Tensor) -> list[str]:
    """Integers as C has them."""
    return [str(value) for value in values.flatten().tolist()]


def corner_of(name: str, stride: int, padding: int) -> str:
    """The first pixel that a kernel sees, along one axis."""
    return f"{f'{stride} * {name}' if stride > 1 else name}{f' - {padding}' if padding else ''}"


def index(places: Sequence[int]) -> str:
    """Places at even distances as an expression of the loop's variable c."""
    step = places[1] - places[0] if len(places) > 1 else 1
    scaled = "c" if step == 1 else f"{step} * c"
    return f"{places[0]} + {scaled}" if places[0] else scaled
