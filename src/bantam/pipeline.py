"""THE MAIN PATH: from a recipe and a folder of photographs to a student that makes the weight.

`run` reads top to bottom: open the data, weigh the student, run the stages, ship the last student with its predictions.
A run is a folder; what is finished in it is skipped, what was killed goes on.
"""

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
from bantam.data.splits import IMAGENET, Normalisation, Splits, normalisation_of
from bantam.deliver.predict import Shipped, choose_flip, predict, ship
from bantam.errors import BadData, BadRecipe, RunMismatch
from bantam.files import explained, write_json, write_text
from bantam.measure.audit import Audit, audit
from bantam.nets import budget
from bantam.nets.students import describe, family
from bantam.nets.teachers import Ensemble, Teacher, build_teacher, load_teacher
from bantam.objectives import OBJECTIVES
from bantam.recipe import GivenTeacher, Recipe, Training
from bantam.train import checkpoint
from bantam.train.allocator import keep_memory
from bantam.train.answers import Answers, Live, ViewCache
from bantam.train.loop import train
from bantam.train.probe import Choice, choose
from bantam.train.runlog import Counter, Watcher, environment
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
    teachers: dict[str, Teacher]


def run(recipe: Recipe, root: Path, out: Path, watcher: Watcher | None = None) -> dict[str, Any]:
    """Run `recipe` on the photographs in `root`, in the folder `out`; gives what metrics.json holds.

    Raises a BantamError for what a user can cause; BudgetExceeded comes before the first step.
    """
    watcher = watcher or Watcher()
    keep_memory()
    check(recipe)

    # Data: decoded once, memory-mapped from then on.
    splits = open_data(recipe, root, watcher)
    normalisation = normalisation_of(splits.training) if recipe.data.normalisation == "training" else IMAGENET
    for line in leak_warnings(splits):
        watcher.say(line)

    # The student is weighed before anything is trained.
    students = [stage for stage in recipe.stage if isinstance(stage, Training) and stage.kind == "student"]
    described = {stage.name: describe(stage.net, recipe.budget, len(splits.classes), stage.size) for stage in students}
    for stage in students:
        weight = budget.enforce([described[stage.name].shipped_net()], stage.size, recipe.budget)
        watcher.say(f"{stage.name}: {stage.net} weighs {weight.counted:,} of {recipe.budget:,} parameters")

    # Stages, in order; a finished one is taken from its folder.
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    claim(recipe, out, splits.fingerprint, device)
    here = Run(recipe, root, out, splits, normalisation, device, watcher, {})
    results: dict[str, dict[str, Any]] = {}
    for stage in recipe.stage:
        results[stage.name] = STAGES[stage.kind](here, stage)

    # Ship the last student: its description, its weights, its numbers, its predictions.
    stage = recipe.shipped
    best = checkpoint.load(out / "stages" / stage.name / "best.ckpt")
    shipped = Shipped(described[stage.name], normalisation, splits.classes)
    net = ship(out, shipped, best)
    weight = budget.enforce([net], stage.size, recipe.budget)
    measured = choose_flip(net, shipped, splits.validation)
    metrics = {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "student": stage.net,
        "budget": recipe.budget,
        "parameters": {"unique": weight.unique, "torchsummary": weight.torchsummary},
        "validation": measured,
        "epochs": stage.epochs,
        "seconds": sum(result.get("seconds", 0.0) for result in results.values()),
        "stages": results,
    }
    write_json(out / "metrics.json", metrics)
    if splits.evaluation is not None:
        predict(net, shipped, splits.evaluation, flip=measured["flip"], path=out / "submission.csv")
    return metrics


def check(recipe: Recipe) -> None:
    """Refuse names and keys that no table holds, before any work. Raises BadRecipe."""
    for stage in recipe.stage:
        if isinstance(stage, GivenTeacher):
            continue
        if stage.kind == "student":
            family(stage.net)
        goals_of(stage)


