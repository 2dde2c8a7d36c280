"""The kind of stage `given_teacher`."""

from dataclasses import dataclass

from bantam.recipes.keys import SIDE, key
from bantam.recipes.kinds.stage import Stage


@dataclass(frozen=True, kw_only=True)
class GivenTeacher(Stage):
    """A stage that loads weights which somebody else trained."""

    kind: str = key("what the stage does", "given_teacher")
    architecture: str = key("the classifier that the weights belong to", "resnet18")
    checkpoint: str = key(
        "the file of its weights, relative to the data folder; FILE#NAME where the file holds several"
    )
    size: int = key("side in pixels at which the teacher looks at a view", range=SIDE)

    @property
    def cannot_teach(self) -> str:
        """Nothing is against it."""
        return ""
