"""How fast training is, against the net alone and against the sample code's way, measured in one run on this machine.

    python benchmarks/throughput.py [--data DIR] [--quick] [--compile] [--out FILE]

Prints and writes, for two students at 64 px in batches of 64:
  - net alone: forward, backward and optimizer on one random batch that stays on the device;
  - whole step: the training's own step, with reading, augmentation, targets and averaged weights;
  - sample code: Pillow opens each image, resizes it to 256, crops 224, flips and normalises it, in this process; the
    batch is then shrunk to the 64 px of the others ("loader"), or goes to the net at 224 px, which is what the sample
    code really does ("at 224 px");
  - cached teacher, live teacher: the whole step with distillation, and the teacher's answers looked up or asked for.
And: the time an image takes in data sets of 1,000 to 100,000 images; what keeping freed memory brings; the peak memory
of `bantam run simple`; training from an array larger than what the process may have. With a GPU, also what gpu.py
measures.

Without --data the photographs are generated, at 64 px: the smallest files, and so the fastest for the sample code. All
contestants of a comparison take turns; ratios of medians over these rounds are what to look at.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

import gpu
from bantam.data import batches
from bantam.data.folder import scan
from bantam.data.splits import IMAGENET, LabelledSplit
from bantam.files import explained, write_json
from bantam.measure.turns import in_turns
from bantam.nets.students import describe
from bantam.pipeline import run as pipeline
from bantam.recipes import recipe
from bantam.train.ahead import Ahead
from bantam.train.allocator import keep_memory
from bantam.train.arithmetic import Arithmetic, choose
from bantam.train.bench import answers_for, first
from bantam.train.capture import Captured
from bantam.train.place import Place
from bantam.train.plan import Plan
from bantam.train.step import Step
from evidence import RESULTS, made_by, medians, synchronise, write
from photographs import CLASSES, array_split, write_folder
from sample_code import TRAINING_VIEW, Photographs

AnyStep = TypeVar("AnyStep", bound=Step)

SIZE = 64
LOADER_BATCHES = 5  # of the sample code's, in a round: they are slow
LIVE_BATCHES = 2  # of those about which the teacher is asked
NETS = ("sample", "mobilenet_v1")
HERE = Path(__file__).parent
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Scale:
    """How much is measured: batches of so many images, so many steps in a round, so many rounds."""

    batch: int
    steps: int
    rounds: int


QUICK = Scale(4, 1, 1)
ON_CPU = Scale(64, 20, 7)
ON_GPU = Scale(64, 200, 3)


class NetAlone(Step):
    """A step whose views are there already and whose weights are not averaged: forward, backward and optimizer."""

    resident: tuple[Tensor, Tensor] | None = None

    def look(self, index: Tensor, view: Tensor) -> tuple[Tensor, Tensor]:
        return self.resident or super().look(index, view)


def step_of(net: str, training: LabelledSplit, batch: int) -> tuple[Step, Arithmetic]:
    """The training step of recipe `quick`, but for the teacher, of the student `net`; with its precision."""
    return made(Step, net, training, batch, [])


def net_alone(net: str, training: LabelledSplit, batch: int) -> NetAlone:
    step, _ = made(NetAlone, net, training, batch, ["student.ema=0.0"])
    index = torch.arange(batch, device=step.device)
    step.resident = step.look(index, torch.zeros_like(index))
    return step


def made(
    kind: type[AnyStep], net: str, training: LabelledSplit, batch: int, settings: list[str], folder: Path | None = None
) -> tuple[AnyStep, Arithmetic]:
    """A step; with `folder` for cached answers it distils, and asks the teacher live where `settings` say views = 0."""
    quick = recipe.load("quick", [f"student.net={net}", f"student.batch_size={batch}", *settings])
    stage = quick.shipped
    student = describe(net, quick.budget, len(training.classes), SIZE).build()
    student = student.to(DEVICE).train()
    choice = choose(student, SIZE, "auto")
    student = student.to(memory_format=choice.format)
    goals = pipeline.goals_of(stage)
    answers = None
    if folder is None:
        goals = {"supervised": goals["supervised"]}
    else:
        answers = answers_for(quick, stage, training, goals, DEVICE, Place(folder))
    step = kind(student, Plan(stage, training, IMAGENET, goals, answers), 100_000, choice)
    if DEVICE.type == "cuda":
        step.settle()
    step.begin(0)
    return step, choice


def replayed(step: Step, batch: int) -> Callable[[Tensor, Tensor], object]:
    """The step itself; on a GPU replayed from a CUDA graph."""
    if step.device.type != "cuda":
        return step
    index = torch.arange(batch, device=step.device)
    return Captured(step, index, torch.zeros_like(index))


class AsTrained:
    """The step as the training loop runs it over the rows of `order` [steps, B]: on a CPU, with the next views ahead.

    Called with a number it takes that step. Whether the second thread stays is decided before anything is timed.
    """

    def __init__(self, step: Step, order: Tensor) -> None:
        self.order, self.view = order, torch.zeros_like(order[0])
        self.step = replayed(step, order.shape[1])
        self.ahead = Ahead(step) if step.device.type == "cpu" else None
        number = 0
        while self.ahead and self.ahead.pays is None:
            self(number)
            number += 1

    def __call__(self, number: int) -> object:
        index, following = (self.order[each % len(self.order)] for each in (number, number + 1))
        return self.ahead(index, self.view, following) if self.ahead else self.step(index, self.view)


def timed(steps: int, work: Callable[[int], object], batch: int) -> float:
    """Images a second of `work(number)`, called for `steps` batches."""
    synchronise()
    started = time.perf_counter()
    for number in range(steps):
        work(number)
    synchronise()
    return steps * batch / (time.perf_counter() - started)


def training_speed(net: str, training: LabelledSplit, folder: Path, answers: Path, scale: Scale) -> dict[str, Any]:
    """Images a second of the student `net`: alone, in the whole step, taught, and fed in the sample code's way.

    `folder` has the photographs, `answers` will have the teacher's.
    """
    batch, steps = scale.batch, scale.steps
    step, choice = step_of(net, training, batch)
    fed = net_alone(net, training, batch)
    order = batches.epoch(len(training), batch, 0, 0).to(step.device)
    view = torch.zeros_like(order[0])
    loader = DataLoader(Photographs(scan(folder).training, TRAINING_VIEW), batch, shuffle=True, drop_last=True)

    def sample_code(side: int) -> float:
        opened = iter(loader)

        def one(_: int) -> None:
            images, labels = next(opened)  # [B, 3, 224, 224], [B]
            images = images.to(fed.device)
            if side != images.shape[-1]:
                images = F.interpolate(images, (side, side), mode="bilinear", antialias=True)
            targets = F.one_hot(labels, fed.classes).float().to(fed.device)
            fed.resident = images.contiguous(memory_format=torch.channels_last), targets
            fed(order[0], view)

        return timed(min(steps, LOADER_BATCHES, len(loader)), one, batch)

    alone = replayed(net_alone(net, training, batch), batch)
    # As many images as are shown: the answers on them are looked up, so somebody must have asked.
    shown = first(training, steps * batch)
    some = batches.epoch(len(shown), batch, 0, 0).to(step.device)
    looked_up, asked = (made(Step, net, shown, batch, [f"student.views={views}"], answers)[0] for views in (1, 0))
    with choice.threading():
        whole, cached, live = AsTrained(step, order), AsTrained(looked_up, some), AsTrained(asked, some)
        measured = in_turns(
            scale.rounds,
            {
                "net alone": lambda: timed(steps, lambda _: alone(order[0], view), batch),
                "whole step": lambda: timed(steps, whole, batch),
                "sample code, loader": lambda: sample_code(SIZE),
                "sample code, at 224 px": lambda: sample_code(224),
                "cached teacher": lambda: timed(steps, cached, batch),
                "live teacher": lambda: timed(LIVE_BATCHES, live, batch),
            },
        )
    speed = medians(measured)
    return {
        "net": net,
        "choice": choice.to_json(),
        "second_thread": {"time_of_a_step": whole.ahead.ratio, "kept": whole.ahead.pays} if whole.ahead else None,
        "images_per_second": speed,
        "of_net_alone": speed["whole step"] / speed["net alone"],
        "of_loader": speed["whole step"] / speed["sample code, loader"],
        "of_sample_code": speed["whole step"] / speed["sample code, at 224 px"],
        "cached_teacher_costs": speed["whole step"] / speed["cached teacher"],
        "live_teacher_costs": speed["whole step"] / speed["live teacher"],
        "rounds": measured,
    }


def flatness(folder: Path, counts: tuple[int, ...], scale: Scale) -> dict[str, Any]:
    """Microseconds an image in data sets of different sizes: the step, and the image's part of an epoch's order."""
    batch = scale.batch
    contestants: dict[str, Callable[[], float]] = {}
    for count in counts:
        training = array_split(folder / f"{count}.npy", count, SIZE)
        order = batches.epoch(count, batch, 0, 0).to(DEVICE)
        rows = order[torch.linspace(0, len(order) - 1, scale.steps).long()]
        step = AsTrained(step_of("mobilenet_v1", training, batch)[0], rows)

        def epoch(step: AsTrained, count: int) -> float:
            started = time.perf_counter()
            batches.epoch(count, batch, 0, 0).to(DEVICE)
            synchronise()
            ordering = (time.perf_counter() - started) / count
            return 1e6 * (ordering + 1 / timed(scale.steps, step, batch))

        contestants[f"{count}"] = partial(epoch, step, count)
    measured = in_turns(scale.rounds, contestants)
    microseconds = medians(measured)
    return {
        "microseconds_per_image": microseconds,
        "largest_to_smallest": microseconds[str(counts[-1])] / microseconds[str(counts[0])],
        "rounds": measured,
    }


def kept_memory(scale: Scale) -> dict[str, Any]:
    """What keeping freed memory brings the net alone: in new processes, for it cannot be taken back in one."""
    measured = in_turns(
        scale.rounds,
        {
            "kept": partial(child_speed, "kept", scale),
            "given back": partial(child_speed, "given back", scale),
        },
    )
    speed = medians(measured)
    return {"images_per_second": speed, "gain": speed["kept"] / speed["given back"], "rounds": measured}


def child_speed(memory: str, scale: Scale) -> float:
    command = [sys.executable, __file__, "--only-net-alone", memory, str(scale.batch), str(scale.steps)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def only_net_alone(memory: str, batch: int, steps: int) -> float:
    """Images a second of the net alone, in a process that keeps freed memory or gives it back."""
    if memory == "kept":
        keep_memory()
    images = torch.zeros(batch, SIZE, SIZE, 3, dtype=torch.uint8)
    ids = tuple(map(str, range(batch)))
    index = torch.arange(batch)
    step = net_alone("mobilenet_v1", LabelledSplit("training", images, index % len(CLASSES), ids, CLASSES), batch)
    view = torch.zeros_like(index)
    timed(3, lambda _: step(index, view), batch)
    return timed(steps, lambda _: step(index, view), batch)


WEIGHS_ITSELF = """
import sys
from bantam import cli
try:
    cli.main()
