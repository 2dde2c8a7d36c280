"""The text of a student in bytes as one C99 file: the kernels that it needs, its numbers, its steps, in that order."""

from collections.abc import Iterator, Sequence

from bantam.compress.device import DeviceStudent
from bantam.deliver.export.c_text import (
    PRELUDE,
    Facts,
    array,
    comment,
    corner_of,
    float_text,
    header_of,
    index,
    kernels,
    whole,
)
from bantam.nets.device.arena import Arena
from bantam.nets.device.operations import Operation, Window
from bantam.nets.device.steps import Expression, Step, Write, stretches


def source_of(student: DeviceStudent, arena: Arena, facts: Facts) -> str:
    """The .c file. It holds what the header says as well, so that it compiles by itself."""
    return Source(student, arena, facts).text()


class Source:
    """Writes one student; every constant once, however often it is used."""

    def __init__(self, student: DeviceStudent, arena: Arena, facts: Facts) -> None:
        self.student, self.program, self.arena, self.facts = student, student.program, arena, facts
        self.constants: dict[str, str] = {}
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
            f"RAM: {self.arena.ram:,} bytes, {self.arena.bytes:,} of them for maps; some hundred of stack besides.",
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
            ahead += [f"in += map{step.source}.channels" if step.source >= 0 else "in += 3"]
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
        apart = f" dilated {one.dilation} times" if one.dilation > 1 else ""
        layer = f"{one.name}: {kind}{high} x {wide}{apart}, {len(one.inputs[0])} -> {one.channels} channels"
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
            return [], [f"{one.kind}({settings}, {float_text(grid.scale)});"]
        weights, bias, scale = self.numbers(number, step, one)
        if one.is_pointwise and one.groups == 1:
            before = [f"const uint8_t *in = row(&map{read.number}, y){f' + {step.start}' if step.start else ''};"]
            return before, [f"pointwise(in, {inputs}, {one.channels}, {weights}, {bias}, {scale});"]
        (down, right), (above, left), (high, wide) = one.stride, one.padding, one.kernel
        corner = f"{corner_of('y', down, above)}, {corner_of('x', right, left)}, {high}, {wide}"
        if one.is_depthwise:
            settings = f"&map{read.number}, {step.start}, {inputs}, {corner}, {one.dilation}, {grid.zero}"
            return [], [f"depthwise({settings}, {weights}, {bias}, {scale});"]
        settings = f"&map{read.number}, {step.start}, {inputs // one.groups}, {corner}, {grid.zero}"
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
            self.constant("float", f"scale{number}", [float_text(value) for value in layer.sum_scale(grid).tolist()]),
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
            yield f"    {target} = byte({value}, {float_text(grid.steps)}, {grid.zero});"

    def expression(self, number: int, value: Expression, start: int, stop: int) -> str:
        """A value of the channels start..stop in C, of the loop's variable c."""
        if value.kind == "vector":
            return f"vector[{index(value.places[start:stop])}]"
        if value.kind == "stored":
            grid = self.student.grids[value.map]
            return f"value(from{value.map}[{index(value.places[start:stop])}], {grid.zero}, {float_text(grid.scale)})"
        operands = [self.expression(number, one, start, stop) for one in value.operands]
        if value.kind == "affine":
            assert value.weight is not None
            factor, summand = (
                self.constant(
                    "float", f"{name}{number}_{start}", [float_text(one) for one in values[start:stop].tolist()]
                )
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
