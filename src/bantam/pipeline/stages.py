"""The kinds of stages a recipe may have, and how each is run: the table STAGES."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bantam.compress.channels import bundles, prune_to
from bantam.compress.pruning_curve import sample_of
from bantam.data import cache
from bantam.data.augment import Augmentation
from bantam.data.splits import (
    IMAGENET,
    LabelledSplit,
    Normalisation,
    SemiLabelledSplit,
    Splits,
    TrainingSplit,
    joined,
)
from bantam.errors import BadRecipe
from bantam.nets.budget import enforce
from bantam.nets.early_exit import with_exits
from bantam.nets.output import StagedNet
from bantam.nets.students import PRUNED, Student, describe
from bantam.nets.teachers import Teacher, build_teacher, joint, load_teacher
from bantam.nets.weights import load_weights
from bantam.objectives import OBJECTIVES
from bantam.recipes import recipe as recipes
from bantam.recipes.kinds import (
    Derived,
    GivenTeacher,
    Refit,
    Stage,
    Training,
)
from bantam.recipes.recipe import Recipe
from bantam.runs import checkpoint, runfolder
from bantam.runs.watcher import Watcher
from bantam.train.answers import Answers, Live, ViewCache
from bantam.train.cohort import Cohort
from bantam.train.distributed import Processes
from bantam.train.loop import train
from bantam.train.probe import Choice, choose
from bantam.train.reestimate import reestimated
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


def given_teacher(here: Run, stage: Any) -> dict[str, Any]:
    """Load a teacher's weights that somebody else trained."""
    net = weights_of(here, stage)
    here.teachers[stage.name] = teacher_of(here, stage, net)
    return {"kind": stage.kind, "net": stage.architecture, "parameters": parameters_of(net)}


def training(here: Run, stage: Any) -> dict[str, Any]:
    """Train a student, an assistant or a teacher, or take the finished one from the stage's folder."""
    splits = here.splits
    result = trained(here, stage, learned_from(splits, stage), splits.validation, splits.fingerprint)
    if any(stage.name in later.teachers for later in here.recipe.stage):
        here.teachers[stage.name] = teacher_of(here, stage, weights_of(here, stage))
    return result


def refit(here: Run, stage: Any) -> dict[str, Any]:
    """Train the shipped student once more, on training and validation; nothing is left to select or to measure by."""
    again = replace(here.recipe.shipped, name=stage.name)
    both = joined(learned_from(here.splits, again), here.splits.validation)
    return {
        **trained(here, again, both, None, f"{here.splits.fingerprint} {both.name}"),
        "kind": stage.kind,
        "of": stage.of,
        "images": len(both),
    }


def learned_from(splits: Splits, stage: Training) -> TrainingSplit:
    """What `stage` trains on: images without a label join where a teacher can say what they are."""
    return splits.taught if stage.teacher else splits.training


def pruning(here: Run, stage: Any) -> dict[str, Any]:
    """Prune an earlier stage's net to the stage's budget and train what is left, or take the finished one."""
    folder = here.out / "stages" / stage.name
    torch.manual_seed(here.recipe.seed)
    with here.processes.first():
        if not (folder / "student.json").exists():
            student, net = source(here, stage)
            split, size = here.splits.training, stage.size
            found = bundles(student, net, stage.importance, sample_of(split, size, here.normalisation))
            pruned = prune_to(student, net, found, stage.to_params)
            start = reestimated(pruned.net, split, size, here.normalisation)
            keep_start(folder, pruned.student, start)
    return training(here, stage)


def exiting(here: Run, stage: Any) -> dict[str, Any]:
    """Give an earlier stage's net early exits and train all of it together, or take the finished one.

    Raises BudgetExceeded, before anything is trained or written, where the net with its exits is over the budget.
    """
    folder = here.out / "stages" / stage.name
    torch.manual_seed(here.recipe.seed)
    with here.processes.first():
        if not (folder / "student.json").exists():
            student, net = source(here, stage)
            student, start = replace(student, exits=stage.after), with_exits(net, stage.after, stage.size)
            weight = enforce([student.shipped_form(start)], stage.size, here.recipe.budget)
            here.watcher.say(f"{stage.name}: with exits {weight.counted:,} of {here.recipe.budget:,} parameters")
            keep_start(folder, student, start)
    return training(here, stage)


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


