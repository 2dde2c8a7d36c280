"""The kinds of stages a recipe may have, and how each is run: the table STAGES."""

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bantam import recipe as recipes
from bantam.data import cache
from bantam.data.augment import Augmentation
from bantam.data.splits import IMAGENET, Normalisation, Splits
from bantam.errors import BadRecipe
from bantam.files import write_json
from bantam.nets.students import describe
from bantam.nets.teachers import Ensemble, Teacher, build_teacher, load_teacher
from bantam.objectives import OBJECTIVES
from bantam.recipe import Recipe, Training
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
    folder = here.out / "stages" / stage.name
    torch.manual_seed(here.recipe.seed)
    classes = len(here.splits.classes)
    weighed: nn.Module
    if stage.kind == "student":
        student = describe(stage.net, here.recipe.budget, classes, stage.size)
        net = student.build()
        weighed = student.shipped_form(net)
    else:
        weighed = net = build_teacher(stage.net, classes)
    net = net.to(device=here.device)
    done = folder / "done.json"
    if not done.exists():
        with here.processes.first():
            choice = probed(net, stage, classes, folder)
        net = net.to(memory_format=choice.format)
        here.watcher.say(f"{stage.name}: {choice} ({choice.why})")
        goals = goals_of(stage)
        answers = answers_for(here, stage, goals)
        splits = here.splits
        with choice.threading():
            trained = train(
                net, stage, splits.training, splits.validation, here.normalisation, goals, answers,
                here.recipe.seed, folder, here.watcher, choice.autocast, here.processes, choice.format,
            )  # fmt: skip
        result = {
            "kind": stage.kind,
            "net": stage.net,
            "parameters": parameters_of(weighed),
            "epochs": stage.epochs,
            "best_epoch": trained.best["epoch"],
            "validation": trained.best["validation"],
            "seconds": round(trained.seconds, 1),
            "answers_seconds": round(answers.seconds, 1) if answers else 0.0,
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
    return ViewCache(
        cache.default_cache_dir() / "views", teacher, here.splits.training, here.splits.fingerprint,
        Augmentation(**vars(stage.augment)), stage.size, here.normalisation, here.recipe.seed, "embedding" in needs,
        here.watcher, here.processes,
    )  # fmt: skip


def parameters_of(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def as_teacher(net: nn.Module, size: int, own: Normalisation, views: Normalisation) -> Teacher:
    """`net` as a teacher that looks at `size` px and was trained with the normalisation `own`."""
    return Teacher(net, size, own.mean, own.std, views.mean, views.std)


def probed(net: nn.Module, stage: Training, classes: int, folder: Path) -> Choice:
    """How this stage trains: chosen once, then kept for every resumption."""
    path = folder / "probe.json"
    if path.exists():
        return Choice(**json.loads(path.read_text(encoding="utf-8")))
    choice = choose(net, stage.size, classes, stage.batch_size, stage.precision, cache.default_cache_dir() / "probes")
    write_json(path, choice.to_json())
    return choice


STAGES: dict[str, Callable[[Run, Any], dict[str, Any]]] = {
    "given_teacher": given_teacher,
    "student": training,
    "teacher": training,
}
