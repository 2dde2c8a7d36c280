"""The kinds of stages `student`, `assistant` and `teacher`: a net is trained."""

from typing import Any

from bantam.pipeline.stages import Run, learned_from, teacher_of, trained, weights_of
from bantam.recipes.kinds.training import Training


def run(here: Run, stage: Training) -> dict[str, Any]:
    """Train a student, an assistant or a teacher, or take the finished one from the stage's folder."""
    splits = here.splits
    result = trained(here, stage, learned_from(splits, stage), splits.validation, splits.fingerprint)
    if any(stage.name in later.teachers for later in here.recipe.stage):
        here.teachers[stage.name] = teacher_of(here, stage, weights_of(here, stage))
    return result
