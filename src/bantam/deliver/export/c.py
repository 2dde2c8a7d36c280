"""A student as one C99 file and its header, for devices that have no runtime: bytes, a planned arena, no library.

Its arithmetic is that of `bantam.compress.device`. Compiled with the system's compiler, the file must give every score
of it on every validation image, bit for bit; and so it must, on some of them, where each memory access and each
overflow is watched. Nothing is written otherwise.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bantam.compress.device import DeviceStudent
from bantam.compress.device_grids import device_student
from bantam.compress.integers import INT8, calibration_batches, layers_of, quantized, unquantized
from bantam.data.augment import plain
from bantam.data.splits import LabelledSplit, require_labelled
from bantam.deliver.export.c_source import source_of
from bantam.deliver.export.c_text import Facts, comment, header_of, quoted
from bantam.deliver.export.compiled import SANITIZED, STRICT, Compiled, can_watch, compiler
from bantam.deliver.export.forms import INTEGER, PIXELS, Answer, Material, Parity, Target, parity_of
from bantam.errors import ParityFailed, typed
from bantam.measure.logits import logits_of
from bantam.nets.device.arena import Arena, plan
from bantam.nets.device.operations import traced
from bantam.nets.device.steps import program
from bantam.nets.early_exit import EarlyExitNet
from bantam.nets.fold import deploy
from bantam.nets.output import StagedNet
from bantam.runs import checkpoint, runfolder

WATCHED = 200
"""So many images are classified where every memory access and overflow is watched: they are the same for all images."""

SURE = 0.9
"""The least probability at which an image leaves at an early exit, where `bantam exits` has chosen none."""

NEVER = 2.0
"""A threshold that no probability reaches."""


@dataclass(frozen=True)
class CFile:
    """A student in bytes with its arena and what the file says of itself."""

    student: DeviceStudent
    arena: Arena
    facts: Facts

    def files(self) -> tuple[bytes, bytes]:
        """The .c and the .h file."""
        return source_of(self.student, self.arena, self.facts).encode(), header_of(self.student, self.facts).encode()

    def expected(self, images: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
        """The scores [N, K] of images uint8 [N, H, W, 3], and where each leaves [N]."""
        return self.student.leave(self.student.answers(images), threshold)


def c_file(material: Material, checked: str = "") -> CFile:
    """The student of `material` in bytes, its grids found on training images. Raises BadData for what has no kernel."""
    run, shipped = material.run, material.shipped
    size = shipped.student.size
    net, scales = integers_of(material)
    steps = program(traced(net, size))
    batches = calibration_batches(material.splits.training, size, shipped.normalisation)
    student = device_student(steps, shipped.normalisation, batches, scales)
    what = f"A {shipped.student.family} of {size} x {size} pixels and {len(shipped.classes)} classes"
    title = f"{what} in 8-bit integers, made by Bantam."
    threshold = SURE if run.exit_confidence is None else run.exit_confidence
    return CFile(student, plan(steps), Facts(title, run.named(shipped.classes), size, threshold, checked or UNCHECKED))


UNCHECKED = "Not checked: there was no C compiler where this was made."


def integers_of(material: Material) -> tuple[StagedNet, dict[str, Tensor]]:
    """The folded net, and the steps of its weights where they were trained on integers and chosen for that."""
    run, net = material.run, material.net
    record, best = run.quantized / runfolder.QUANTIZATION, run.quantized / "int8-qat" / runfolder.BEST
    if not (record.exists() and best.exists()) or material.shipped != run.whole_way()[1]:
        return deploy(net), {}
    advice = f"`bantam quantize {typed(run)} --data DIR` makes it anew"
    if runfolder.table(record, advice).get("chosen", {}).get("int8") != "int8-qat":
        return deploy(net), {}
    trained = quantized(net, INT8)
    checkpoint.fill(trained, checkpoint.weights(best, advice=advice), best, advice)
    return unquantized(trained), {name: layer.weight_scale for name, layer in layers_of(trained).items()}


def images_of(split: LabelledSplit, size: int) -> Tensor:
    """The photographs of a split as a device is given them, uint8 [N, size, size, 3]."""
    parts = [as_bytes(plain(part, size, PIXELS.mean, PIXELS.std)) for part in split.images.split(250)]
    return torch.cat(parts)


def as_bytes(images: Tensor) -> Tensor:
    """Float32 [N, 3, H, W] in 0..1 to uint8 [N, H, W, 3]."""
    return (images.permute(0, 2, 3, 1) * 255).round().clamp(0, 255).to(torch.uint8)


class CTarget(Target):
    """The form `c`: made and checked in one, because the file says how it was checked."""

    def made(self, material: Material) -> tuple[tuple[bytes, ...], Parity]:
        """The files, held to the arithmetic of `bantam.compress.device`. Raises ParityFailed where they differ."""
        validation = require_labelled(material.splits.validation, "the parity check")
        made = c_file(material)
        images = images_of(validation, made.facts.size)
        scores, left = made.expected(images, made.facts.threshold)
        note = made.facts.checked
        if compiler() is not None:
            watched = require_equal(made, images, (scores, left))
            note = f"compiled, every score on {len(images):,} images is the simulation's, bit for bit; {watched}"
            made = replace(made, facts=replace(made.facts, checked=f"Checked: {note}."))
        exits = made.student.program.answers - 1
        told = f"{note}; {made.student.way}; RAM {made.arena.ram:,} bytes, of which the maps take {made.arena.bytes:,}"
        if exits:
            early = float((left < exits).double().mean())
            told += f"; {early:.1%} leave early, at a probability of {made.facts.threshold:g}"
        reference = logits_of(
            material.net, validation, made.facts.size, material.shipped.normalisation, look=leaving(material, made)
        )
        return made.files(), parity_of(reference, scores, validation, told)


def leaving(material: Material, made: CFile) -> Callable[[Tensor], Tensor] | None:
    """How PyTorch's float32 answers, where images leave early by the same threshold."""
    net = material.net
    if not isinstance(net, EarlyExitNet):
        return None
    return lambda images: net.leave(images, [made.facts.threshold] * len(net.exits))[0]


