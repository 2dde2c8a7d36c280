"""How each kind of stage is run: the table STAGES, and what the kinds share, above all a training."""

import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bantam.data import cache
from bantam.data.splits import (
    IMAGENET,
    LabelledSplit,
    Normalisation,
    SemiLabelledSplit,
    Splits,
    TrainingSplit,
)
from bantam.errors import BadRecipe
from bantam.nets.graft import graft
from bantam.nets.students import Student, describe
from bantam.nets.teachers import Teacher, build_teacher, joint, load_teacher
from bantam.nets.weights import load_weights
from bantam.objectives import OBJECTIVES
from bantam.pipeline.interim import Interim
from bantam.recipes import recipe as recipes
from bantam.recipes.kinds import STAGE_KINDS, Stage
from bantam.recipes.kinds.derived import Derived
from bantam.recipes.kinds.given_teacher import GivenTeacher
from bantam.recipes.kinds.training import Training
from bantam.recipes.recipe import Recipe
from bantam.runs import checkpoint, runfolder
from bantam.runs.finished import MODELS, open_run
from bantam.runs.shipped import Shipped
from bantam.runs.watcher import Watcher
from bantam.tables import Table
from bantam.train.answers import Answers, Live, ViewCache
from bantam.train.arithmetic import Arithmetic, answering, choose, machine
from bantam.train.cohort import Cohort
from bantam.train.distributed import Processes
from bantam.train.loop import train
from bantam.train.place import Place
from bantam.train.plan import Goal, Plan, viewing_of


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
    left: Callable[[str], float] | None = None
    """The seconds that the stage of this name has left, where the run must end at a time."""


STAGES: Table[Callable[[Run, Any], dict[str, Any]]] = Table(
    "bantam.pipeline.kinds",
    {kind: entry.partition(":")[0] + ":run" for kind, entry in STAGE_KINDS.entries.items()},
)
"""How each kind of stage is run: the function `run` of the file named like the one in `bantam.recipes.kinds`.

It reads what is finished and makes what is not. It gives the stage's part of metrics.json: `kind`, `net`, `parameters`
and what else there is to tell.
"""


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
            weight = table["weight"]
            start, end = weight if isinstance(weight, list | tuple) else (weight, None)
            goals[name] = Goal(OBJECTIVES[name](**keys), float(start), None if end is None else float(end))
        except (TypeError, ValueError) as error:
            raise BadRecipe(f'stage "{stage.name}": objective "{name}": {error}') from error
        if OBJECTIVES[name].needs_teacher and not OBJECTIVES[name].needs_peers and not stage.teacher:
            raise BadRecipe(
                f'stage "{stage.name}": objective "{name}" needs a teacher; name an earlier stage as teacher'
            )
    return goals


def learned_from(splits: Splits, stage: Training) -> TrainingSplit:
    """What `stage` trains on: images without a label join where a teacher can say what they are."""
    return splits.taught if stage.teacher else splits.training


def derived_student(out: Path, stage: Derived) -> Student:
    """What `stage` of the run in `out` has made of an earlier net, as plain data."""
    return Student.from_json(derived_table(out / "stages" / stage.name))


def derived_table(folder: Path) -> dict[str, Any]:
    """student.json of the derived stage in `folder`. Raises BadRunFile."""
    return runfolder.student(folder, start_anew(folder))


def start_anew(folder: Path) -> str:
    """What to do where the start of the stage in `folder` is damaged."""
    return f"delete the folder {folder} and run the recipe again: this stage starts from its beginning"


def student_of(here: Run, stage: Training) -> Student:
    """The description of what a stage trains: a student, an assistant, or what became of an earlier net."""
    if isinstance(stage, Derived):
        return derived_student(here.out, stage)
    limit = stage.limit(here.recipe.budget)
    return describe(stage.net, limit, len(here.splits.classes), stage.size, stage.shape, stage.switches)


def trained(
    here: Run, stage: Training, split: TrainingSplit, validation: LabelledSplit | None, fingerprint: str
) -> dict[str, Any]:
    """Train what `stage` says on `split`, or find it done; gives done.json. best.ckpt then has the weights."""
    folder = here.out / "stages" / stage.name
    torch.manual_seed(here.recipe.seed)
    net, weighed = fresh(here, stage)
    result = runfolder.finished(folder)
    if result is None:
        with here.processes.first():
            arithmetic = arithmetic_of(net, stage, folder, here.watcher)
        here.watcher.explain(f"{stage.name}: {arithmetic} ({arithmetic.why})")
        if arithmetic.threads > 1 and "OMP_WAIT_POLICY" not in os.environ:
            here.watcher.say("torch was imported before bantam: its threads spin while they wait; import bantam first")
        plan = plan_of(here, stage, split, fingerprint)
        cohort = Cohort.of([net, *(fresh(here, stage)[0] for _ in range(stage.peers - 1))])
        cohort = cohort.to(memory_format=arithmetic.format)
        place = Place(folder, here.watcher, here.processes, **held(here, stage))
        with arithmetic.threading():
            ended = train(cohort, plan, validation, place, arithmetic)
        if ended.epochs != stage.epochs:
            here.watcher.say(f"{stage.name}: {ended.epochs} epochs for {stage.epochs}, to end in time")
        result = {
            "kind": stage.kind,
            "net": stage.net or student_of(here, stage).family,
            **({"pretrained": stage.pretrained} if stage.pretrained else {}),
            "parameters": parameters_of(weighed),
            "epochs": ended.epochs,
            "best_epoch": ended.best["epoch"],
            **({"unlabelled": split.unlabelled} if isinstance(split, SemiLabelledSplit) else {}),
            **{name: ended.best[name] for name in ("validation", "peers", "switches") if name in ended.best},
            "seconds": round(ended.seconds, 1),
            "answers_seconds": round(plan.answers.seconds, 1) if plan.answers else 0.0,
        }
        if here.processes.rank == 0:
            result["weights"] = checkpoint.save_weights(folder / runfolder.BEST, ended.weights)
            runfolder.write(folder / runfolder.DONE, result)
            (folder / runfolder.LAST).unlink(missing_ok=True)
        here.processes.barrier()
        result = runfolder.finished(folder)
    assert result is not None
    return result


