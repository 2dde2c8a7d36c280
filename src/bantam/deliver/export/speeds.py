"""How fast a shipped student answers in each of its forms on this machine: one thread, all forms in turns."""

import importlib.util
import io
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from bantam.compress.integers import INT8, calibrate, quantized
from bantam.data import images as decoding
from bantam.data.augment import plain
from bantam.deliver.export import openvino as ir
from bantam.deliver.export.forms import (
    PIXELS,
    Answer,
    for_runtime,
    onnx_answer,
    plain_onnx,
    quantized_onnx,
)
from bantam.deliver.report.units import significant
from bantam.measure.cost import one_thread
from bantam.measure.turns import in_turns
from bantam.nets.fold import deploy
from bantam.nets.output import StagedNet
from bantam.runs.finished import FinishedRun
from bantam.runs.shipped import Shipped

BATCHES = (1, 64)

ROUNDS = 20
"""Turns of each form."""

FILE_TO_CLASS = "file to class"
NET_ALONE = "net alone"


@dataclass(frozen=True)
class Speed:
    """What a form took for a batch, in milliseconds: the median and the two quartiles of its turns.

    `what` is NET_ALONE, or FILE_TO_CLASS with decoding, resizing and the choice of the class.
    """

    form: str
    what: str
    batch: int
    median_ms: float
    quartiles_ms: tuple[float, float]

    def to_json(self) -> dict[str, Any]:
        """Return a dict that `json` can write."""
        return asdict(self)


def form_speeds(run: FinishedRun, rounds: int = ROUNDS) -> list[Speed]:
    """Time the whole way of the student that `run` shipped, in PyTorch, ONNX Runtime, and OpenVINO if it is installed.

    Raises BadData for a folder without a finished run, BadCheckpoint for weights that do not load.
    """
    net, shipped = run.whole_way()
    size, normalisation = shipped.student.size, shipped.normalisation
    answers = answers_of(run, net, shipped)
    photograph = jpeg()
    speeds: list[Speed] = []

    def classified(answer: Answer, form: str) -> None:
        seen = normalisation if form == "PyTorch" else PIXELS
        pixels = torch.from_numpy(decoding.decode_bytes(photograph, Path("the photograph"), size))[None]
        answer(plain(pixels, size, seen.mean, seen.std)).argmax(1)

    with one_thread(), torch.inference_mode():
        for batch in BATCHES:
            views = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
            last = views.contiguous(memory_format=torch.channels_last)  # how PyTorch is given them, and it alone
            passes = {
                form: lambda answer=answer, given=last if form == "PyTorch" else views: answer(given)
                for form, answer in answers.items()
            }
            speeds += timed(passes, NET_ALONE, batch, rounds)
        whole = {form: lambda answer=answer, form=form: classified(answer, form) for form, answer in answers.items()}
        speeds += timed(whole, FILE_TO_CLASS, 1, rounds)
    return speeds


def answers_of(run: FinishedRun, net: StagedNet, shipped: Shipped) -> dict[str, Answer]:
    """The forms by name, each on one thread: of images [N, 3, S, S] the logits [N, K]."""
    graph = plain_onnx(deploy(net), shipped)
    padded = for_runtime(graph, net, shipped).SerializeToString()
    if (run.quantized / "int8.onnx").exists():
        integers = run.quantized_graph("int8.onnx")
    else:  # How fast it is does not depend on where its grids end.
        form = quantized(net, INT8)
        size = shipped.student.size
        calibrate(form, [torch.randn(8, 3, size, size, generator=torch.Generator().manual_seed(0))])
        integers = quantized_onnx(form, graph, shipped, "int8")
    answers: dict[str, Answer] = {
        "PyTorch": net.to(memory_format=torch.channels_last),
        "ONNX Runtime without zeros": onnx_answer(graph.SerializeToString()),
        "ONNX Runtime": onnx_answer(padded),
        "ONNX Runtime int8": onnx_answer(integers),
    }
    if importlib.util.find_spec("openvino") is not None:
        answers["OpenVINO"] = ir.Runtime(*ir.pair(padded), threads=1)
    return answers


def timed(passes: Mapping[str, Callable[[], object]], what: str, batch: int, rounds: int) -> list[Speed]:
    """The speeds of some passes, which take turns; in each turn one pass that is not timed goes before."""

    def seconds(one: Callable[[], object]) -> float:
        one()
        start = time.perf_counter()
        one()
        return time.perf_counter() - start

    measured = in_turns(rounds, {form: lambda one=one: seconds(one) for form, one in passes.items()})
    speeds: list[Speed] = []
    for form, taken in measured.items():
        low, middle, high = (1e3 * value for value in statistics.quantiles(taken, n=4, method="inclusive"))
        speeds.append(Speed(form, what, batch, middle, (low, high)))
    return speeds


def jpeg() -> bytes:
    """A photograph of nothing, 512 x 384 pixels: soft patches of colour."""
    patches = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(patches).resize((512, 384), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def speeds_text(speeds: list[Speed]) -> str:
    """For each form the median of each of the things that were timed, and below it the quartiles."""
    columns = list(dict.fromkeys((speed.what, speed.batch) for speed in speeds))
    rows = [["", *(what for what, _ in columns)]]
    rows.append(["form", *(f"{batch} image{'s' if batch > 1 else ''}, ms" for _, batch in columns)])
    for form in dict.fromkeys(speed.form for speed in speeds):
        found = {(speed.what, speed.batch): speed for speed in speeds if speed.form == form}
        rows.append([form, *(significant(found[column].median_ms) for column in columns)])
        rows.append(["", *(f"({' to '.join(map(significant, found[column].quartiles_ms))})" for column in columns)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    )
