"""What the kinds of stages share that change an earlier stage's net and train it on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bantam.errors import BadRecipe
from bantam.nets.output import StagedNet
from bantam.nets.students import PRUNED, Student
from bantam.nets.weights import load_weights
from bantam.pipeline.kinds import training
from bantam.pipeline.stages import Run, student_of
from bantam.recipes import recipe as recipes
from bantam.recipes.kinds.derived import Derived
from bantam.recipes.kinds.given_teacher import GivenTeacher
from bantam.recipes.kinds.training import Training
from bantam.recipes.recipe import Recipe
from bantam.runs import checkpoint, runfolder

Change = Callable[[Student, StagedNet], tuple[Student, nn.Module]]
"""A net and its description, in eval mode, to what becomes of them."""


def derive(here: Run, stage: Derived, change: Change) -> dict[str, Any]:
    """`change` the net that `stage` starts from, once, and train what is left; or take the finished one."""
    folder = here.out / "stages" / stage.name
    torch.manual_seed(here.recipe.seed)
    with here.processes.first():
        if not (folder / "student.json").exists():
            keep_start(folder, *change(*source(here, stage)))
    return training.run(here, stage)


def keep_start(folder: Path, student: Student, net: nn.Module) -> None:
    """Write what a derived stage starts from: start.ckpt, then student.json, which says that both are there."""
    weights = checkpoint.save_weights(folder / runfolder.START, net.state_dict())
    runfolder.write(folder / runfolder.STUDENT, {**student.to_json(), "weights": weights})


def source(here: Run, stage: Derived) -> tuple[Student, StagedNet]:
    """The net that `stage` starts from: its description, and its trained form in eval mode. Raises BadRecipe."""
    of = next(other for other in here.recipe.stage if other.name == stage.of)
    if isinstance(of, GivenTeacher):
        student = Student(prunable(stage, of.architecture), {}, len(here.splits.classes), of.size)
        weights = here.root / of.checkpoint
        net = student.build()
        load_weights(net, weights, here.watcher.say)
    else:
        assert isinstance(of, Training), "a refit is the last stage"
        if of.kind == "teacher":
            student = Student(prunable(stage, of.net), {}, len(here.splits.classes), of.size)
        else:
            student = student_of(here, of)
        net = student.build()
        checkpoint.fill_from_stage(net, here.out / "stages" / of.name)
    return replace(student, size=stage.size), net.eval()


def require_source(recipe: Recipe, stage: Derived) -> None:
    """Raises BadRecipe where the net that `stage` starts from is a teacher that cannot become a student."""
    of = next(other for other in recipe.stage if other.name == stage.of)
    if isinstance(of, GivenTeacher):
        prunable(stage, of.architecture)
    elif isinstance(of, Training) and of.kind == "teacher":
        prunable(stage, of.net)


def prunable(stage: Derived, architecture: str) -> str:
    """`architecture`, if a teacher of that name can become a student by pruning. Raises BadRecipe."""
    if architecture not in PRUNED:
        raise BadRecipe(
            f'stage "{stage.name}" cannot prune the teacher "{stage.of}": {architecture} does not become a student'
            + recipes.nearest(architecture, PRUNED)
        )
    return architecture
