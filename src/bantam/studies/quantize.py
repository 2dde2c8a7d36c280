"""THE PATH of `bantam quantize`: a finished run's student on integers, by rounding and by training, beside float32.

RUN/quantized/
  fp32.onnx  int8-ptq.onnx  int8-qat.onnx  int4-ptq.onnx  int4-qat.onnx
  int8.onnx               the int8 form with the better validation accuracy; `bantam export --to onnx-int8` takes it
  int4.bantam4            the better int4 form packed (`bantam.compress.packed`)
  int8-qat/ int4-qat/     the trainings, resumable like a run's stages
  quantization.json .csv .svg
"""

import copy
import csv
import hashlib
import json
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from bantam.compress import packed
from bantam.compress.integers import (
    INT4,
    INT8,
    Precision,
    calibration_batches,
    post_training,
)
from bantam.deliver.export.forms import (
    PIXELS,
    for_runtime,
    onnx_answer,
    onnx_session,
    plain_onnx,
    quantized_onnx,
)
from bantam.errors import BadData, RunMismatch
from bantam.files import replacing, sha256_of, writing
from bantam.measure.accuracy import accuracy, hits, mcnemar
from bantam.measure.logits import logits_of
from bantam.measure.plots import plot_quantization
from bantam.nets.fold import deploy
from bantam.nets.output import StagedNet
from bantam.nets.portable import INPUT, OUTPUT
from bantam.pipeline.stages import (
    STAGES,
    Run,
    learned_from,
    plan_of,
)
from bantam.recipes.kinds.training import Training
from bantam.runs import checkpoint, runfolder
from bantam.runs.environment import environment
from bantam.runs.finished import FinishedRun, open_run
from bantam.runs.shipped import Shipped
from bantam.runs.watcher import Watcher
from bantam.train.arithmetic import Arithmetic, safe_format
from bantam.train.distributed import ALONE
from bantam.train.loop import train
from bantam.train.place import Place

PRECISIONS: dict[str, Precision] = {"int8": INT8, "int4": INT4}

GENTLE = 0.05
"""The peak learning rate of quantization-aware training as a share of the recipe's: the net is trained already."""

ROUNDS, WARM_UP, TIMED = 30, 3, 5
"""Turns of each graph, and of a turn the passes that are not timed and those that are."""


def quantize(run: FinishedRun, root: Path, epochs: int, watcher: Watcher) -> dict[str, Any]:
    """Quantize the student that `run` shipped, with the photographs in `root`; gives what quantization.json holds.

    Ranges are calibrated on training images; `epochs` of training, with the recipe's objectives and teachers, follow
    for each precision (0 for none); the better form of each is chosen on validation. Every accuracy and latency is
    that of the written ONNX file in ONNX Runtime, on one thread.

    Raises BadData, BadCheckpoint, RunMismatch.
    """
    net, shipped = run.whole_way()
    splits = run.open_data(root, watcher)
    if epochs:
        require_teachers(run)
    with runfolder.alone_in(run.folder):
        device = torch.device("cpu")
        here = Run(run.recipe, root, run.folder, splits, shipped.normalisation, device, watcher, ALONE, {})
        return measured_forms(net, shipped, epochs, here)


def measured_forms(net: StagedNet, shipped: Shipped, epochs: int, here: Run) -> dict[str, Any]:
    """Make and measure every form of `net`, and write RUN/quantized; gives what quantization.json holds."""
    splits, folder = here.splits, open_run(here.out).quantized
    forms: dict[str, StagedNet] = {}
    ways: dict[str, str] = {}
    batches = calibration_batches(splits.training, shipped.student.size, shipped.normalisation)
    for name, precision in PRECISIONS.items():
        form, ways[name] = post_training(net, precision, batches)
        forms[f"{name}-ptq"] = form
        if epochs:
            start = copy.deepcopy(form)
            forms[f"{name}-qat"] = in_training(start, f"{name}-qat", epochs, here)
    plain = plain_onnx(deploy(net), shipped)
    encoded = {"fp32": for_runtime(plain, net, shipped).SerializeToString()}
    encoded |= {name: quantized_onnx(form, plain, shipped, name) for name, form in forms.items()}

    validation, size = splits.validation, shipped.student.size
    logits = {
        name: logits_of(net, validation, size, PIXELS, look=onnx_answer(graph)) for name, graph in encoded.items()
    }
    times = latencies(encoded, size)
    rows = [
        row_of(name, logits[name], logits["fp32"], validation.labels, len(graph), times[name])
        for name, graph in encoded.items()
    ]
    by_name = {row["name"]: row for row in rows}
    best = {
        name: max((form for form in forms if form.startswith(name)), key=lambda form: by_name[form]["accuracy"])
        for name in PRECISIONS
    }
    with replacing(folder / "int4.bantam4") as temporary:
        temporary.write_bytes(packed.dumps(forms[best["int4"]], shipped.to_json()))
    graphs = {**encoded, "int8": encoded[best["int8"]]}
    for name, graph in graphs.items():
        with replacing(folder / f"{name}.onnx") as temporary:
            temporary.write_bytes(graph)
    result = {
        "student": shipped.student.family,
        "epochs": epochs,
        "rows": rows,
        "post_training": ways,
        "chosen": best,
        "files": {f"{name}.onnx": hashlib.sha256(graph).hexdigest() for name, graph in graphs.items()},
        "packed_int4_bytes": (folder / "int4.bantam4").stat().st_size,
        "advice": advice(by_name["fp32"], by_name[best["int8"]]),
        "environment": {**environment(), "onnxruntime": onnxruntime.__version__},
    }
    result = runfolder.write(folder / runfolder.QUANTIZATION, result)
    with writing(folder / "quantization.csv") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    plot_quantization(rows, folder / "quantization.svg")
    return result


