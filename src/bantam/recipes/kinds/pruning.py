"""The kind of stage `prune`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

from bantam.recipes.keys import PARAMETERS, Misfit, Range, key
from bantam.recipes.kinds.derived import Derived
from bantam.recipes.kinds.stage import Stage

if TYPE_CHECKING:
    from bantam.recipes.recipe import Recipe


Importance = Literal["magnitude", "taylor", "bn_scale"]
IMPORTANCES: tuple[Importance, ...] = get_args(Importance)


@dataclass(frozen=True, kw_only=True)
class Pruning(Derived):
    """A stage that prunes an earlier stage's net to an exact budget, whole channels at a time, and trains the rest."""

    kind: str = key("what the stage does", "prune")
    to_params: int = key(
        "most parameters of what is left, by the larger count of the shipped form",
        range=Range(1, PARAMETERS, bound=True),
    )
    importance: Importance = key("by what the least important channels are found", "taylor")

    change: ClassVar[str] = "prune"

    def limit(self, budget: int) -> int:
        """Its own."""
        return self.to_params

    def check(self, recipe: "Recipe", earlier: Sequence[Stage]) -> None:
        """It is held to the recipe's budget too."""
        super().check(recipe, earlier)
        if self.to_params > recipe.budget:
            raise Misfit("to_params", f'stage "{self.name}": to_params = {self.to_params} is above the budget')
