"""The kind of stage `given_teacher`: a net whose weights somebody else trained."""

from typing import Any

from bantam.pipeline.stages import Run, parameters_of, teacher_of, weights_of
from bantam.recipes.kinds.given_teacher import GivenTeacher


def run(here: Run, stage: GivenTeacher) -> dict[str, Any]:
    """Load a teacher's weights that somebody else trained."""
    net = weights_of(here, stage)
    here.teachers[stage.name] = teacher_of(here, stage, net)
    return {"kind": stage.kind, "net": stage.architecture, "parameters": parameters_of(net)}
