"""What the kinds of stages share that change an earlier stage's net and train it on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from bantam.recipes.keys import Misfit, key
from bantam.recipes.kinds.given_teacher import GivenTeacher
from bantam.recipes.kinds.stage import Stage
from bantam.recipes.kinds.training import Training
from bantam.recipes.toml import nearest

if TYPE_CHECKING:
    from bantam.recipes.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Derived(Training):
    """A stage that changes an earlier stage's net and trains it on."""

    net: str = key("left empty: the net is that of the stage `of`", "")
    of: str = key("the earlier stage whose net is changed")

    own_net: ClassVar[bool] = False

    change: ClassVar[str] = "change"
    """The verb for what it does to the earlier net."""

    @classmethod
    def ships(cls, kind: str) -> bool:
        """What becomes of a net is shipped."""
        return True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.peers > 1:
            raise Misfit("peers", "peers must be 1: copies of one net have nothing to teach one another")
        if self.net:
            raise Misfit(
                "net", f"net must be left out of a stage of kind {self.kind}: `of` names the stage whose net it is"
            )

    def check(self, recipe: "Recipe", earlier: Sequence[Stage]) -> None:
        """Its net is an earlier stage's, without early exits or channels that several widths share."""
        super().check(recipe, earlier)
        before = next((other for other in earlier if other.name == self.of), None)
        if before is None:
            raise Misfit(
                "of",
                f'stage "{self.name}" starts from "{self.of}", which no earlier stage is named'
                + nearest(self.of, [other.name for other in earlier]),
            )
        if not isinstance(before, GivenTeacher | Training):
            raise Misfit("of", f'stage "{self.name}" starts from "{self.of}", which has no net')
        if isinstance(before, Training) and before.has_exits:
            raise Misfit("of", f'stage "{self.name}": "{self.of}" has exits already; prune first, then give exits')
        if isinstance(before, Training) and before.switches:
            raise Misfit(
                "of",
                f'stage "{self.name}" cannot {self.change} "{self.of}", whose widths or sizes share their channels',
            )
