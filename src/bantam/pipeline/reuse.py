"""Stages that another run has finished already, taken over instead of trained again.

A stage is the same where all its keys are, and the seed, the data and every stage it rests on. Then its folder is
copied. Of a run that kept only what it shipped, the student comes back in the form that trains (`bantam.nets.unfold`).
"""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from bantam.data.splits import LabelledSplit, Splits
from bantam.errors import BadData, BadRunFile
from bantam.files import replacing
from bantam.recipes.kinds import Stage
from bantam.recipes.kinds.derived import Derived
from bantam.recipes.kinds.training import Training
from bantam.recipes.recipe import Recipe
from bantam.runs import checkpoint, runfolder
from bantam.runs.finished import FinishedRun


def found(source: FinishedRun, recipe: Recipe, fingerprint: str) -> list[Training]:
    """Those stages of `recipe` that the run `source` has finished, on the photographs of that fingerprint.

    Raises BadData where `source` is no run, was made with another seed or other photographs, or has none.
    """
    if not (source.folder / runfolder.RECIPE).exists():
        raise BadData(f"{source} holds no run whose stages could be reused (no recipe.toml)")
    theirs = source.recipe
    if (theirs.seed, theirs.data) != (recipe.seed, recipe.data) or source.environment.get("data") != fingerprint:
        raise BadData(f"{source} was made with another seed, image size or other photographs; nothing of it fits here")
    stages = [stage for stage in recipe.stage if isinstance(stage, Training) and same(stage.name, recipe, theirs)]
    # Of several widths' BatchNorms, folded into one convolution, no trained form can be made again.
    whole = not theirs.refit and not theirs.shipped.switches
    shipped = theirs.shipped if source.is_finished and whole else None
    stages = [stage for stage in stages if stage == shipped or (source.stage(stage.name) / runfolder.DONE).exists()]
    if not stages:
        raise BadData(f"{source} has finished no stage that is the same in this recipe; leave --reuse out")
    return stages


def take(source: FinishedRun, stages: Sequence[Training], out: Path, splits: Splits) -> None:
    """Give the run in `out` those `stages` of the run `source`; each arrives whole or not at all."""
    for stage in stages:
        folder = out / runfolder.STAGES / stage.name
        if not (folder / runfolder.DONE).exists() and not copied(source.stage(stage.name), folder):
            restore(source, stage, folder, splits.training)


def same(name: str, recipe: Recipe, theirs: Recipe) -> bool:
    """Whether the stage `name` and all that it rests on have the same keys in both recipes."""
    mine, other = ({stage.name: stage for stage in one.stage} for one in (recipe, theirs))
    if name not in other or mine[name] != other[name]:
        return False
    stage = mine[name]
    weighed = isinstance(stage, Training) and stage.of_family and not stage.budget
    if weighed and recipe.budget != theirs.budget:
        return False
    return all(same(before, recipe, theirs) for before in rests_on(mine[name]))


def rests_on(stage: Stage) -> Iterator[str]:
    """The names of the stages that `stage` needs."""
    yield from stage.teachers
    for key in ("of", "start"):
        if getattr(stage, key, ""):
            yield getattr(stage, key)


def copied(folder: Path, into: Path) -> bool:
    """Copy the folder of a finished stage; done.json last, for it says "finished". False if it is not finished."""
    done = folder / runfolder.DONE
    if not done.exists():
        return False
    for path in [*(path for path in sorted(folder.iterdir()) if path != done), done]:
        with replacing(into / path.name) as temporary:
            shutil.copyfile(path, temporary)
    return True


def restore(source: FinishedRun, stage: Training, into: Path, training: LabelledSplit) -> None:
    """Make the folder of the finished `stage` from what the run `source` shipped."""
    told = source.metrics.get("stages", {}).get(stage.name)
    if told is None:
        raise BadRunFile(
            f"{source.folder / runfolder.RESULT} does not tell of the stage {stage.name}; {runfolder.AGAIN}"
        )
    net = source.unfolded(training)
    if isinstance(stage, Derived):
        runfolder.write(into / runfolder.STUDENT, source.shipped.student.to_json())
    weights = checkpoint.save_weights(into / runfolder.BEST, net.state_dict())
    runfolder.write(into / runfolder.DONE, {**told, "restored": "from the shipped form", "weights": weights})
