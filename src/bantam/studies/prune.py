"""Pruning what is trained already: the curve of a run's student or of a given teacher, and the way to a budget."""

import copy
import os
import shutil
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bantam.compress.channels import IMPORTANCES, bundles, prune_to
from bantam.compress.pruning_curve import (
    METHODS,
    Finetune,
    Point,
    Prunings,
    Subject,
    curve,
    kept_points,
    some,
    write_curve,
)
from bantam.data.folder import scan
from bantam.data.images import read, to_rgb
from bantam.data.splits import IMAGENET, Splits
from bantam.errors import BadData, BadPruning, RunMismatch
from bantam.nets.students import PRUNED, Student
from bantam.nets.weights import Say, file_and_name, load_weights, quiet
from bantam.pipeline import run as pipeline
from bantam.pipeline.stages import (
    STAGES,
    Run,
    as_teacher,
    goals_of,
    learned_from,
    plan_of,
)
from bantam.recipes import recipe as recipes
from bantam.recipes.kinds.exiting import Exiting
from bantam.recipes.kinds.given_teacher import GivenTeacher
from bantam.recipes.kinds.pruning import Pruning
from bantam.recipes.kinds.refit import Refit
from bantam.recipes.kinds.training import Training
from bantam.recipes.recipe import Recipe
from bantam.runs import runfolder
from bantam.runs.environment import environment
from bantam.runs.finished import FinishedRun, open_run
from bantam.runs.photographs import open_data
from bantam.runs.watcher import Watcher
from bantam.train.answers import digest_of
from bantam.train.arithmetic import choose
from bantam.train.distributed import ALONE
from bantam.train.loop import train
from bantam.train.place import Place

TEMPLATE = "quick"
"""The shipped recipe that says how a given teacher's pruned form is trained."""

SHORT_LR = 0.25
"""Peak learning rate of a short fine-tuning, as a share of that of the training before it: the net is not new."""

PROGRESS = ".points.json"
"""The points that an unfinished curve has, beside where it will lie."""

PHOTOGRAPHS = 15
"""How many are opened to see how large they are."""

DENSE = "dense"
"""The name under which the net before pruning teaches the pruned one, where the run had no teacher."""


@dataclass(frozen=True)
class Source:
    """Where a net to prune comes from: a finished run, or a teacher's state_dict of `architecture` at `size` px."""

    path: Path
    architecture: str = ""
    size: int = 0

    @property
    def is_run(self) -> bool:
        return self.path.is_dir()

    @cached_property
    def run(self) -> FinishedRun:
        """The run, where this is one."""
        return open_run(self.path)

    def recipe(self, root: Path | None = None) -> Recipe:
        """The run's recipe, or TEMPLATE at the given size with the checkpoint as its teacher.

        Photographs in `root` that are smaller than this size are stored as they are: a net enlarges its views itself,
        by another filter than that of storing, which would cost accuracy.
        Raises BadData for what is neither a run nor a file, BadPruning for an architecture that cannot be pruned.
        """
        if self.is_run:
            recipe = self.run.recipe
            if recipe.shipped.switches:
                raise BadPruning(
                    f"the student in {self.path} has widths or sizes that share their channels; prune an ordinary one"
                )
            return recipe
        if not file_and_name(self.path)[0].exists():
            raise BadData(
                f"{self.path} is not there; give a run's folder, or a teacher's state_dict and --architecture"
            )
        if self.architecture not in PRUNED:
            raise BadPruning(
                f'no architecture "{self.architecture}" can be pruned from a state_dict; --architecture is one of '
                + ", ".join(PRUNED)
            )
        template = recipes.load(TEMPLATE)
        given = GivenTeacher(
            name=DENSE, architecture=self.architecture, checkpoint=str(self.path.resolve()), size=self.size
        )
        student = replace(template.shipped, teacher=DENSE, size=self.size)
        stored = self.size if root is None else min(self.size, usual_side(root))
        return replace(
            template, name=self.architecture, data=replace(template.data, size=stored), stage=(given, student)
        )

    def subject(self, splits: Splits, say: Say = quiet) -> Subject:
        """The net in the form that trains; of a run without its stages' folders it is made again from what shipped.

        Raises BadCheckpoint for weights of another net, and BadData for other classes than those of `splits`.
        """
        if not self.is_run:
            student = Student(self.architecture, {}, len(splits.classes), self.size)
            net = student.build()
            load_weights(net, self.path, say)
            return Subject(student, net.eval(), IMAGENET)
        shipped = self.run.shipped
        shipped.require_classes(splits)
        student = shipped.student
        if student.exits:
            raise BadPruning(f"the student of {self.path} has early exits; prune first, then give it exits")
        return Subject(student, self.run.as_trained(splits.training), shipped.normalisation)


