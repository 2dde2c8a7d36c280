"""Exporting a shipped student for other runtimes, behind a gate: a file that does not compute as PyTorch does is not
written.

Each file holds one graph (`bantam.nets.portable`): float32 RGB images [N, 3, size, size] in 0..1 with any N (one in
ExecuTorch's programs), the normalisation inside; classes and preprocessing are in its metadata. Graphs for ONNX Runtime
and OpenVINO have zeros among their channels, because these are faster so (`padding`); the budget counts the net, and
the metadata says how many parameters were counted and how many the file has.
"""

import io
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from bantam.compress.integers import (
    INT8,
    calibration_batches,
    layers_of,
    post_training,
    unquantized,
)
from bantam.compress.qdq import quantized_model
from bantam.data.splits import LabelledSplit, Normalisation, Splits, require_labelled
from bantam.deliver.export import TARGETS, example, require_form
from bantam.deliver.export.padding import padded, parameters_in
from bantam.deliver.export.session import onnx_session
from bantam.errors import BadData, ParityFailed
from bantam.files import replacing, write_text
from bantam.measure.accuracy import accuracy
from bantam.measure.logits import logits_of
from bantam.nets.budget import weigh
from bantam.nets.fold import deploy
from bantam.nets.output import StagedNet
from bantam.nets.portable import INPUT, OUTPUT, Portable, describe, metadata, onnx_model, quiet, with_weights
from bantam.runs.finished import FinishedRun
from bantam.runs.shipped import Shipped

Answer = Callable[[Tensor], Tensor]
"""Images float32 [N, 3, S, S] in 0..1 to logits float32 [N, K]."""

PIXELS = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
"""What exported graphs want to see: 0..1."""


@dataclass(frozen=True)
class Gate:
    """What an exported graph may differ in from PyTorch's float32: the largest difference of a logit, the least share
    of images with the same class, and the most accuracy lost.

    Of few images a share or a loss says little: one image may always have another class, and a loss passes that is no
    larger than the standard error of the difference between the two, of which each image with another class is a draw.
    """

    difference: float
    agreement: float
    lost: float


EXACT = Gate(difference=1e-3, agreement=0.999, lost=0.001)
INTEGER = Gate(difference=float("inf"), agreement=0.9, lost=0.01)
"""Rounding moves logits of unsure images by design, so integers are held to their answers alone."""


@dataclass(frozen=True)
class Parity:
    """An exported graph beside PyTorch on the same `n` labelled images."""

    difference: float
    agreement: float
    accuracy: float
    reference: float
    n: int
    note: str = ""

    def passes(self, gate: Gate) -> bool:
        others = round((1 - self.agreement) * self.n)
        agrees = self.agreement >= gate.agreement or others <= 1
        lost = round((self.reference - self.accuracy) * self.n)
        return self.difference <= gate.difference and agrees and lost <= max(gate.lost * self.n, math.sqrt(others))

    def text(self) -> str:
        return (
            f"largest difference of a logit {self.difference:.2g}, same class on {self.agreement:.1%}, accuracy "
            f"{self.accuracy:.4f} against {self.reference:.4f} in PyTorch, n = {self.n:,}"
            f"{self.note and f'; {self.note}'}"
        )


@dataclass(frozen=True)
class Material:
    """What an export is made of: a finished run, its shipped net, and the photographs."""

    run: FinishedRun
    net: StagedNet
    shipped: Shipped
    splits: Splits


@dataclass(frozen=True)
class Target:
    """A format: how a file's bytes are made, how they answer, how exact they have to be, how the file's name ends.

    `mark` stands in its usual name before the end; `require` raises BadData where a package for it is not installed.
    `beside` are the ends of further files, which whoever opens the first finds next to it: `encode` gives a tuple then.
    `exits` says whether the early exits of a student are part of the file, `examples` whether examples of how to run it
    (`bantam.deliver.export.example`) are written too; `program` makes a main program around source code of this name.
    """

    encode: Callable[[Material], bytes | tuple[bytes, ...]]
    answer: Callable[..., Answer]
    gate: Gate
    suffix: str
    mark: str = ""
    require: Callable[[], None] = lambda: None
    beside: tuple[str, ...] = ()
    examples: bool = False
    exits: bool = False
    program: Callable[[Material, str], bytes] | None = None

    def made(self, material: Material) -> tuple[tuple[bytes, ...], Parity]:
        """The files, and how their answers on validation compare with PyTorch's."""
        encoded = self.encode(material)
        files = encoded if isinstance(encoded, tuple) else (encoded,)
        return files, compare(self.answer(*files), material.net, material.shipped, material.splits.validation)

    def paths(self, path: Path) -> list[Path]:
        """The files of the export to `path`."""
        return [path, *(path.with_suffix(suffix) for suffix in self.beside)]