def require_equal(made: CFile, images: Tensor, expected: tuple[Tensor, Tensor]) -> str:
    """Raises ParityFailed where the compiled file says anything else than `expected`, or does anything it must not.

    Gives what was watched while it ran; a compiler without its sanitizers' libraries watches nothing.
    """
    files, classes = made.files(), len(made.facts.classes)
    compare_all(Compiled(*files, STRICT).answers(images, classes), expected)
    if not can_watch():
        return "memory not watched, for the compiler has no sanitizers"
    some = images[:WATCHED]
    never = (*SANITIZED, f"-DBANTAM_SURE={NEVER}f") if made.student.program.answers > 1 else SANITIZED
    compare_all(Compiled(*files, never).answers(some, classes), made.expected(some, NEVER))
    return f"memory and overflows watched on {len(some)}"


def compare_all(told: tuple[Tensor, Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    """Raises ParityFailed where scores, classes or exits are not those that were expected."""
    scores, found, left = told
    first = torch.from_numpy(expected[0].numpy().argmax(1))  # of equal scores the first
    wrong = (scores != expected[0]).any(1) | (found != first) | (left != expected[1])
    if bool(wrong.any()):
        raise ParityFailed(
            f"the compiled C file says something else than its simulation on {int(wrong.sum()):,} of {len(wrong):,} "
            "images, so nothing is written; try another compiler with CC=clang"
        )


def encode(material: Material) -> tuple[bytes, ...]:
    """The files, not checked."""
    return c_file(material).files()


def answer(source: bytes, header: bytes) -> Answer:
    """What the compiled file says. Raises ParityFailed where it does not compile."""
    compiled = Compiled(source, header)
    (classes,) = (int(line.split()[2]) for line in header.decode().splitlines() if "define BANTAM_CLASSES " in line)
    return lambda images: compiled.answers(as_bytes(images), classes)[0]


def program_of(material: Material, name: str) -> bytes:
    """A main.c that prints the class of one validation image, which is in it, with the student NAME.c."""
    validation, size = material.splits.validation, material.shipped.student.size
    image = as_bytes(plain(validation.images[:1], size, PIXELS.mean, PIXELS.std))[0]  # [size, size, 3]
    rows = [", ".join(map(str, row)) for row in image.flatten(1).tolist()]
    label = material.run.named(material.shipped.classes)[int(validation.labels[0])]
    return EXAMPLE.format(name=name, label=comment(quoted(label)), pixels=",\n    ".join(rows)).encode()


EXAMPLE = """/* Prints the class of one photograph: cc -std=c99 -O2 -o {name} main.c {name}.c && ./{name} */
#include <stdio.h>
#include "{name}.h"

/* The first validation image, rows of red, green, blue; it is labelled {label}. */
static const uint8_t image[3 * BANTAM_SIZE * BANTAM_SIZE] = {{
    {pixels}
}};

static const char *const names[BANTAM_CLASSES] = BANTAM_CLASS_NAMES;

int main(void)
{{
    float scores[BANTAM_CLASSES];
    int found = bantam_classify(image, scores);
    printf("%s\\n", names[found]);
    return 0;
}}
"""

C = CTarget(encode, answer, INTEGER, ".c", beside=(".h",), exits=True, program=program_of)
