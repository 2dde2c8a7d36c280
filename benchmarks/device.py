"""Students as C files on emulated Cortex-M boards: scores, flash, RAM, instructions of an image; and how fast on a PC.

    python benchmarks/device.py boss quick exits --data FOLDER       # results/benchmarks/device.json
    python benchmarks/device.py boss quick --data FOLDER --speed     # results/benchmarks/device_speed.json

The names are runs below results/food-11. Each is exported through its gate (every validation image, in the system's
compiler), and run on 200 validation images on each core, where every score has to be the same again. With --speed the
same file as a library of this machine stands beside ONNX Runtime, int8 and float32, one thread, all in turns.
"""

import argparse
import ctypes
import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bantam.deliver.export.c import C, c_file, images_of
from bantam.deliver.export.compiled import compiler
from bantam.deliver.export.forms import Material, float_onnx, int8_onnx, onnx_session
from bantam.errors import BadData
from bantam.measure.turns import in_turns
from bantam.nets.early_exit import without_exits
from bantam.nets.footprint import footprint
from bantam.nets.portable import INPUT, OUTPUT
from bantam.runs.finished import open_run
from bantam.runs.watcher import Watcher
from emulated import CORES, measured, missing
from evidence import ROOT, write

IMAGES = 200
"""Validation images, drawn evenly, that each core sees."""

PASSES, ROUNDS = 10, 30


def material_of(name: str, data: Path) -> Material:
    run = open_run(ROOT / "results" / "food-11" / name)
    net, shipped = run.at_switch()
    return Material(run, net, shipped, run.open_data(data, Watcher()))


def rows_of(name: str, data: Path) -> dict[str, Any]:
    """What one student's file is held to, says and needs."""
    material = material_of(name, data)
    (source, header), parity = C.made(material)
    if not parity.passes(C.gate):
        raise BadData(f"{name}: {parity.text()}")
    made = c_file(material)
    validation = images_of(material.splits.validation, made.facts.size)
    images = validation[torch.linspace(0, len(validation) - 1, IMAGES).long()]
    expected, left = made.expected(images, made.facts.threshold)
    cores: list[dict[str, Any]] = []
    for core in CORES.values():
        with tempfile.TemporaryDirectory() as folder:
            found = measured(core, source, header, images, len(made.facts.classes), Path(folder))
        if not (torch.equal(found.scores, expected) and torch.equal(found.left, left)):
            raise BadData(f"{name} says something else on {core.name} than its simulation")
        taken = found.instructions
        cores.append(
            {
                "core": core.name,
                "machine": core.machine,
                "flash": found.flash,
                "ram": found.ram,
                "instructions": {"median": float(taken.median()), "min": float(taken.min()), "max": float(taken.max())},
            }
        )
    return {
        "run": name,
        "family": material.shipped.student.family,
        "size": made.facts.size,
        "macs": footprint(material.net, made.facts.size).macs,
        "ram_planned": made.arena.ram,
        "accuracy": parity.accuracy,
        "accuracy_fp32": parity.reference,
        "agreement": parity.agreement,
        "n": parity.n,
        "left_early": float((left < made.student.program.answers - 1).double().mean()),
        "threshold": made.facts.threshold if made.student.program.answers > 1 else None,
        "images": IMAGES,
        "cores": cores,
    }


def library(source: bytes, folder: Path) -> Callable[[np.ndarray], None]:
    """The student's file as a library of this machine, vectorised by the compiler."""
    (folder / "student.c").write_bytes(source)
    words = [
        compiler() or "cc",
        "-std=c99",
        "-O3",
        "-march=native",
        "-shared",
        "-fPIC",
        "student.c",
        "-o",
        "student.so",
    ]
    subprocess.run(words, cwd=folder, check=True)
    classify = ctypes.CDLL(str(folder / "student.so")).bantam_classify
    scores = (ctypes.c_float * 1000)()

    def answer(image: np.ndarray) -> None:
        classify(image.ctypes.data_as(ctypes.c_void_p), scores)

    return answer


def seconds_of(answer: Callable[[], Any]) -> float:
    start = time.perf_counter()
    for _ in range(PASSES):
        answer()
    return (time.perf_counter() - start) / PASSES


def speeds_of(name: str, data: Path) -> dict[str, Any]:
    """Milliseconds of an image, one thread: the C file, and ONNX Runtime with int8 and float32."""
    torch.set_num_threads(1)
    material = material_of(name, data)
    whole = Material(material.run, without_exits(material.net), material.shipped, material.splits)
    made = c_file(whole)
    image = images_of(material.splits.validation, made.facts.size)[0].numpy()
    floats = (image.transpose(2, 0, 1)[None] / 255).astype(np.float32)
    sessions = {
        "ONNX Runtime, int8": onnx_session(int8_onnx(whole)),
        "ONNX Runtime, float32": onnx_session(float_onnx(whole.net, whole.shipped).SerializeToString()),
    }
    with tempfile.TemporaryDirectory() as folder:
        classify = library(made.files()[0], Path(folder))
        contestants: dict[str, Callable[[], float]] = {
            "C, -O3 -march=native": lambda: seconds_of(lambda: classify(image))
        }
        for form, session in sessions.items():
            contestants[form] = lambda session=session: seconds_of(lambda: session.run([OUTPUT], {INPUT: floats}))
        turns = in_turns(ROUNDS, contestants)
    return {
        "run": name,
        "forms": [
            {"form": form, "median_ms": 1e3 * statistics.median(taken), "quartiles_ms": [1e3 * one for one in
             statistics.quantiles(taken, n=4)]}
            for form, taken in turns.items()
        ],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--speed", action="store_true")
    options = parser.parse_args()
    if not options.speed and missing():
        parser.error(
            f"not installed: {missing()}; apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm"
        )
    make, name = (speeds_of, "device_speed.json") if options.speed else (rows_of, "device.json")
    rows: list[dict[str, Any]] = []
    for run in options.runs:
        rows.append(make(run, options.data))
        print(json.dumps(rows[-1]), flush=True)
    write(ROOT / "results" / "benchmarks" / name, {"rows": rows})


if __name__ == "__main__":
    main()