finally:
    lines = open("/proc/self/status").read().splitlines()
    print("peak", next(line.split()[1] for line in lines if line.startswith("VmHWM")), file=sys.stderr)
"""


def peak_memory(data: Path, folder: Path, steps: int) -> dict[str, Any]:
    """Peak resident bytes of a whole `bantam run simple`, decoding included, and of training beyond a limit.

    The run reads its own peak: what the system tells a parent about its child begins with the parent's own memory.
    Linux only; empty elsewhere.
    """
    if sys.platform != "linux":
        return {}
    command = [sys.executable, "-c", WEIGHS_ITSELF, "run", "simple", "--data", str(data), "--out", str(folder / "run")]
    command += ["--set", "student.epochs=1"]
    environment = {**os.environ, "BANTAM_CACHE": str(folder / "cache")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    peak = 1024 * int(done.stderr.split("peak ")[1])
    limited = [sys.executable, str(HERE / "footprint.py"), str(folder), "--steps", str(steps)]
    beyond = json.loads(subprocess.run(limited, capture_output=True, text=True, check=True).stdout)
    return {"images": len(scan(data).training), "peak_bytes": peak, "beyond_limit": beyond, "environment": made_by()}


def show(console: Console, result: dict[str, Any]) -> None:
    for row in result["training"]:
        console.print(f"[bold]{row['net']}[/], {Arithmetic(**row['choice'])} ({row['choice']['why']})")
        if second := row["second_thread"]:
            kept = "kept" if second["kept"] else "not kept"
            console.print(f"  views in a second thread: {second['time_of_a_step']:.2f} of the time of a step, {kept}")
        for name, speed in row["images_per_second"].items():
            console.print(f"  {name:<24}{speed:>10,.0f} images/s")
        console.print(
            f"  the whole step runs at {row['of_net_alone']:.1%} of the net alone, {row['of_loader']:.1f} times the "
            f"sample code's loader and {row['of_sample_code']:.1f} times the sample code at 224 px;\n"
            f"  a step takes {row['cached_teacher_costs']:.2f} times as long with a cached teacher, "
            f"{row['live_teacher_costs']:.1f} times with a live one"
        )
    each = result["flatness"]["microseconds_per_image"]
    console.print("time an image: " + ", ".join(f"{value:,.0f} us of {int(count):,}" for count, value in each.items()))
    if result["kept_memory"]:
        console.print(f"keeping freed memory: {result['kept_memory']['gain']:.2f} times as fast")
    if memory := result["memory"]:
        beyond = memory["beyond_limit"]
        console.print(f"memory: a run on {memory['images']:,} images peaks at {memory['peak_bytes'] / 1e9:.2f} GB")
        console.print(
            f"  it trains on an array of {beyond['array_bytes'] / 1e9:.2f} GB within "
            f"{beyond['limit_bytes'] / 1e9:.2f} GB"
        )
    if "gpu" in result:
        gpu.show(console, result["gpu"])


def main() -> None:
    if sys.argv[1:2] == ["--only-net-alone"]:
        print(only_net_alone(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of photographs instead of generated ones")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, to see that it works: its numbers mean nothing"
    )
    parser.add_argument("--only-memory", action="store_true", help="measure the memory anew, in the file that is there")
    parser.add_argument("--compile", action="store_true", help="on a GPU, also measure the compiled net")
    name = "throughput-cuda.json" if DEVICE.type == "cuda" else "throughput.json"
    parser.add_argument("--out", type=Path, default=RESULTS / "benchmarks" / name)
    options = parser.parse_args()
    quick = options.quick
    on_gpu = DEVICE.type == "cuda"
    scale = QUICK if quick else ON_GPU if on_gpu else ON_CPU
    counts = (64, 128, 256) if quick else (1_000, 10_000, 100_000)

    keep_memory()
    console = Console()
    with tempfile.TemporaryDirectory() as temporary, explained(Path(temporary)):
        folder = Path(temporary)
        data = options.data or write_folder(
            folder / "photographs", 80 if quick else 10_000, 40 if quick else 1_000, SIZE
        )
        if options.only_memory:
            result = json.loads(options.out.read_text(encoding="utf-8"))
            result["memory"] = peak_memory(data, folder, min(scale.steps, 20))
            show(console, result)
            write_json(options.out, result)
            return
        training = array_split(folder / f"{counts[1]}.npy", counts[1], SIZE)
        result: dict[str, Any] = {
            "quick": quick,
            "size": SIZE,
            "batch": scale.batch,
            "photographs": "generated, 64 px" if options.data is None else options.data.name,
            "training": [training_speed(net, training, data, folder / "answers", scale) for net in NETS],
            "flatness": flatness(folder, counts, scale),
            "kept_memory": None if on_gpu else kept_memory(scale),
            "memory": peak_memory(data, folder, min(scale.steps, 20)),
        }
        if on_gpu:
            result["gpu"] = gpu.measure(training, step_of, compiled=options.compile)
    show(console, result)
    write(options.out, result)
    console.print(f"written: {options.out}")


if __name__ == "__main__":
    main()
