"""The kinds of stages a recipe may have, and how each is run: the table STAGES."""

import inspect
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bantam import recipe as recipes
from bantam.compress.channels import bundles, prune_to
from bantam.compress.curve import STATISTICS_IMAGES, sample_of, some
from bantam.compress.statistics import reestimated
from bantam.data import cache
from bantam.data.augment import Augmentation
from bantam.data.splits import IMAGENET, Normalisation, Splits
from bantam.errors import BadRecipe
from bantam.files import write_json
from bantam.nets.output import StagedNet
from bantam.nets.students import PRUNED, Student, describe
from bantam.nets.teachers import Ensemble, Teacher, build_teacher, load_teacher, load_weights, read_state_dict
from bantam.objectives import OBJECTIVES
from bantam.recipe import GivenTeacher, Pruning, Recipe, Training
from bantam.train import checkpoint
from bantam.train.answers import Answers, Live, ViewCache
from bantam.train.distributed import Processes
from bantam.train.loop import train
from bantam.train.probe import Choice, choose
from bantam.train.runlog import Watcher
from bantam.train.step import Goal


@dataclass(frozen=True)
class Run:
    """What the stages of one run share."""

    recipe: Recipe
    root: Path
    out: Path
    splits: Splits
    normalisation: Normalisation
    device: torch.device
    watcher: Watcher
    processes: Processes
    teachers: dict[str, Teacher]


def goals_of(stage: Training) -> dict[str, Goal]:
    """The objectives of `stage` with their weights. Raises BadRecipe for an unknown objective or key."""
    goals: dict[str, Goal] = {}
    for name, table in stage.objectives.items():
        if name not in OBJECTIVES:
            raise BadRecipe(f'stage "{stage.name}": no objective is named "{name}"{recipes.nearest(name, OBJECTIVES)}')
        keys = {item: value for item, value in table.items() if item != "weight"}
        valid = set(inspect.signature(OBJECTIVES[name]).parameters)
        for item in keys.keys() - valid:
            raise BadRecipe(
                f'stage "{stage.name}": objective "{name}" has no key "{item}"'
                + recipes.nearest(item, {*valid, "weight"})
            )
        try:
            goals[name] = Goal(OBJECTIVES[name](**keys), float(table["weight"]))
        except (TypeError, ValueError) as error:
            raise BadRecipe(f'stage "{stage.name}": objective "{name}": {error}') from error
        if OBJECTIVES[name].needs_teacher and not stage.teacher:
            raise BadRecipe(
                f'stage "{stage.name}": objective "{name}" needs a teacher; name an earlier stage as teacher'
            )
    return goals


def given_teacher(here: Run, stage: Any) -> dict[str, Any]:
    """Load a teacher's weights that somebody else trained."""
    path = here.root / stage.checkpoint
    net = load_teacher(path, stage.architecture, len(here.splits.classes)).to(here.device)
    here.teachers[stage.name] = as_teacher(net, stage.size, IMAGENET, here.normalisation)
    return {"kind": stage.kind, "net": stage.architecture, "parameters": parameters_of(net)}


def training(here: Run, stage: Any) -> dict[str, Any]:
    """Train a student or a teacher, or take the finished one from the stage's folder."""
    torch.manual_seed(here.recipe.seed)
    classes = len(here.splits.classes)
    weighed: nn.Module
    if stage.kind == "student":
        student = describe(stage.net, here.recipe.budget, classes, stage.size)
        net = student.build()
        weighed = student.shipped_form(net)
    else:
        weighed = net = build_teacher(stage.net, classes)
    return fitted(here, stage, net, weighed, stage.net)


def pruning(here: Run, stage: Any) -> dict[str, Any]:
    """Prune an earlier stage's net to the stage's budget and train what is left, or take the finished one."""
    folder = here.out / "stages" / stage.name
    torch.manual_seed(here.recipe.seed)
    with here.processes.first():
        if not (folder / "student.json").exists():
            student, net = source(here, stage)
            training, size = here.splits.training, stage.size
            found = bundles(student, net, stage.importance, sample_of(training, size, here.normalisation))
            pruned = prune_to(student, net, found, stage.to_params)
            start = reestimated(pruned.net, some(training, STATISTICS_IMAGES), size, here.normalisation)
            checkpoint.save(folder / "start.ckpt", start.state_dict())
            write_json(folder / "student.json", pruned.student.to_json())
    student = pruned_student(here.out, stage)
    net = student.build()
    net.load_state_dict(checkpoint.load(folder / "start.ckpt"))
    return fitted(here, stage, net, student.shipped_form(net), student.family)


