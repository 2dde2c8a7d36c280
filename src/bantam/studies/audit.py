"""The audit of all that taught in a run: given teachers, trained ones, assistants, and an ensemble of them."""

from pathlib import Path

from bantam.errors import BadRecipe
from bantam.measure.audit import Audit, audit
from bantam.nets.teachers import AnyTeacher, joint
from bantam.pipeline.stages import Run, teacher_of, weights_of
from bantam.runs.finished import FinishedRun
from bantam.runs.photographs import normalisation as normalisation_for
from bantam.runs.photographs import open_data
from bantam.runs.watcher import Watcher
from bantam.train.distributed import ALONE
from bantam.train.plan import viewing_of


def audit_run(run: FinishedRun, root: Path, images: int, watcher: Watcher) -> dict[str, Audit]:
    """Audit every teacher of `run` under its shipped student's augmentation, by the stage's name.

    What the student learned from, where that is several teachers or looks at mirror images, comes last. `images` are
    asked about of each split, drawn evenly; 0 for all. Raises BadData where there is no run, BadRecipe where nothing
    teaches in it, BadCheckpoint where a teacher is not finished.
    """
    recipe = run.recipe
    student = recipe.shipped
    teaching = {name for stage in recipe.stage for name in stage.teachers}
    if not teaching:
        raise BadRecipe(f'nobody teaches in the recipe "{recipe.name}" of {run}; audit a run with a teacher')
    splits = open_data(recipe, root, watcher)
    normalisation = normalisation_for(recipe, splits)
    here = Run(recipe, root, run.folder, splits, normalisation, ALONE.device, watcher, ALONE, {})
    teachers = {
        stage.name: teacher_of(here, stage, weights_of(here, stage)) for stage in recipe.stage if stage.name in teaching
    }
    voices: dict[str, AnyTeacher] = dict(teachers)
    if len(student.teachers) > 1 or student.teacher_flip:
        named = student.teacher + (", with mirror image" if student.teacher_flip else "")
        voices[named] = joint([teachers[name] for name in student.teachers], student.teacher_mean, student.teacher_flip)
    viewing = viewing_of(student, normalisation, recipe.seed)
    return {name: audit(voice, splits.training, splits.validation, viewing, images) for name, voice in voices.items()}
