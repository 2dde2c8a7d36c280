"""The kind of stage `exits`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from bantam.recipes.keys import Misfit, Range, key
from bantam.recipes.kinds.derived import Derived
from bantam.recipes.kinds.stage import Stage
from bantam.recipes.kinds.training import Training

if TYPE_CHECKING:
    from bantam.recipes.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Exiting(Derived):
    """A stage that gives an earlier stage's net early exits, and trains the whole of it on."""

    kind: str = key("what the stage does", "exits")
    after: tuple[int, ...] = key(
        "numbers of the net's stages, from 1 on, after which there is an exit", range=Range(1, 100, bound=True)
    )

    has_exits: ClassVar[bool] = True

    change: ClassVar[str] = "give exits to"

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.objectives) == 1:
            raise Misfit(
                "objectives",
                "objectives holds self_distillation alone; the net's end needs one too, such as supervised",
            )

    def check(self, recipe: "Recipe", earlier: Sequence[Stage]) -> None:
        """Its net is a student's."""
        super().check(recipe, earlier)
        before = next(other for other in earlier if other.name == self.of)
        if not isinstance(before, Training) or before.kind == "teacher":
            raise Misfit("of", f'stage "{self.name}": "{self.of}" is no student; prune it first, then give exits')