def given_teachers(recipe: Recipe, root: Path) -> list[Source]:
    """The given teachers of `recipe` that can be pruned and whose weights lie in `root`, the student's own first."""
    known = [(root / stage.checkpoint, stage) for stage in recipe.given if stage.architecture in PRUNED]
    return [Source(path, stage.architecture, stage.size) for path, stage in known if file_and_name(path)[0].is_file()]


def usual_side(root: Path) -> int:
    """The median of the shorter sides, in pixels, of a few training photographs in `root`. Raises BadData, BadImage."""
    records = scan(root).training
    few = records[:: max(1, len(records) // PHOTOGRAPHS)][:PHOTOGRAPHS]
    return statistics.median_low(min(to_rgb(read(one.path), one.path).size) for one in few)


def prune_curve(
    source: Source, root: Path, ratios: Sequence[float], methods: Sequence[str], images: int, epochs: int, out: Path,
    watcher: Watcher, taught: int = 0,
) -> list[Point]:  # fmt: skip
    """Draw the curve of `source` on the photographs in `root` into the folder `out`; a killed call goes on.

    `images` of validation are looked at (0: all), `methods` are of METHODS (none: all that fit), and `epochs` of
    fine-tuning with distillation, over `taught` training images (0: all), follow each pruning. Raises a BantamError for
    what a user can cause; nothing is written before the largest ratio has gone through.
    """
    recipe = source.recipe(root)
    for name in methods:
        if name not in METHODS:
            raise BadPruning(f'no method is named "{name}"; there are {", ".join(METHODS)}')
    splits = open_data(recipe, root, watcher)
    subject = source.subject(splits, watcher.say)
    chosen = list(methods) or list(METHODS)
    validation = some(splits.validation, images)
    made_of = {
        "net": digest_of(subject.net), "data": splits.fingerprint, "images": len(validation), "epochs": epochs,
        "methods": chosen, "ratios": list(ratios), **({"taught": taught} if taught and epochs else {}),
    }  # fmt: skip
    with runfolder.alone_in(out):
        progress = out / PROGRESS

        def keep(found: list[Point]) -> None:
            runfolder.write(progress, {"made_of": made_of, "points": [point.to_json() for point in found]})

        finetune = finetuner(source, recipe, subject, root, splits, epochs, taught, out, watcher) if epochs else None
        points = curve(
            Prunings(subject, splits.training),
            chosen,
            ratios,
            validation,
            watcher,
            kept_points(progress, made_of),
            keep,
            finetune,
        )
        title = f"pruning {subject.student.family}, {len(validation):,} validation images"
        about = {"title": title, "size": subject.student.size, **made_of, "environment": environment()}
        write_curve(out, points, about)
        progress.unlink(missing_ok=True)
        shutil.rmtree(out / "finetune", ignore_errors=True)
    return points


def finetuner(
    source: Source, recipe: Recipe, subject: Subject, root: Path, splits: Splits, epochs: int, taught: int,
    out: Path, watcher: Watcher,
) -> Finetune:  # fmt: skip
    """A short training of pruned nets as the run trained, from its teacher's cached views.

    It sees `taught` of the training images, drawn evenly; with 0 all that the run learned from. Where it had no
    teacher, the net before pruning is the teacher.
    """
    last = recipe.shipped
    asked = last if last.teacher else replace(last, teacher=DENSE, objectives=recipes.load(TEMPLATE).shipped.objectives)
    stage = replace(asked, epochs=epochs, optimizer=replace(asked.optimizer, lr=SHORT_LR * asked.optimizer.lr))
    here = Run(recipe, root, source.path, splits, subject.normalisation, ALONE.device, watcher, ALONE, {})
    if stage.teacher == DENSE:
        own = subject.normalisation
        here.teachers[DENSE] = as_teacher(copy.deepcopy(subject.net), subject.student.size, own, own)
    else:
        for other in recipe.stage:
            if other.name in stage.teachers:
                STAGES[other.kind](here, other)
    split, fingerprint = learned_from(splits, stage), splits.fingerprint
    if 0 < taught < len(splits.training):
        split, fingerprint = some(splits.training, taught), f"{taught} of {fingerprint}"
    plan = plan_of(here, stage, split, fingerprint)

    def finetune(net: nn.Module, place: str) -> nn.Module:
        torch.manual_seed(recipe.seed)
        net = net.requires_grad_(True)
        choice = choose(net, stage.size, stage.precision)
        with choice.threading():
            net = net.to(memory_format=choice.format)
            trained = train(
                net, replace(plan, goals=goals_of(stage)), splits.validation, Place(out / "finetune" / place), choice
            )
        net.load_state_dict(trained.weights)
        return net.eval()

    return finetune


def prune_to_budget(
    source: Source, root: Path, parameters: int, importance: str, epochs: int | None, out: Path, watcher: Watcher
) -> dict[str, Any]:
    """Prune the net of `source` to `parameters`, train what is left, and ship it; gives its metrics.json.

    It trains for `epochs`, by default as many as the recipe's student.
    The folder `out` becomes a run of the source's recipe with one more stage, of kind prune, so it resumes,
    predicts and is graded like every run. Raises a BantamError for what a user can cause.
    """
    before = source.recipe(root)
    recipe = with_pruning(before, parameters, importance, before.shipped.epochs if epochs is None else epochs)
    splits = open_data(recipe, root, watcher)
    if source.is_run and not source.run.is_finished:
        raise BadData(f"{source.path} is not finished; {runfolder.go_on(source.path)}")
    if out.resolve() == source.path.resolve():
        raise RunMismatch(f"{out} is the run that is pruned; choose another --out")
    prunable_now(source, splits, parameters)
    return pipeline.run(recipe, root, out, watcher, reuse=source.path if source.is_run else None)


def prunable_now(source: Source, splits: Splits, parameters: int) -> None:
    """Refuse, before anything is written, weights of another net, and `parameters` that need or allow no pruning."""
    subject = source.subject(splits)
    dense = sum(parameter.numel() for parameter in subject.student.shipped_form(subject.net).parameters())
    if dense <= parameters:
        raise BadPruning(f"{source.path} has {dense:,} parameters and need not be pruned to {parameters:,}")
    # Fewer channels than one a layer there are not, whatever the importance: the cheapest one finds the way.
    prune_to(subject.student, subject.net, bundles(subject.student, subject.net, "magnitude"), parameters)


def with_pruning(recipe: Recipe, parameters: int, importance: str, epochs: int) -> Recipe:
    """`recipe` with a last stage that prunes what it shipped, trained as that was. Raises BadPruning."""
    if importance not in IMPORTANCES:
        raise BadPruning(f'no importance is named "{importance}"; there are {", ".join(IMPORTANCES)}')
    last = recipe.shipped
    if isinstance(last, Exiting):
        raise BadPruning(f"the student of {recipe.name} has early exits; prune first, then give it exits")
    of = DENSE if last.teacher == DENSE else last.name
    # A refit is of the net before pruning, and would have to come last.
    earlier = tuple(
        stage
        for stage in recipe.stage
        if isinstance(stage, GivenTeacher) or (of != DENSE and not isinstance(stage, Refit))
    )
    same = {
        item.name: getattr(last, item.name) for item in fields(Training) if item.name not in ("name", "kind", "net")
    }
    try:
        stage = Pruning(
            **{**same, "epochs": epochs},
            name="pruned",
            of=of,
            to_params=parameters,
            importance=importance,  # pyright: ignore[reportArgumentType]
        )
        return replace(recipe, name=f"{recipe.name}-pruned", stage=(*earlier, stage))
    except ValueError as error:
        raise BadPruning(f"the pruning of {recipe.name}: {error}") from error


def curve_out(source: Source) -> Path:
    """Where the curve goes: for a run within it, where its report reads; for a checkpoint a folder of its name here."""
    return source.run.pruning / "student" if source.is_run else default_out(source)


def default_out(source: Source) -> Path:
    """Beside a run its folder with "-pruned"; for a checkpoint a folder of its name where the user stands."""
    name = f"{source.path.resolve().stem if not source.is_run else source.path.resolve().name}-pruned"
    return source.path.resolve().parent / name if source.is_run else Path(os.curdir) / name
