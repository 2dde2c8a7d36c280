"""Where the time of a training step goes: the pieces of `Step`, timed one by one."""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from bantam.data import batches
from bantam.data.splits import IMAGENET, LabelledSplit, Splits, require_labelled
from bantam.errors import BadData, BadRecipe
from bantam.nets.students import describe
from bantam.nets.teachers import Teacher, build_teacher, joint
from bantam.recipes.kinds import Stage
from bantam.recipes.kinds.given_teacher import GivenTeacher
from bantam.recipes.kinds.training import VIEWS, Training
from bantam.recipes.recipe import Recipe
from bantam.runs.watcher import Watcher
from bantam.train.answers import Answers, Live, ViewCache
from bantam.train.arithmetic import Arithmetic, choose
from bantam.train.cohort import Cohort
from bantam.train.place import Place
from bantam.train.plan import Goal, Plan, viewing_of
from bantam.train.step import Step

PIECES: tuple[str, ...] = ("data", "augmentation", "teacher", "forward", "backward", "optimizer", "averaging")
WARM_UP = 3

Result = TypeVar("Result")


@dataclass(frozen=True)
class Breakdown:
    """Median seconds of each of PIECES in a step of `batch` images, over `steps` steps."""

    seconds: dict[str, float]
    batch: int
    steps: int
    device: str
    choice: Arithmetic
    cached: bool
    """Whether the teacher's answers were looked up; false as well where there is no teacher."""
    asked: float = 0.0
    """Where they were looked up, the seconds of asking the teacher about one image before."""

    @property
    def step(self) -> float:
        """Seconds of a step: the sum of its pieces."""
        return sum(self.seconds.values())

    def share(self, piece: str) -> float:
        return self.seconds[piece] / self.step

    @property
    def hint(self) -> str:
        """What to change first."""
        if not self.cached and self.share("teacher") > 0.2:
            return f"the teacher takes {self.share('teacher'):.1%}: set views = {VIEWS}, so that its answers are cached"
        if self.share("data") > 0.15:
            return (
                f"reading the photographs takes {self.share('data'):.1%}: lower data.size, "
                "or keep the cache on a faster disk (BANTAM_CACHE)"
            )
        if self.share("augmentation") > 0.25:
            return (
                f"augmentation takes {self.share('augmentation'):.1%}: leave out the changes that bring no accuracy "
                "(colour costs most, then rotation), or lower data.size to the size of the views"
            )
        around = self.share("optimizer") + self.share("averaging")
        if around > 0.25:
            return f"optimizer and averaging take {around:.1%}: raise batch_size, and optimizer.lr with it"
        net = self.share("forward") + self.share("backward")
        return f"the net itself takes {net:.1%}: only a smaller size or another net makes a step faster"

    def to_json(self) -> dict[str, Any]:
        return {
            "images_per_second": self.batch / self.step,
            "step_seconds": self.step,
            "seconds": self.seconds,
            "shares": {piece: self.share(piece) for piece in PIECES},
            "batch": self.batch,
            "steps": self.steps,
            "device": self.device,
            "choice": self.choice.to_json(),
            "teacher_cached": self.cached,
            "hint": self.hint,
        }

    def text(self) -> str:
        lines = [f"{'piece':<14}{'ms':>9}{'share':>8}"]
        for piece in PIECES:
            lines.append(f"{piece:<14}{1e3 * self.seconds[piece]:>9.2f}{self.share(piece):>8.1%}")
        lines += [
            f"{'step':<14}{1e3 * self.step:>9.2f}{1:>8.1%}",
            f"{self.batch / self.step:,.0f} images/s; medians of {self.steps} steps of {self.batch} images on "
            f"{self.device}, {self.choice} ({self.choice.why})",
            f"hint: {self.hint}",
        ]
        return "\n".join(lines)


