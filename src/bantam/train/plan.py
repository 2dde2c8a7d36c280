"""What a training is of."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from bantam.data.augment import Augmentation, Viewing
from bantam.data.splits import Normalisation, TrainingSplit
from bantam.objectives.objective import Objective
from bantam.recipes.kinds.training import Training
from bantam.train.answers import Answers


@dataclass(frozen=True)
class Goal:
    """An objective and its weight in the loss: `weight` at the start, changing evenly to `to` at the end."""

    objective: Objective
    weight: float
    to: float | None = None

    def weight_at(self, progress: Tensor) -> Tensor | float:
        """The weight at `progress`, a scalar in 0..1; a plain number where it does not change."""
        return self.weight if self.to is None else self.weight + (self.to - self.weight) * progress


@dataclass(frozen=True)
class Plan:
    """What a training is of: a recipe's stage, the images it learns from, its objectives and its teacher's answers."""

    stage: Training
    training: TrainingSplit
    normalisation: Normalisation
    goals: Mapping[str, Goal]
    answers: Answers | None = None
    seed: int = 0

    @property
    def viewing(self) -> Viewing:
        """The training views."""
        return viewing_of(self.stage, self.normalisation, self.seed)


def viewing_of(stage: Training, normalisation: Normalisation, seed: int) -> Viewing:
    """The views on which `stage` trains, and its teacher is asked."""
    return Viewing(seed, Augmentation(**vars(stage.augment)), stage.size, normalisation)
