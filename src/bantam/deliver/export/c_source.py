"""The text of a student in bytes as one C99 file: the kernels that it needs, its numbers, its steps, in that order."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources

import numpy as np
from torch import Tensor

from bantam.compress.device import SIXTH, DeviceStudent
from bantam.nets.device.arena import Arena
from bantam.nets.device.operations import Operation, Window
from bantam.nets.device.steps import Expression, Step, Write, stretches

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


def source_of(student: DeviceStudent, arena: Arena, facts: Facts) -> str:
    """The .c file. It holds what the header says as well, so that it compiles by itself."""
    return Source(student, arena, facts).text()


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
            f"#define BANTAM_SURE {number(facts.threshold)}",
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
            "/* The class, 0 to BANTAM_CLASSES - 1, of an image of BANTAM_SIZE rows of BANTAM_SIZE pixels of red, green, blue;",
            "   its scores, before the softmax, go to scores[BANTAM_CLASSES]. One image at a time: the memory is static. */",
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


def number(value: float) -> str:
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


class Source:
    """Writes one student; every constant once, however often it is used."""

    def __init__(self, student: DeviceStudent, arena: Arena, facts: Facts) -> None:
        self.student, self.program, self.arena, self.facts = student, student.program, arena, facts
        self.constants: dict[str, str] = {}
        self.weights: dict[int, str] = {}
        self.named: dict[str, str] = {}

    def text(self) -> str:
        steps = [self.step(number, step) for number, step in enumerate(self.program.steps)]
        body = "\n\n".join([*self.constants.values(), *steps, self.order(), self.classify()])
        parts = [
            header_of(self.student, self.facts).rstrip(),
            self.about(),
            PRELUDE + ("\n#include <string.h>" if self.program.answers > 1 else ""),
            self.memory(),
            *kernels(body),
            body,
        ]
        return "\n\n".join(part for part in parts if part) + "\n"

    def about(self) -> str:
        told = [
            self.facts.checked,
            f"RAM: {self.arena.ram:,} bytes, of which the maps take {self.arena.bytes:,}; and the stack, some hundred bytes.",
            "sum: int32, exact. value: float32, each operation rounded. byte: rounded half to even.",
        ]
        return "/* " + "\n   ".join(comment(line) for line in told) + " */"

    def memory(self) -> str:
        """The arena, and where the maps lie in it."""
        lines = [
            f"static uint8_t arena[{max(self.arena.bytes, 1)}];",
            f"static float vector[{self.arena.vector}]; /* one pixel */",
        ]
        if self.arena.sums:
            lines.append(f"static int32_t sums[{self.arena.sums}];")
        lines += [
            "",
            "typedef struct {",
            "    uint8_t *at;",
            "    uint16_t height, width, channels, rows; /* of its rows the newest `rows` are kept */",
            "    uint32_t row_bytes;",
            "} map;",
            "",
        ]
        for one, place in zip(self.program.maps, self.arena.places, strict=True):
            settings = (
                f"arena + {place.offset}, {one.height}, {one.width}, {one.channels}, {place.rows}, {place.row_bytes}"
            )
            lines.append(f"static const map map{one.number} = {{{settings}}};")
        return "\n".join(lines)

    def constant(self, kind: str, name: str, values: Sequence[str], size: str = "") -> str:
        """The name of a constant array with these values; arrays of the same values are one."""
        text = array(kind, "@", values, size)
        if text not in self.named:
            self.named[text] = name
            self.constants[name] = text.replace("@", name, 1)
        return self.named[text]

    def step(self, number: int, step: Step) -> str:
        """The function that makes one row of a step."""
        into = sorted(step.written)
        besides = sorted({leaf.map for write in step.writes for leaf in write.value.stored()})
        lines = [f"/* {comment(self.title(step))} */", f"static void step{number}({self.arguments(step)})", "{"]
        lines += [f"    uint8_t *to{one} = row(&map{one}, y);" for one in into]
        lines += [f"    const uint8_t *from{one} = row(&map{one}, {self.row_of(one, step)});" for one in besides]
        before, compute = self.compute(number, step)
        lines += [f"    {line}" for line in before]
        inner = [*compute, *(line for write in step.writes for line in self.write(number, step, write))]
        ahead = [f"to{one} += map{one}.channels" for one in into]
        ahead += [f"from{one} += map{one}.channels" for one in besides if self.program.maps[one].width > 1]
        if before:
            ahead += ["in += map%d.channels" % step.source if step.source >= 0 else "in += 3"]
        if step.answer >= 0:
            lines += ["    (void)y;", *(f"    {line}" for line in inner)]
        else:
            lines.append(f"    for (int x = 0; x < {step.width}; {', '.join(['x++', *ahead])}) {{")
            lines += [f"        {line}" for line in inner] + ["    }"]
        return "\n".join([*lines, "}"])

    def arguments(self, step: Step) -> str:
        if step.answer >= 0:
            return "int y, float *scores"
        return "int y, const uint8_t *rgb" if step.source < 0 and step.operation is not None else "int y"

    def row_of(self, one: int, step: Step) -> str:
        return "y" if self.program.maps[one].height == step.height else "0"

    def title(self, step: Step) -> str:
        """What a step does, in words."""
        one = step.operation
        goes = "the scores" if step.answer >= 0 else " and ".join(f"map{number}" for number in sorted(step.written))
        side = f"{step.height} x {step.width}"
        if one is None:
            return f"element by element, {side} -> {goes}"
        if step.source < 0:
            return f"the image, normalised, {side} -> {goes}"
        if one.kind != "convolution":
            return f"{one.kind} of windows of map{step.source}, {side} -> {goes}"
        kind = "depthwise " if one.is_depthwise else ""
        high, wide = one.kernel
        layer = f"{one.name}: {kind}{high} x {wide}, {len(one.inputs[0])} -> {one.channels} channels"
        return f"{layer}, {side}, of map{step.source} -> {goes}"

    def compute(self, number: int, step: Step) -> tuple[list[str], list[str]]:
        """The lines before the loop over a row, and those that fill the vector."""
        one = step.operation
        if one is None:
            return [], []
        if step.source < 0:
            return [f"const uint8_t *in = rgb + y * {3 * step.width};"], []
        read, grid = self.program.maps[step.source], self.student.grids[step.source]
        inputs = len(one.inputs[0])
        if one.kind in ("average", "largest"):
            rows, columns = self.windows(number, "rows", one.rows), self.windows(number, "columns", one.columns)
            settings = f"&map{read.number}, {step.start}, {inputs}, {rows}[y], {columns}[x], {grid.zero}"
            return [], [f"{one.kind}({settings}, {floats(grid.scale)});"]
        weights, bias, scale = self.numbers(number, step, one)
        if one.is_pointwise and one.groups == 1:
            before = [f"const uint8_t *in = row(&map{read.number}, y){f' + {step.start}' if step.start else ''};"]
            return before, [f"pointwise(in, {inputs}, {one.channels}, {weights}, {bias}, {scale});"]
        (down, right), (above, left), (high, wide) = one.stride, one.padding, one.kernel
        corner = f"{corner_of('y', down, above)}, {corner_of('x', right, left)}, {high}, {wide}, {grid.zero}"
        if one.is_depthwise:
            settings = f"&map{read.number}, {step.start}, {inputs}, {corner}"
            return [], [f"depthwise({settings}, {weights}, {bias}, {scale});"]
        settings = f"&map{read.number}, {step.start}, {inputs // one.groups}, {corner}"
        groups = f"{one.channels}, {one.channels // one.groups}"
        return [], [f"convolution({settings}, {groups}, {weights}, {bias}, {scale});"]

    def windows(self, number: int, name: str, windows: Sequence[Window]) -> str:
        values = [f"{{{start}, {stop}, {count}}}" for start, stop, count in windows]
        return self.constant("uint16_t", f"{name}{number}", values, "][3")

    def numbers(self, number: int, step: Step, one: Operation) -> tuple[str, str, str]:
        """The names of a convolution's weights, biases and scales."""
        layer, grid = self.student.layers[one.number], self.student.grids[step.source]
        weight = layer.weight.permute(2, 3, 0, 1) if one.is_depthwise else layer.weight.permute(0, 2, 3, 1)
        bias = layer.bias_integers(grid)
        if one.is_pointwise and one.groups == 1:
            bias = bias - grid.zero * layer.weight.long().flatten(1).sum(1)
        return (
            self.constant("int8_t", f"weights{number}", whole(weight)),
            self.constant("int32_t", f"bias{number}", whole(bias)),
            self.constant("float", f"scale{number}", [floats(value) for value in layer.sum_scale(grid).tolist()]),
        )

    def write(self, number: int, step: Step, write: Write) -> Iterator[str]:
        """The loops that store a value: one for each stretch of channels that lie at even distances."""
        for start, stop in stretches(write.columns()):
            places = write.places[start:stop]
            target = f"scores[{index(places)}]" if write.map < 0 else f"to{write.map}[{index(places)}]"
            yield f"for (int c = 0; c < {stop - start}; c++)"
            if step.source < 0 and step.operation is not None:
                table = self.student.table(self.student.grids[write.map])
                name = self.constant("uint8_t", f"pixels{write.map}", whole(table), "")
                yield f"    {target} = {name}[256 * ({index(write.value.places[start:stop])}) + in[c]];"
                continue
            value = self.expression(number, write.value, start, stop)
            if write.map < 0:
                yield f"    {target} = {value};"
                continue
            grid = self.student.grids[write.map]
            yield f"    {target} = byte({value}, {floats(grid.steps)}, {grid.zero});"

    def expression(self, number: int, value: Expression, start: int, stop: int) -> str:
        """A value of the channels start..stop in C, of the loop's variable c."""
        if value.kind == "vector":
            return f"vector[{index(value.places[start:stop])}]"
        if value.kind == "stored":
            grid = self.student.grids[value.map]
            return f"value(from{value.map}[{index(value.places[start:stop])}], {grid.zero}, {floats(grid.scale)})"
        operands = [self.expression(number, one, start, stop) for one in value.operands]
        if value.kind == "affine":
            assert value.weight is not None
            factor, summand = (
                self.constant("float", f"{name}{number}_{start}", [floats(one) for one in values[start:stop].tolist()])
                for name, values in zip(("factor", "summand"), value.weight, strict=True)
            )
            return f"({operands[0]} * {factor}[c] + {summand}[c])"
        if value.kind in ("add", "multiply"):
            sign = "+" if value.kind == "add" else "*"
            return f"({operands[0]} {sign} {operands[1]})"
        return f"{value.kind}({operands[0]})"

    def order(self) -> str:
        """The steps that go row by row, as a table."""
        if not self.arena.streamed:
            return ""
        values = [str(number) for number in self.arena.order]
        return "/* Which step makes its next row: each as soon as the rows that it sees are there. */\n" + array(
            "uint8_t" if self.arena.streamed <= 256 else "uint16_t", "order", values
        )

    def call(self, number: int, y: str, scores: str = "scores") -> str:
        step = self.program.steps[number]
        further = f", {scores}" if step.answer >= 0 else ", rgb" if "rgb" in self.arguments(step) else ""
        return f"step{number}({y}{further});"

    def classify(self) -> str:
        """The function of the header."""
        exits = self.program.answers - 1
        lines = ["int bantam_left;", ""] if exits else []
        lines += ["int bantam_classify(const uint8_t *rgb, float *scores)", "{"]
        leave = iter(range(self.program.answers))
        if self.arena.streamed:
            lines += [
                f"    uint16_t next[{self.arena.streamed}] = {{0}};",
                "    for (int i = 0; i < (int)(sizeof order / sizeof *order); i++) {",
                "        int y = next[order[i]]++;",
                "        switch (order[i]) {",
            ]
            for number in range(self.arena.streamed):
                lines += [f"        case {number}:", f"            {self.call(number, 'y')}", "            break;"]
            lines += ["        }", "    }"]
        for number, step in enumerate(self.program.steps):
            if number >= self.arena.streamed:
                one = self.call(number, "0" if step.height == 1 else "y")
                lines.append(
                    f"    {one}" if step.height == 1 else f"    for (int y = 0; y < {step.height}; y++)\n        {one}"
                )
            if step.answer >= 0 and exits:
                lines += self.leaving(next(leave), exits)
        return "\n".join([*lines, "    return best(scores, BANTAM_CLASSES);", "}"])

    def leaving(self, answer: int, exits: int) -> list[str]:
        lines = [f"    bantam_left = {answer};"]
        if answer < exits:
            lines += [
                "    if (confidence(scores, BANTAM_CLASSES) >= BANTAM_SURE)",
                "        return best(scores, BANTAM_CLASSES);",
            ]
        return lines


PRELUDE = f"""#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#elif defined(__GNUC__)
#pragma GCC optimize("fp-contract=off") /* a fused product and sum is rounded once, and would be another number */
#endif

#define SIXTH {number(SIXTH)}"""


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


def floats(value: float) -> str:
    return number(value)


def whole(values: Tensor) -> list[str]:
    return [str(value) for value in values.flatten().tolist()]


def corner_of(name: str, stride: int, padding: int) -> str:
    """The first pixel that a kernel sees, along one axis."""
    return f"{f'{stride} * {name}' if stride > 1 else name}{f' - {padding}' if padding else ''}"


def index(places: Sequence[int]) -> str:
    """Places at even distances as an expression of the loop's variable c."""
    step = places[1] - places[0] if len(places) > 1 else 1
    scaled = "c" if step == 1 else f"{step} * c"
    return f"{places[0]} + {scaled}" if places[0] else scaled