def in_training(net: StagedNet, name: str, epochs: int, here: Run) -> StagedNet:
    """Quantization-aware training of `net` in the run's folder quantized/NAME; goes on with one that was killed."""
    recipe, run, splits = here.recipe, open_run(here.out), here.splits
    source = recipe.shipped
    stage = replace(
        source, name=name, epochs=epochs, optimizer=replace(source.optimizer, lr=GENTLE * source.optimizer.lr)
    )
    folder = run.quantized / name
    settings, done = folder / "stage.json", folder / runfolder.BEST
    weights = sha256_of(run.weights)
    told = {"stage": asdict(stage), "seed": recipe.seed, "data": splits.fingerprint, "student": weights}
    told = json.loads(json.dumps(told))
    if settings.exists() and runfolder.table(settings, f"delete the folder {folder} and run again") != told:
        raise RunMismatch(f"{folder} holds a training with other settings, such as another --epochs; delete the folder")
    runfolder.write(settings, told)
    if not done.exists():
        for earlier in recipe.stage:
            if earlier.name in stage.teachers:
                STAGES[earlier.kind](here, earlier)
        plan = plan_of(here, stage, learned_from(splits, stage), splits.fingerprint)
        torch.manual_seed(recipe.seed)
        arithmetic = Arithmetic(memory_format=safe_format(net))
        net = net.to(memory_format=arithmetic.format)
        trained = train(net, plan, splits.validation, Place(folder, here.watcher), arithmetic)
        checkpoint.save_weights(done, trained.weights)
        (folder / runfolder.LAST).unlink(missing_ok=True)
    advice = f"delete the folder {folder} and run again"
    checkpoint.fill(net, checkpoint.weights(done, advice=advice), done, advice)
    return net.eval()


def require_teachers(run: FinishedRun) -> None:
    """Raises BadData where a teacher that quantization-aware training would ask is not in the run's folder."""
    for stage in run.recipe.stage:
        asked = isinstance(stage, Training) and stage.name in run.recipe.shipped.teachers
        if asked and not (run.stage(stage.name) / runfolder.BEST).exists():
            raise BadData(
                f'{run} has no weights of its teacher "{stage.name}", which training on integers asks; '
                "give the whole run folder, or --epochs 0"
            )


def row_of(
    name: str, logits: Tensor, reference: Tensor, labels: Tensor, size: int, times: list[float]
) -> dict[str, Any]:
    """One line of the table: accuracy, the comparison with fp32, the file's bytes, the time of an image."""
    measured = accuracy(logits, labels)
    paired = mcnemar(hits(reference, labels), hits(logits, labels))
    return {
        "name": name,
        "accuracy": measured.value,
        "standard_error": measured.standard_error,
        "n": measured.n,
        "only_fp32_right": paired.only_a,
        "only_this_right": paired.only_b,
        "mcnemar_p": paired.p,
        "agreement": float((logits.argmax(1) == reference.argmax(1)).double().mean()),
        "bytes": size,
        "median_ms": 1e3 * statistics.median(times),
        "p95_ms": 1e3 * statistics.quantiles(times, n=20, method="inclusive")[-1],
    }


def latencies(encoded: Mapping[str, bytes], size: int) -> dict[str, list[float]]:
    """Seconds of single passes with one image on one thread of ONNX Runtime; the graphs take turns."""
    sessions = {name: onnx_session(graph) for name, graph in encoded.items()}
    image = np.random.default_rng(0).random((1, 3, size, size), dtype=np.float32)
    seconds: dict[str, list[float]] = {name: [] for name in encoded}
    for _ in range(ROUNDS):
        for name, session in sessions.items():
            for turn in range(WARM_UP + TIMED):
                start = time.perf_counter()
                session.run([OUTPUT], {INPUT: image})
                if turn >= WARM_UP:
                    seconds[name].append(time.perf_counter() - start)
    return seconds


def advice(fp32: dict[str, Any], int8: dict[str, Any]) -> str:
    """What to use on this machine, from the measured latencies."""
    ratio = fp32["median_ms"] / int8["median_ms"]
    if ratio > 1.05:
        speed = f"on this machine int8 answers {ratio:.2f} times as fast as fp32: use int8 here"
    elif ratio < 0.95:
        speed = (
            f"on this machine int8 is slower than fp32, by a factor of {1 / ratio:.2f}: use fp32 here, int8 for size"
        )
    else:
        speed = "on this machine int8 and fp32 are equally fast within 5%: choose by size"
    return f"{speed}; int4 is for size, its weights are computed with in float32"


def table(result: dict[str, Any]) -> str:
    """The rows for a terminal."""
    heads = ("form", "validation", "p", "agreement", "kB", "median", "95%")
    lines = [heads] + [
        (
            row["name"],
            f"{row['accuracy']:.4f} ± {row['standard_error']:.4f}",
            f"{row['mcnemar_p']:.3f}" if row["name"] != "fp32" else "-",
            f"{row['agreement']:.1%}",
            f"{row['bytes'] / 1e3:.1f}",
            f"{row['median_ms']:.2f} ms",
            f"{row['p95_ms']:.2f} ms",
        )
        for row in result["rows"]
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join(
            [line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in lines
    ]
    n = result["rows"][0]["n"]
    chosen = ", ".join(result["chosen"].values())
    text.append(f"n = {n:,} validation images; p: McNemar against fp32; one image, one thread, ONNX Runtime")
    text.append(f"chosen: {chosen}; int4 packed: {result['packed_int4_bytes'] / 1e3:.1f} kB")
    text.append(result["advice"])
    return "\n".join(text)