def source(here: Run, stage: Pruning) -> tuple[Student, StagedNet]:
    """The net that `stage` prunes: its description, and its trained form in eval mode. Raises BadRecipe."""
    of = next(other for other in here.recipe.stage if other.name == stage.of)
    classes = len(here.splits.classes)
    if isinstance(of, Pruning):
        student = pruned_student(here.out, of)
    elif of.kind == "student":
        student = describe(of.net, here.recipe.budget, classes, of.size)
    else:
        architecture = of.architecture if isinstance(of, GivenTeacher) else of.net
        student = Student(prunable(stage, architecture), {}, classes, of.size)
    given = here.root / of.checkpoint if isinstance(of, GivenTeacher) else None
    weights = given or here.out / "stages" / of.name / "best.ckpt"
    net = student.build()
    load_weights(net, read_state_dict(weights), weights)
    return replace(student, size=stage.size), net.eval()


def prunable(stage: Pruning, architecture: str) -> str:
    """`architecture`, if a teacher of that name can become a student by pruning. Raises BadRecipe."""
    if architecture not in PRUNED:
        raise BadRecipe(
            f'stage "{stage.name}" cannot prune the teacher "{stage.of}": {architecture} does not become a student'
            + recipes.nearest(architecture, PRUNED)
        )
    return architecture


def pruned_student(out: Path, stage: Pruning) -> Student:
    """What the finished pruning `stage` of the run in `out` left, as plain data."""
    path = out / "stages" / stage.name / "student.json"
    return Student.from_json(json.loads(path.read_text(encoding="utf-8")))


def fitted(here: Run, stage: Any, net: nn.Module, weighed: nn.Module, named: str) -> dict[str, Any]:
    """Train `net` as `stage` says, or take the finished one; gives the stage's line of results.

    `weighed` is the net whose parameters are reported, and `named` what it is called.
    """
    folder = here.out / "stages" / stage.name
    net = net.to(device=here.device).to(memory_format=torch.channels_last)
    done = folder / "done.json"
    if not done.exists():
        with here.processes.first():
            choice = probed(net, stage, len(here.splits.classes), folder)
        here.watcher.say(f"{stage.name}: {choice.precision} ({choice.why})")
        goals = goals_of(stage)
        asked = time.monotonic()
        answers = answers_for(here, stage, goals)
        asked = time.monotonic() - asked
        splits = here.splits
        trained = train(
            net, stage, splits.training, splits.validation, here.normalisation, goals, answers,
            here.recipe.seed, folder, here.watcher, choice.autocast, here.processes,
        )  # fmt: skip
        result = {
            "kind": stage.kind,
            "net": named,
            "parameters": parameters_of(weighed),
            "epochs": stage.epochs,
            "best_epoch": trained.best["epoch"],
            "validation": trained.best["validation"],
            "answers_seconds": round(asked, 1),
            "seconds": round(trained.seconds, 1),
        }
        if here.processes.rank == 0:
            checkpoint.save(folder / "best.ckpt", trained.weights)
            write_json(done, result)
            (folder / "last.ckpt").unlink(missing_ok=True)
        here.processes.barrier()
    if stage.kind == "teacher":
        net.load_state_dict(checkpoint.load(folder / "best.ckpt", here.device))
        here.teachers[stage.name] = as_teacher(net, stage.size, here.normalisation, here.normalisation)
    return json.loads(done.read_text(encoding="utf-8"))


def answers_for(here: Run, stage: Training, goals: dict[str, Goal]) -> Answers | None:
    """The teacher's answers: cached where views repeat, unless an objective wants whole feature maps."""
    if not stage.teacher:
        return None
    teachers = [here.teachers[name] for name in stage.teachers]
    teacher = teachers[0] if len(teachers) == 1 else Ensemble(teachers)
    needs = frozenset[str]().union(*(goal.objective.needs for goal in goals.values()))
    if not stage.views or "features" in needs:
        return Live(teacher)
    views = min(stage.views, stage.epochs)
    cached = ViewCache(
        cache.default_cache_dir() / "views", teacher, here.splits.training, here.splits.fingerprint,
        Augmentation(**vars(stage.augment)), stage.size, here.normalisation, here.recipe.seed, "embedding" in needs,
    )  # fmt: skip
    cached.build(views, here.watcher, here.processes.rank, here.processes.world)
    here.processes.barrier()
    cached.check(views)
    return cached


def parameters_of(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def as_teacher(net: nn.Module, size: int, own: Normalisation, views: Normalisation) -> Teacher:
    """`net` as a teacher that looks at `size` px and was trained with the normalisation `own`."""
    return Teacher(net, size, own.mean, own.std, views.mean, views.std)


def probed(net: nn.Module, stage: Training, classes: int, folder: Path) -> Choice:
    """The precision of this stage: chosen once, then kept for every resumption."""
    path = folder / "probe.json"
    if path.exists():
        return Choice(**json.loads(path.read_text(encoding="utf-8")))
    choice = choose(net, stage.size, classes, stage.batch_size, stage.precision)
    write_json(path, choice.to_json())
    return choice


STAGES: dict[str, Callable[[Run, Any], dict[str, Any]]] = {
    "given_teacher": given_teacher,
    "student": training,
    "teacher": training,
    "prune": pruning,
}
