"""What every kind of stage has, and what the recipe and other stages ask of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bantam.recipes.keys import Keys, key

if TYPE_CHECKING:
    from bantam.recipes.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Stage(Keys):
    """One [[stage]] of a recipe. What of its keys does not fit by itself is refused in `__post_init__`."""

    name: str = key("the stage's name, by which later stages ask for it")
    kind: str = key("what the stage does")

    @classmethod
    def ships(cls, kind: str) -> bool:
        """Whether a stage of `kind`, one of this class, makes a net that can be shipped: it is a Training then."""
        return False

    @property
    def teachers(self) -> list[str]:
        """The names of the stages that teach this one; several are an ensemble."""
        return []

    @property
    def cannot_teach(self) -> str:
        """Why no stage can learn from this one; empty where one can."""
        return f'"{self.name}" has no net that could teach'

    def check(self, recipe: "Recipe", earlier: Sequence["Stage"]) -> None:
        """Refuse what does not fit the `recipe`, in which the stages `earlier` come before this one.

        Raises Misfit, whose path leads on from this stage.
        """