def export(material: Material, to: str, path: Path, program: bool = False) -> Parity:
    """Write the student in the format `to`, a key of TARGETS, to `path` if it passes the format's gate on validation.

    With `program` a main program beside it, of formats that have one. Raises ParityFailed, and BadData (an unknown
    format, a file name of another format, photographs of other classes); nothing is written then.
    """
    target = target_of(to)
    main = program_of(target, material, to, path) if program else None
    if path.suffix != target.suffix:
        raise BadData(f"{to} files end in {target.suffix}, and {path} does not; choose another --out")
    material.shipped.require_classes(material.splits)
    files, parity = target.made(material)
    if not parity.passes(target.gate):
        raise ParityFailed(f"{path} is not written: {to} does not compute what PyTorch does: {parity.text()}")
    if len(files) > 1:  # Killed in between, there is nothing to open, never an old file beside a new one.
        path.unlink(missing_ok=True)
    for place, data in reversed(list(zip(target.paths(path), files, strict=True))):
        with replacing(place) as temporary:
            temporary.write_bytes(data)
    if main is not None:
        with replacing(path.with_name(MAIN + path.suffix)) as temporary:
            temporary.write_bytes(main)
    if target.examples:
        size, stored = material.shipped.student.size, material.run.stored
        for place, text in example.texts(path, material.shipped.classes, stored, size).items():
            write_text(place, text)
    return parity


MAIN = "main"
"""The name of an example's file, without its end."""


def program_of(target: Target, material: Material, to: str, path: Path) -> bytes:
    """The main program that shows the use of the export to `path`. Raises BadData for a format that has none."""
    if target.program is None:
        raise BadData(f"--example goes with forms that are source code, and {to} is none; use --to c, or leave it out")
    if path.stem == MAIN:
        raise BadData(f"--example writes {MAIN}{path.suffix}, and so would --out {path}; choose another --out")
    return target.program(material, path.stem)


def target_of(to: str) -> Target:
    """Look up a format. Raises BadData for one that there is not, or whose package is not installed."""
    require_form(to)
    TARGETS[to].require()
    return TARGETS[to]


def compare(answer: Answer, net: nn.Module, shipped: Shipped, validation: LabelledSplit) -> Parity:
    """Compare `answer` with `net` on every image of `validation`."""
    validation = require_labelled(validation, "the parity check")
    size = shipped.student.size
    reference = logits_of(net, validation, size, shipped.normalisation)
    return parity_of(reference, logits_of(net, validation, size, PIXELS, look=answer), validation)


def parity_of(reference: Tensor, exported: Tensor, validation: LabelledSplit, note: str = "") -> Parity:
    """Compare the logits [N, K] of an exported student with those of PyTorch."""
    return Parity(
        difference=float((reference - exported).abs().max()),
        agreement=float((reference.argmax(1) == exported.argmax(1)).double().mean()),
        accuracy=accuracy(exported, validation.labels).value,
        reference=accuracy(reference, validation.labels).value,
        n=len(validation),
        note=note,
    )


def about(shipped: Shipped, numbers: str, **parameters: int) -> dict[str, str]:
    """The metadata of an exported file; `numbers` says what its weights are, `parameters` how many there are."""
    student, normalisation = shipped.student, shipped.normalisation
    facts = {"family": student.family, "shape": student.shape, "numbers": numbers, **parameters}
    return metadata(shipped.classes, student.size, normalisation.mean, normalisation.std, facts)


def portable(net: nn.Module, shipped: Shipped) -> Portable:
    """`net` behind the normalisation that it was trained with."""
    return Portable(net, shipped.normalisation.mean, shipped.normalisation.std).eval()