def claim(recipe: Recipe, out: Path, fingerprint: str, device: torch.device) -> None:
    """Make the folder `out` this recipe's, on these photographs; refuse one that others have made.

    environment.json tells of the process that began the run; whoever goes on with it at another commit is added.
    Raises RunMismatch.
    """
    text = recipes.dump(recipe)
    path, made_in = out / "recipe.toml", out / "environment.json"
    here = {**environment(), "device": device.type, "data": fingerprint}
    with explained(out):
        out.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        if any(item for item in out.iterdir() if not item.name.startswith(".")):
            raise RunMismatch(f"{out} is not empty and holds no run; choose another --out")
        write_text(path, text)
        write_json(made_in, here)
        return
    theirs = path.read_text(encoding="utf-8")
    if theirs != text:
        changed = [line for line in text.splitlines() if line not in theirs.splitlines()]
        raise RunMismatch(
            f"{out} holds a run of another recipe (here: {'; '.join(changed[:3]) or 'keys are missing'}); "
            "choose another --out, or delete the folder"
        )
    began = json.loads(made_in.read_text(encoding="utf-8")) if made_in.exists() else here
    if began["data"] != fingerprint:
        raise RunMismatch(f"{out} holds a run on other photographs; choose another --out, or delete the folder")
    resumed = began.get("resumed", [])
    if here["commit"] not in (began["commit"], *resumed) and not (out / "metrics.json").exists():
        began["resumed"] = [*resumed, here["commit"]]
    write_json(made_in, began)


def open_data(recipe: Recipe, root: Path, watcher: Watcher) -> Splits:
    return cache.open_splits(root, recipe.data.size, progress=Counter(watcher, "decoding"))


def leak_warnings(splits: Splits) -> list[str]:
    if not splits.leaks:
        return []
    shown = ", ".join(splits.leaks[:3])
    return [
        f"warning: {len(splits.leaks)} labelled images also stand in the evaluation split ({shown}, ...); "
        "`bantam data check` lists them"
    ]


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
    net = net.to(device=here.device).to(memory_format=torch.channels_last)
    done = folder / "done.json"
    if not done.exists():
        choice = probed(net, stage, classes, folder)
        here.watcher.say(f"{stage.name}: {choice.precision} ({choice.why})")
        goals = goals_of(stage)
        answers = answers_for(here, stage, goals)
        splits = here.splits
        trained = train(
            net, stage, splits.training, splits.validation, here.normalisation, goals, answers,
            here.recipe.seed, folder, here.watcher, choice.autocast,
        )  # fmt: skip
        checkpoint.save(folder / "best.ckpt", trained.weights)
        result = {
            "kind": stage.kind,
            "net": stage.net,
            "parameters": parameters_of(weighed),
            "epochs": stage.epochs,
            "best_epoch": trained.best["epoch"],
            "validation": trained.best["validation"],
            "seconds": round(trained.seconds, 1),
        }
        write_json(done, result)
        (folder / "last.ckpt").unlink(missing_ok=True)
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
    cached.build(views, here.watcher)
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
}


def recipe_of(folder: Path) -> Recipe:
    """The recipe of a run folder. Raises BadData where `folder` holds no run."""
    path = folder / "recipe.toml"
    if not path.exists():
        raise BadData(f"{folder} holds no run (no recipe.toml); `bantam run RECIPE --data DIR --out RUN` makes one")
    return recipes.load(str(path))


def audit_given_teacher(recipe: Recipe, root: Path, images: int, watcher: Watcher) -> Audit:
    """Audit the first given teacher of `recipe` under the shipped student's augmentation. Raises BadRecipe."""
    stage = next((stage for stage in recipe.stage if isinstance(stage, GivenTeacher)), None)
    if stage is None:
        raise BadRecipe(f'recipe "{recipe.name}" has no stage of kind "given_teacher" to audit')
    splits = open_data(recipe, root, watcher)
    net = load_teacher(root / stage.checkpoint, stage.architecture, len(splits.classes))
    student = recipe.shipped
    return audit(
        as_teacher(net, stage.size, IMAGENET, IMAGENET),
        splits.training,
        splits.validation,
        Augmentation(**vars(student.augment)),
        student.size,
        IMAGENET,
        images,
        recipe.seed,
    )
