"""The kind of stage `exits`: a net with early exits."""

from dataclasses import replace
from typing import Any

from torch import nn

from bantam.nets.budget import enforce
from bantam.nets.early_exit import with_exits
from bantam.nets.output import StagedNet
from bantam.nets.students import Student
from bantam.pipeline.kinds.derived import derive
from bantam.pipeline.stages import Run
from bantam.recipes.kinds.exiting import Exiting


def run(here: Run, stage: Exiting) -> dict[str, Any]:
    """Give an earlier stage's net early exits and train all of it together, or take the finished one.

    Raises BudgetExceeded, before anything is trained or written, where the net with its exits is over the budget.
    """

    def given_exits(student: Student, net: StagedNet) -> tuple[Student, nn.Module]:
        student, start = replace(student, exits=stage.after), with_exits(net, stage.after, stage.size)
        weight = enforce([student.shipped_form(start)], stage.size, here.recipe.budget)
        here.watcher.say(f"{stage.name}: with exits {weight.counted:,} of {here.recipe.budget:,} parameters")
        return student, start

    return derive(here, stage, given_exits)