def told(net: nn.Module, shipped: Shipped, numbers: str, in_file: int) -> dict[str, str]:
    """The metadata of a file with `in_file` parameters that computes what `net` does."""
    counted = weigh(net, shipped.student.size).counted
    return about(shipped, numbers, parameters_counted=counted, parameters_in_file=in_file)


def told_as_it_is(net: nn.Module, shipped: Shipped) -> dict[str, str]:
    """The metadata of a file that holds the parameters of `net` and no others."""
    return told(net, shipped, "float32", sum(parameter.numel() for parameter in net.parameters()))


def plain_onnx(net: nn.Module, shipped: Shipped) -> onnx.ModelProto:
    """The ONNX of a plain net, layer by layer what it is: what integers are written into, and what browsers run."""
    return onnx_model(portable(net, shipped), shipped.student.size, told_as_it_is(net, shipped))


def float_onnx(net: nn.Module, shipped: Shipped) -> onnx.ModelProto:
    """The ONNX of a plain net, as ONNX Runtime computes it fastest."""
    return for_runtime(plain_onnx(net, shipped), net, shipped)


def for_runtime(plain: onnx.ModelProto, net: nn.Module, shipped: Shipped) -> onnx.ModelProto:
    """What `float_onnx` gives for a `net` whose `plain_onnx` is there already."""
    model = padded(plain)
    describe(model, told(net, shipped, "float32", parameters_in(model)))
    return model


def quantized_onnx(net: StagedNet, plain: onnx.ModelProto, shipped: Shipped, numbers: str) -> bytes:
    """The ONNX of a net of QuantizedLayers; `plain` is the `plain_onnx` of the net that it was made of, folded.

    Integers of 4 bits are for size, so they get no zeros.
    """
    floating = unquantized(net)
    model = quantized_model(with_weights(plain, portable(floating, shipped), about(shipped, numbers)), net)
    if all(layer.bits == 8 for layer in layers_of(net).values()):
        model = padded(model)
    describe(model, told(floating, shipped, numbers, parameters_in(model)))
    return model.SerializeToString()


def int8_onnx(material: Material) -> bytes:
    """What `bantam quantize` chose in this run, or post-training quantization, calibrated on training images."""
    if (material.run.quantized / "int8.onnx").exists():
        return material.run.quantized_graph("int8.onnx")
    shipped = material.shipped
    batches = calibration_batches(material.splits.training, shipped.student.size, shipped.normalisation)
    student, _ = post_training(material.net, INT8, batches)
    return quantized_onnx(student, plain_onnx(deploy(material.net), shipped), shipped, "int8")


def onnx_answer(encoded: bytes) -> Answer:
    """What an ONNX file says, in ONNX Runtime."""
    session = onnx_session(encoded)

    def answer(images: Tensor) -> Tensor:
        logits = session.run([OUTPUT], {INPUT: images.contiguous().numpy()})[0]
        return torch.from_numpy(np.asarray(logits))

    return answer


def torchscript(material: Material) -> bytes:
    """The traced graph; the metadata is in its extra file metadata.json."""
    size = material.shipped.student.size
    buffer = io.BytesIO()
    with quiet(), torch.no_grad():
        traced = torch.jit.trace(portable(material.net, material.shipped), torch.zeros(2, 3, size, size))
        extra = {"metadata.json": json.dumps(told_as_it_is(material.net, material.shipped))}
        torch.jit.save(torch.jit.freeze(traced), buffer, _extra_files=extra)
    return buffer.getvalue()


def torchscript_answer(encoded: bytes) -> Answer:
    """What a TorchScript file says."""
    with quiet():
        return torch.jit.load(io.BytesIO(encoded), map_location="cpu")


ONNX = Target(
    lambda material: float_onnx(material.net, material.shipped).SerializeToString(),
    onnx_answer,
    EXACT,
    ".onnx",
    examples=True,
)

ONNX_INT8 = Target(int8_onnx, onnx_answer, INTEGER, ".onnx", mark="-int8", examples=True)

TORCHSCRIPT = Target(torchscript, torchscript_answer, EXACT, ".pt")
