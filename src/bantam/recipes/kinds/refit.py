"""The kind of stage `refit`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bantam.recipes.keys import Misfit, key
from bantam.recipes.kinds.derived import Derived
from bantam.recipes.kinds.stage import Stage

if TYPE_CHECKING:
    from bantam.recipes.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Refit(Stage):
    """A stage that trains the shipped student once more, as it was chosen, on training and validation together."""

    name: str = key("the stage's name")
    kind: str = key("what the stage does", "refit")
    of: str = key("the student stage that is repeated: the one that would be shipped")

    @property
    def cannot_teach(self) -> str:
        """It has seen what its pupils would be judged by."""
        return f'the refit "{self.name}" has trained on validation and cannot teach; name the student that it repeats'

    def check(self, recipe: "Recipe", earlier: Sequence[Stage]) -> None:
        """It is the only refit, comes last, and repeats a student that was trained from its own start."""
        alone = not any(isinstance(other, Refit) for other in earlier)
        if not alone or self is not recipe.stage[-1] or self.of != recipe.shipped.name:
            raise Misfit(
                "of",
                f'the refit "{self.name}" must be the only one, the last stage, and of = "{recipe.shipped.name}": '
                "the student that is shipped",
            )
        if isinstance(recipe.shipped, Derived):
            raise Misfit(
                "of",
                f'the refit "{self.name}" cannot repeat "{recipe.shipped.name}", '
                "whose start is a net that validation chose",
            )
