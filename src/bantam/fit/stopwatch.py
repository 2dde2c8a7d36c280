"""How fast this machine is, found out with a few real steps of real nets on pixels of nothing.

The stopwatch chooses a plan and nothing else: the plan is written down, and whoever runs it again gets what it says.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from bantam.data.augment import plain
from bantam.data.splits import IMAGENET, LabelledSplit
from bantam.nets.students import describe
from bantam.nets.teachers import build_teacher
from bantam.pipeline.stages import goals_of
from bantam.recipes.kinds.training import Training
from bantam.train.allocator import keep_memory
from bantam.train.arithmetic import choose
from bantam.train.plan import Plan
from bantam.train.step import Step

MOST_WAIT = 20.0

SLOW = 3.0

GLANCED, PASSES = 2, 4
"""Images of a first answer, and how many answers to an image its share of a step is taken as."""

HOPELESS = 20.0
"""Times what it is timed for that a step must not take: it is then taken as so many answers."""

ANSWERED = 64
"""Images of a batch without gradients."""


@dataclass(frozen=True)
class Speed:
    """Seconds for one image: of a training step with its views, and of an answer without gradients.

    `wait` is how much longer it took than this process worked, because others worked too: 1 on a machine of its own.
    """

    step: float
    answer: float
    wait: float = 1.0


def speed_of(stage: Training, budget: int, classes: int, stored: int, seconds: float) -> Speed:
    """Time the net of `stage` on photographs that are stored at `stored` pixels, for about so many seconds in all.

    Of a net whose steps are HOPELESS none is done: it could take minutes.
    """
    keep_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with torch.random.fork_rng(devices=[]):
        net = build_teacher(stage.net, classes) if stage.kind == "teacher" else student(stage, budget, classes)
        pixels = torch.randint(0, 256, (max(ANSWERED, 2 * stage.batch_size), stored, stored, 3), dtype=torch.uint8)
        labels = torch.randint(0, classes, (len(pixels),))
    ids, names = tuple(map(str, range(len(pixels)))), tuple(map(str, range(classes)))
    split = LabelledSplit("timing", pixels, labels, ids, names)
    choice = choose(net, stage.size, stage.precision)
    net = net.to(device).to(memory_format=choice.format)  # pyright: ignore[reportCallIssue]
    views = plain(pixels[:ANSWERED].to(device), stage.size, IMAGENET.mean, IMAGENET.std)

    @torch.inference_mode()
    def answer(images: int) -> None:
        net.eval()(views[:images])

    # The shorter of two: the first one wakes the machine, and either may be interrupted.
    glance = min(lasts(lambda: answer(GLANCED)) for _ in range(2)) / GLANCED
    if PASSES * glance * stage.batch_size > HOPELESS * seconds:
        return Speed(PASSES * glance, glance)
    step = Step(net.train(), Plan(stage, split, IMAGENET, goals_of(stage)), 10_000, choice)
    if device.type == "cuda":
        step.settle()
    index = torch.arange(stage.batch_size, device=device)
    began, worked = time.perf_counter(), time.process_time()
    with choice.threading():
        trained = timed(lambda: step(index, torch.zeros_like(index)), 0.7 * seconds)
        answered = timed(lambda: answer(ANSWERED), 0.3 * seconds)
    wait = choice.threads * (time.perf_counter() - began) / max(time.process_time() - worked, 1e-3)
    return Speed(trained / stage.batch_size, answered / len(views), min(max(1.0, wait), MOST_WAIT))


def student(stage: Training, budget: int, classes: int) -> nn.Module:
    """A fresh net of the student that `stage` trains."""
    return describe(stage.net, budget, classes, stage.size, stage.shape).build()


def timed(work: Callable[[], object], seconds: float) -> float:
    """The median seconds of `work`, done at least twice, and for about `seconds`, after once that does not count.

    Work that takes SLOW times as long is done that once alone: what it is slower at first is little beside it.
    """
    if (first := lasts(work)) > SLOW * seconds:
        return first
    taken: list[float] = []
    while len(taken) < 2 or (sum(taken) < seconds and len(taken) < 100):
        taken.append(lasts(work))
    return statistics.median(taken)


def lasts(work: Callable[[], object]) -> float:
    """The seconds of `work`, done once."""
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started
