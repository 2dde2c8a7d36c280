"""The kind of stage `prune`: fewer channels."""

from typing import Any

from torch import nn

from bantam.compress.channels import bundles, prune_to
from bantam.compress.pruning_curve import sample_of
from bantam.nets.output import StagedNet
from bantam.nets.students import Student
from bantam.pipeline.kinds.derived import derive
from bantam.pipeline.stages import Run
from bantam.recipes.kinds.pruning import Pruning
from bantam.train.reestimate import reestimated


def run(here: Run, stage: Pruning) -> dict[str, Any]:
    """Prune an earlier stage's net to the stage's budget and train what is left, or take the finished one."""

    def pruned(student: Student, net: StagedNet) -> tuple[Student, nn.Module]:
        split, size = here.splits.training, stage.size
        found = bundles(student, net, stage.importance, sample_of(split, size, here.normalisation))
        left = prune_to(student, net, found, stage.to_params)
        return left.student, reestimated(left.net, split, size, here.normalisation)

    return derive(here, stage, pruned)
