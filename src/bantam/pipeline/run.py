"""THE MAIN PATH: from a recipe and a folder of photographs to a student that makes the weight.

`run` reads top to bottom: open the data, weigh the student, run the stages, ship the last student with its predictions.
A run is a folder; what is finished in it is skipped, what was killed goes on.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bantam.data.splits import IMAGENET, Normalisation, Splits, joined
from bantam.deliver.predict import predict
from bantam.errors import BadRecipe, RunMismatch
from bantam.files import explained, sealed
from bantam.measure.audit import Audit, audit
from bantam.measure.temperature import divide_logits, temperatures_of
from bantam.nets import budget
from bantam.nets.students import Student, check_choices, describe
from bantam.nets.teachers import load_teacher
from bantam.pipeline.given import require_fit, require_there
from bantam.pipeline.kinds.derived import require_source
from bantam.pipeline.reuse import found, take
from bantam.pipeline.selection import choose_on_validation, trained_net
from bantam.pipeline.stages import (
    STAGES,
    Run,
    as_teacher,
    derived_student,
    goals_of,
)
from bantam.recipes.kinds.derived import Derived
from bantam.recipes.kinds.exiting import Exiting
from bantam.recipes.kinds.given_teacher import GivenTeacher
from bantam.recipes.kinds.training import Training
from bantam.recipes.recipe import Recipe
from bantam.recipes.toml import plain, shown
from bantam.runs import runfolder
from bantam.runs.environment import environment
from bantam.runs.finished import open_run
from bantam.runs.photographs import normalisation as normalisation_for
from bantam.runs.photographs import open_data
from bantam.runs.remembered import remember
from bantam.runs.shipped import Shipped, ship
from bantam.runs.watcher import Noting, Watcher
from bantam.train.allocator import keep_memory
from bantam.train.distributed import ALONE, Processes
from bantam.train.plan import viewing_of
from bantam.train.reestimate import reestimated


def run(
    recipe: Recipe,
    root: Path,
    out: Path,
    watcher: Watcher | None = None,
    processes: Processes = ALONE,
    reuse: Path | None = None,
    left: Callable[[str], float] | None = None,
) -> dict[str, Any]:
    """Run `recipe` on the photographs in `root`, in the folder `out`; gives what metrics.json holds.

    Stages that the run in the folder `reuse` has finished, with the same keys, are taken from there. `left` gives the
    seconds that the stage of a name has left: its schedule is then shortened or stretched to that, and the best student
    so far is shipped meanwhile. Without it the recipe alone decides.
    Each of several `processes` calls it with the same arguments; process 0 writes the files.
    Raises a BantamError for what a user can cause; BudgetExceeded comes before the first step.
    """
    watcher = watcher or Watcher()
    splits, normalisation, described = prepared(recipe, root, watcher, processes)

    # Stages, in order; a finished one is taken from its folder, which is this run's alone meanwhile.
    with contextlib.ExitStack() as until_the_end:
        if processes.rank == 0:
            earlier = open_run(reuse) if reuse else None
            finished = found(earlier, recipe, splits.fingerprint) if earlier else []
            until_the_end.enter_context(claimed(recipe, out, splits.fingerprint, processes))
            if splits.division:
                runfolder.write(out / runfolder.SPLITS, splits.division.to_json())
            remember(out, root)
            if earlier:
                take(earlier, finished, out, splits)
                watcher.say(f"taken from {earlier}: {', '.join(stage.name for stage in finished)}")
            watcher = Noting(watcher, out)
        here = Run(recipe, root, out, splits, normalisation, processes.device, watcher, processes, {}, left)
        results = {stage.name: STAGES[stage.kind](here, stage) for stage in recipe.stage}
        if processes.rank == 0:
            shipped_last(here, results, described)
        processes.barrier()
        return sealed(runfolder.result(out))


def prepared(
    recipe: Recipe, root: Path, watcher: Watcher, processes: Processes = ALONE
) -> tuple[Splits, Normalisation, dict[str, Student]]:
    """Everything that can be known before a folder is claimed: the data, and the students that make the weight.

    Gives the splits, the normalisation of views, and the description of each stage's net. Raises as `run`.
    """
    keep_memory()
    check(recipe, processes)
    require_there(recipe, root)

    # Data: decoded once, memory-mapped from then on.
    splits = open_data(recipe, root, watcher)
    normalisation = normalisation_for(recipe, splits)
    for line in (*splits.remarks, *leak_warnings(splits)):
        watcher.say(line)

    # Students and assistants are weighed before anything is trained.
    weighed = [stage for stage in recipe.stage if isinstance(stage, Training) and stage.of_family]
    limits = {stage.name: stage.limit(recipe.budget) for stage in weighed}
    described = {
        stage.name: describe(
            stage.net, limits[stage.name], len(splits.classes), stage.size, stage.shape, stage.switches
        )
        for stage in weighed
    }
    for stage in weighed:
        limit = limits[stage.name]
        weight = budget.enforce([described[stage.name].shipped_net()], stage.size, limit)
        watcher.say(f"{stage.name}: {stage.net} weighs {weight.counted:,} of {limit:,} parameters")
    for stage in weighed:
        if stage.start in described and described[stage.start].shape != described[stage.name].shape:
            raise BadRecipe(
                f'stage "{stage.name}" starts from "{stage.start}", which has another shape than is fitted to '
                f"{stage.size} px; choose a size nearer to its own, or give both the same shape"
            )
    for stage in recipe.stage:
        if isinstance(stage, Exiting) and stage.of in described:  # what a pruning will leave is weighed then
            whole = replace(described[stage.of], size=stage.size, exits=stage.after)
            budget.enforce([whole.shipped_net()], stage.size, recipe.budget)
    require_fit(recipe, root, len(splits.classes))
    return splits, normalisation, described


def shipped_last(here: Run, results: dict[str, dict[str, Any]], described: dict[str, Student]) -> None:
    """Ship the last student: its description, its weights, its numbers in metrics.json, its predictions."""
    recipe, out, splits, normalisation = here.recipe, here.out, here.splits, here.normalisation
    stage, again = recipe.shipped, recipe.refit
    if isinstance(stage, Derived):
        described[stage.name] = derived_student(out, stage)
    allowed = stage.limit(recipe.budget)
    shipped = Shipped(described[stage.name], normalisation, splits.classes)
    trained = trained_net(shipped.student, out / "stages" / stage.name).to(here.device)
    measured = choose_on_validation(trained, shipped.student, splits, normalisation)
    if again:
        trained = trained_net(shipped.student, out / "stages" / again.name).to(here.device)
        if measured["batchnorm"] == "re-estimated":
            reestimated(trained, joined(splits.training, splits.validation), stage.size, normalisation)
        divide_logits(trained, temperatures_of(measured))  # validation taught this one: it cannot fit its own
    net = ship(out, shipped, trained.state_dict())
    weight = budget.enforce([net], stage.size, allowed)
    metrics = {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "student": results[stage.name]["net"],
        "budget": allowed,
        "parameters": {"unique": weight.unique, "torchsummary": weight.torchsummary},
        "validation": measured,
        "epochs": results[stage.name]["epochs"],
        "seconds": sum(result.get("seconds", 0.0) for result in results.values()),
        "stages": results,
    }
    if again:
        metrics["refit"] = {
            "stage": again.name,
            "of": stage.name,
            "images": results[again.name]["images"],
            "note": "what is shipped has trained on validation too, which measures it no longer; "
            f"the validation figures, temperatures included, are those of the stage {stage.name}",
        }
    runfolder.write(out / runfolder.RESULT, metrics)
    if splits.evaluation is not None:
        predict(net, shipped, splits.evaluation, tta=measured["views"], path=out / runfolder.SUBMISSION)


def check(recipe: Recipe, processes: Processes = ALONE) -> None:
    """Refuse names and keys that no table holds, and batches that cannot be shared, before any work.

    Raises BadRecipe.
    """
    for stage in recipe.stage:
        if not isinstance(stage, Training):
            continue
        if stage.of_family:
            check_choices(stage.net, stage.shape, stage.switches)
        if isinstance(stage, Derived):
            require_source(recipe, stage)
        follows = any(goal.objective.follows() for goal in goals_of(stage).values())
        if recipe.data.unlabelled and stage.teacher and not follows:
            raise BadRecipe(
                f'stage "{stage.name}": no objective follows its teacher, so images without a label would teach '
                "nothing; add one such as kd, or take data.unlabelled out"
            )
        share = 2 * processes.world  # whole pairs for every process
        if stage.batch_size % share:
            raise BadRecipe(
                f'stage "{stage.name}": batch_size = {stage.batch_size} cannot be cut into pairs for '
                f"{processes.world} processes; choose a multiple of {share}"
            )


@contextlib.contextmanager
def claimed(recipe: Recipe, out: Path, fingerprint: str, processes: Processes) -> Iterator[None]:
    """Within it the folder `out` is this recipe's, on these photographs, and this process's alone.

    Raises RunMismatch for a folder that others have made, and RunBusy where another process works in it.
    """
    require_same(recipe, out, fingerprint)
    with runfolder.alone_in(out):
        claim(recipe, out, fingerprint, processes)
        yield


def require_same(recipe: Recipe, out: Path, fingerprint: str) -> None:
    """Raise RunMismatch where the folder `out` holds something else than a run of `recipe` on these photographs."""
    with explained(out):
        foreign = not (out / runfolder.RECIPE).exists() and out.exists()
        if foreign and any(item for item in out.iterdir() if not item.name.startswith(".")):
            raise RunMismatch(f"{out} is not empty and holds no run; choose another --out")
    if not (out / runfolder.RECIPE).exists():
        return
    theirs = runfolder.recipe(out)  # an older one lacks keys that have defaults
    if theirs != recipe:
        there, asked = unlike(theirs, recipe), unlike(recipe, theirs)
        raise RunMismatch(
            f'{out} holds a run of the recipe "{theirs.name}" ({there}), and asked for is "{recipe.name}" ({asked}); '
            "choose another --out, or delete the folder"
        )
    if (runfolder.environment(out) or {}).get("data", fingerprint) != fingerprint:
        raise RunMismatch(f"{out} holds a run on other photographs; choose another --out, or delete the folder")


def claim(recipe: Recipe, out: Path, fingerprint: str, processes: Processes) -> None:
    """Write what the folder `out` is, or compare it with this recipe and these photographs.

    environment.json tells of the process that began the run; whoever goes on with it at another commit is added.
    Raises RunMismatch.
    """
    here = {**environment(), "device": processes.device.type, "processes": processes.world, "data": fingerprint}
    if not (out / runfolder.RECIPE).exists():
        runfolder.write_recipe(out, recipe)
        runfolder.write(out / runfolder.ENVIRONMENT, here)
        return
    require_same(recipe, out, fingerprint)  # again: another process may have made it since
    began = runfolder.environment(out) or here
    resumed = began.get("resumed", [])
    if here["commit"] not in (began.get("commit"), *resumed) and not (out / runfolder.RESULT).exists():
        began["resumed"] = [*resumed, here["commit"]]
    runfolder.write(out / runfolder.ENVIRONMENT, began)


def unlike(one: Recipe, other: Recipe) -> str:
    """The first few keys, `student.epochs = 30`, in which `one` is not as `other`, with the values of `one`."""
    mine, theirs = keys_of(one), keys_of(other)
    found = [f"{name} = {value}" for name, value in mine.items() if theirs.get(name) != value]
    return "; ".join(found[:3]) or "nothing that the other lacks"


def keys_of(recipe: Recipe) -> dict[str, str]:
    """Every key of `recipe` as `--set` names it, with its value as an error shows it."""
    found: dict[str, str] = {}

    def walk(values: dict[str, Any], before: str) -> None:
        for name, value in values.items():
            if isinstance(value, dict):
                walk(value, f"{before}{name}.")
            elif f"{before}{name}" == "stage":
                found["stages"] = ", ".join(f"{stage['name']} ({stage['kind']})" for stage in value)
                for stage in value:
                    walk({key: item for key, item in stage.items() if key not in ("name", "kind")}, f"{stage['name']}.")
            else:
                found[f"{before}{name}"] = shown(value)

    walk(plain(asdict(recipe)), "")
    return {name: value for name, value in found.items() if name != "name"}


def leak_warnings(splits: Splits) -> list[str]:
    """A line for the user where labelled images are also in evaluation, and where training images are in validation."""
    found = (("labelled", splits.leaks, "evaluation"), ("training", splits.overlap, "validation"))
    return [
        f"warning: {len(ids)} {what} images also stand in the {split} split ({', '.join(ids[:3])}, ...); "
        "`bantam data check DIR` lists them"
        for what, ids, split in found
        if ids
    ]


def audit_given_teacher(recipe: Recipe, root: Path, images: int, watcher: Watcher) -> Audit:
    """Audit the first given teacher of `recipe` under the shipped student's augmentation. Raises BadRecipe."""
    stage = next((stage for stage in recipe.stage if isinstance(stage, GivenTeacher)), None)
    if stage is None:
        raise BadRecipe(f'recipe "{recipe.name}" has no stage of kind "given_teacher" to audit')
    splits = open_data(recipe, root, watcher)
    net = load_teacher(root / stage.checkpoint, stage.architecture, len(splits.classes), watcher.say)
    student = recipe.shipped
    viewing = viewing_of(student, IMAGENET, recipe.seed)
    teacher = as_teacher(net, stage.size, IMAGENET, IMAGENET)
    return audit(teacher, splits.training, splits.validation, viewing, images)