def held(here: Run, stage: Training) -> dict[str, Any]:
    """What a training has to know where the run must end at a time: when, and who keeps the best student so far."""
    if here.left is None:
        return {}
    interim = {"kept": Interim(here.out, described(here, stage))} if stage.ships(stage.kind) else {}
    return {"left": functools.partial(here.left, stage.name), **interim}


def described(here: Run, stage: Training) -> Shipped:
    """What the student of `stage` needs besides its weights."""
    return Shipped(student_of(here, stage), here.normalisation, here.splits.classes)


def fresh(here: Run, stage: Training) -> tuple[nn.Module, nn.Module]:
    """The net with which the training of `stage` starts, on the run's device, and the form of it that is weighed."""
    weighed: nn.Module
    if stage.kind == "teacher":
        weighed = net = build_teacher(stage.net, len(here.splits.classes))
    else:
        student = student_of(here, stage)
        net = student.build()
        if isinstance(stage, Derived):
            folder = here.out / "stages" / stage.name
            start, known, advice = folder / runfolder.START, derived_table(folder), start_anew(folder)
            checkpoint.fill(net, checkpoint.weights(start, sha256=known.get("weights"), advice=advice), start, advice)
        weighed = student.shipped_form(net)
    if stage.pretrained:
        graft(net, open_run(MODELS / stage.pretrained).unfolded(here.splits.training))
    if stage.start:
        before = next(other for other in here.recipe.stage if other.name == stage.start)
        if isinstance(before, GivenTeacher):
            load_weights(net, here.root / before.checkpoint, here.watcher.say)
        else:
            checkpoint.fill_from_stage(net, here.out / "stages" / before.name)
    return net.to(device=here.device).to(memory_format=torch.channels_last), weighed


def weights_of(here: Run, stage: Stage) -> nn.Module:
    """The net of a stage that is finished, with its weights. Raises BadCheckpoint."""
    if isinstance(stage, GivenTeacher):
        path, classes = here.root / stage.checkpoint, len(here.splits.classes)
        return load_teacher(path, stage.architecture, classes, here.watcher.say).to(here.device)
    assert isinstance(stage, Training), "a recipe in which what has no net teaches is refused"
    net, _ = fresh(here, stage)
    checkpoint.fill_from_stage(net, here.out / "stages" / stage.name, here.device)
    return net


def teacher_of(here: Run, stage: Stage, net: nn.Module) -> Teacher:
    """`net`, the net of `stage`, as a teacher that is shown this run's views."""
    assert isinstance(stage, GivenTeacher | Training), "a recipe in which what has no net teaches is refused"
    own = IMAGENET if isinstance(stage, GivenTeacher) else here.normalisation
    wanted = stage.precision if isinstance(stage, Training) else "auto"
    return as_teacher(net, stage.size, own, here.normalisation, answering(net, stage.size, wanted))


def answers_for(
    here: Run, stage: Training, goals: dict[str, Goal], split: TrainingSplit, fingerprint: str
) -> Answers | None:
    """The teacher's answers on `split`: cached where views repeat, unless an objective wants whole feature maps."""
    if not stage.teacher:
        return None
    teacher = joint([here.teachers[name] for name in stage.teachers], stage.teacher_mean, stage.teacher_flip)
    needs = frozenset[str]().union(*(goal.objective.needs for goal in goals.values()))
    if not stage.views or "features" in needs:
        return Live(teacher)
    place = Place(cache.default_cache_dir() / "views", here.watcher, here.processes)
    viewing = viewing_of(stage, here.normalisation, here.recipe.seed)
    return ViewCache(place, teacher, split, fingerprint, viewing, "embedding" in needs)


def plan_of(here: Run, stage: Training, split: TrainingSplit, fingerprint: str) -> Plan:
    """What the training of `stage` on `split` is of."""
    goals = goals_of(stage)
    answers = answers_for(here, stage, goals, split, fingerprint)
    return Plan(stage, split, here.normalisation, goals, answers, here.recipe.seed)


def parameters_of(net: nn.Module) -> int:
    """The number of a net's parameters, each once."""
    return sum(parameter.numel() for parameter in net.parameters())


def as_teacher(
    net: nn.Module, size: int, own: Normalisation, views: Normalisation, autocast: torch.dtype | None = None
) -> Teacher:
    """`net` as a teacher that looks at `size` px, in `autocast`, and was trained with the normalisation `own`."""
    return Teacher(net, size, own.mean, own.std, views.mean, views.std, autocast)


def arithmetic_of(net: nn.Module, stage: Training, folder: Path, watcher: Watcher) -> Arithmetic:
    """How this stage trains: chosen once, then kept for every resumption, wherever that is."""
    if (kept := runfolder.probe(folder)) is not None:
        if kept.machine and kept.machine != machine() and (folder / runfolder.LAST).exists():
            watcher.say(f"{stage.name} began on {kept.machine}: here, on {machine()}, its last bits may differ")
        return Arithmetic(kept.precision, kept.memory_format, kept.threads, kept.why, kept.machine, kept.micro_batch)
    chosen = choose(net, stage.size, stage.precision)
    runfolder.write(folder / runfolder.PROBE, chosen.to_json())
    return chosen
