"""The kinds of stages that a recipe may have: one file each, and the table STAGE_KINDS that names them all.

A kind is two files of one name: the one here has its keys in a recipe, with their types, defaults and ranges, and what
it asks of the other stages; the one in `bantam.pipeline.kinds` runs it. CONTRIBUTING.md shows how one is added.
"""

from bantam.recipes.kinds.stage import Stage
from bantam.tables import Table

STAGE_KINDS: Table[type[Stage]] = Table(
    "bantam.recipes.kinds",
    {
        "given_teacher": "given_teacher:GivenTeacher",
        "student": "training:Training",
        "assistant": "training:Training",
        "teacher": "training:Training",
        "refit": "refit:Refit",
        "prune": "pruning:Pruning",
        "exits": "exiting:Exiting",
    },
)


def shipped_kinds() -> list[str]:
    """The kinds of stages whose nets make the weight."""
    return [kind for kind, stage in STAGE_KINDS.items() if stage.ships(kind)]


__all__ = ["STAGE_KINDS", "Stage", "shipped_kinds"]