def bench_train(
    recipe: Recipe,
    splits: Splits,
    goals: Mapping[str, Goal],
    steps: int = 20,
    watcher: Watcher | None = None,
    stage: Training | None = None,
) -> Breakdown:
    """Time the pieces of a training step of `stage` of `recipe`, by default the shipped one, on its data and device.

    The nets are freshly initialised, for a step takes the same time whatever the weights; so no teacher need be
    trained first. Where the recipe repeats views, the cached answers are those of the images that are shown here, in a
    temporary folder. On a GPU the pieces are launched one by one, which costs more than the captured step of a
    training does: there the shares matter, not the sum. On a CPU a training may hide data and augmentation in a second
    thread. Raises SplitLeak, and BadData for too few images.
    """
    training = require_labelled(splits.training, "timing the training")
    stage = stage or recipe.shipped
    if not stage.net:
        raise BadRecipe(
            f'stage "{stage.name}" starts from the net of another stage; give a recipe that ships a student'
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    nets = [net_like(stage, recipe.budget, len(splits.classes)).to(device) for _ in range(stage.peers)]
    choice = choose(nets[0], stage.size, stage.precision)
    net = Cohort.of(nets).to(memory_format=choice.format)

    if len(training) < 2:
        raise BadData(f"the training split has {len(training)} image; timing needs at least 2")
    part = first(training, (WARM_UP + steps) * stage.batch_size)
    order = batches.epoch(len(part), stage.batch_size, recipe.seed, 0).to(device)  # [steps in part, B]
    with tempfile.TemporaryDirectory() as folder, choice.threading():
        answers = answers_for(recipe, stage, part, goals, device, Place(Path(folder), watcher or Watcher()))
        plan = Plan(stage, part, IMAGENET, goals, answers, recipe.seed)
        step = Step(net.train(), plan, WARM_UP + steps, choice)
        if device.type == "cuda":
            step.settle()
        started = time.perf_counter()
        step.begin(0)
        asked = (time.perf_counter() - started) / len(part)
        rows = [time_step(step, order[number % len(order)]) for number in range(WARM_UP + steps)][WARM_UP:]
    medians = {piece: statistics.median(row[piece] for row in rows) for piece in PIECES}
    cached = isinstance(answers, ViewCache)
    return Breakdown(medians, order.shape[1], steps, device.type, choice, cached, asked if cached else 0.0)


def time_step(step: Step, index: Tensor) -> dict[str, float]:
    """Take one training step on view 0 of the images `index` [B]; gives the seconds of each of PIECES."""
    seconds: dict[str, float] = dict.fromkeys(PIECES, 0.0)  # a recipe without a teacher spends nothing there

    def timed(piece: str, work: Callable[[], Result]) -> Result:
        synchronise(step.device)
        started = time.perf_counter()
        result = work()
        synchronise(step.device)
        seconds[piece] = time.perf_counter() - started
        return result

    def gather() -> Tensor:
        return step.images.index_select(0, index.to(step.images.device)).to(step.device)

    view = torch.zeros_like(index)
    timed("data", gather)
    images, targets = timed("augmentation", lambda: step.look(index, view))
    # Looking gathers the same images once more, now from warm memory: that is no augmentation.
    timed("again", gather)
    seconds["augmentation"] = max(0.0, seconds["augmentation"] - seconds.pop("again"))
    answers = step.answers
    shown = timed("teacher", lambda: answers(images, index, view)) if answers else None
    terms = timed("forward", lambda: step.terms(images, targets, shown))
    timed("backward", terms["loss"].backward)
    timed("optimizer", step.move)
    timed("averaging", step.average)
    return seconds


def synchronise(device: torch.device) -> None:
    """Wait for what was launched; on a CPU everything is done when its call returns."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def first(split: LabelledSplit, images: int) -> LabelledSplit:
    """The first images of `split`, at most so many."""
    return replace(split, images=split.images[:images], labels=split.labels[:images], ids=split.ids[:images])


def answers_for(
    recipe: Recipe,
    stage: Training,
    training: LabelledSplit,
    goals: Mapping[str, Goal],
    device: torch.device,
    place: Place,
) -> Answers | None:
    """The answers of untrained teachers of the kinds of `stage`: looked up in `place` or live, as the recipe has it."""
    if not stage.teacher:
        return None
    classes = len(training.classes)
    teachers = [
        teacher_like(earlier, recipe.budget, classes).to(device)
        for earlier in recipe.stage
        if earlier.name in stage.teachers
    ]
    teacher = joint(teachers, stage.teacher_mean, stage.teacher_flip)
    needs = frozenset[str]().union(*(goal.objective.needs for goal in goals.values()))
    if not stage.views or "features" in needs:
        return Live(teacher)
    return ViewCache(place, teacher, training, "bench", viewing_of(stage, IMAGENET, recipe.seed), "embedding" in needs)


def teacher_like(stage: Stage, budget: int, classes: int) -> Teacher:
    """An untrained net of the kind that `stage` makes, as a teacher."""
    assert isinstance(stage, GivenTeacher | Training), "a recipe in which what has no net teaches is refused"
    net = net_like(stage, budget, classes)
    return Teacher(net, stage.size, IMAGENET.mean, IMAGENET.std, IMAGENET.mean, IMAGENET.std)


def net_like(stage: GivenTeacher | Training, budget: int, classes: int) -> nn.Module:
    """An untrained net of the kind that `stage` makes."""
    if isinstance(stage, GivenTeacher):
        return build_teacher(stage.architecture, classes)
    if stage.kind == "teacher":
        return build_teacher(stage.net, classes)
    return describe(stage.net, stage.limit(budget), classes, stage.size, stage.shape, stage.switches).build()