def prunable(stage: Derived, architecture: str) -> str:
    """`architecture`, if a teacher of that name can become a student by pruning. Raises BadRecipe."""
    if architecture not in PRUNED:
        raise BadRecipe(
            f'stage "{stage.name}" cannot prune the teacher "{stage.of}": {architecture} does not become a student'
            + recipes.nearest(architecture, PRUNED)
        )
    return architecture


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
    limit = stage.budget or here.recipe.budget
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
            choice = probed(net, stage, len(split.classes), folder)
        here.watcher.say(f"{stage.name}: {choice} ({choice.why})")
        goals = goals_of(stage)
        answers = answers_for(here, stage, goals, split, fingerprint)
        cohort = Cohort.of([net, *(fresh(here, stage)[0] for _ in range(stage.peers - 1))])
        cohort = cohort.to(memory_format=choice.format)
        with choice.threading():
            ended = train(
                cohort, stage, split, validation, here.normalisation, goals, answers,
                here.recipe.seed, folder, here.watcher, choice.autocast, here.processes, choice.format,
            )  # fmt: skip
        result = {
            "kind": stage.kind,
            "net": stage.net or student_of(here, stage).family,
            "parameters": parameters_of(weighed),
            "epochs": stage.epochs,
            "best_epoch": ended.best["epoch"],
            **({"unlabelled": split.unlabelled} if isinstance(split, SemiLabelledSplit) else {}),
            **{name: ended.best[name] for name in ("validation", "peers", "switches") if name in ended.best},
            "seconds": round(ended.seconds, 1),
            "answers_seconds": round(answers.seconds, 1) if answers else 0.0,
        }
        if here.processes.rank == 0:
            result["weights"] = checkpoint.save_weights(folder / runfolder.BEST, ended.weights)
            runfolder.write(folder / runfolder.DONE, result)
            (folder / runfolder.LAST).unlink(missing_ok=True)
        here.processes.barrier()
        result = runfolder.finished(folder)
    assert result is not None
    return result


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
    if stage.start:
        before = next(other for other in here.recipe.stage if other.name == stage.start)
        if isinstance(before, GivenTeacher):
            load_weights(net, here.root / before.checkpoint, here.watcher.say)
        else:
            checkpoint.fill_from_stage(net, here.out / "stages" / before.name)
    return net.to(device=here.device).to(memory_format=torch.channels_last), weighed


def weights_of(here: Run, stage: Stage) -> nn.Module:
    """The net of a stage that is finished, with its weights. Raises BadCheckpoint."""
    assert not isinstance(stage, Refit), "a recipe in which a refit teaches is refused"
    if isinstance(stage, GivenTeacher):
        path, classes = here.root / stage.checkpoint, len(here.splits.classes)
        return load_teacher(path, stage.architecture, classes, here.watcher.say).to(here.device)
    net, _ = fresh(here, stage)
    checkpoint.fill_from_stage(net, here.out / "stages" / stage.name, here.device)
    return net


def teacher_of(here: Run, stage: Stage, net: nn.Module) -> Teacher:
    """`net`, the net of `stage`, as a teacher that is shown this run's views."""
    assert not isinstance(stage, Refit), "a recipe in which a refit teaches is refused"
    own = IMAGENET if isinstance(stage, GivenTeacher) else here.normalisation
    return as_teacher(net, stage.size, own, here.normalisation)


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
    return ViewCache(
        cache.default_cache_dir() / "views", teacher, split, fingerprint, Augmentation(**vars(stage.augment)),
        stage.size, here.normalisation, here.recipe.seed, "embedding" in needs, here.watcher, here.processes,
    )  # fmt: skip


def parameters_of(net: nn.Module) -> int:
    """The number of a net's parameters, each once."""
    return sum(parameter.numel() for parameter in net.parameters())


def as_teacher(net: nn.Module, size: int, own: Normalisation, views: Normalisation) -> Teacher:
    """`net` as a teacher that looks at `size` px and was trained with the normalisation `own`."""
    return Teacher(net, size, own.mean, own.std, views.mean, views.std)


def probed(net: nn.Module, stage: Training, classes: int, folder: Path) -> Choice:
    """How this stage trains: chosen once, then kept for every resumption."""
    if (kept := runfolder.probe(folder)) is not None:
        return Choice(kept.precision, kept.memory_format, kept.threads, kept.why)
    choice = choose(net, stage.size, classes, stage.batch_size, stage.precision, cache.default_cache_dir() / "probes")
    runfolder.write(folder / runfolder.PROBE, choice.to_json())
    return choice


STAGES: dict[str, Callable[[Run, Any], dict[str, Any]]] = {
    "given_teacher": given_teacher,
    "student": training,
    "assistant": training,
    "teacher": training,
    "refit": refit,
    "prune": pruning,
    "exits": exiting,
}
