"""The kind of stage `refit`: the shipped student is trained once more."""

from dataclasses import replace
from typing import Any

from bantam.data.splits import joined
from bantam.pipeline.stages import Run, learned_from, trained
from bantam.recipes.kinds.refit import Refit


def run(here: Run, stage: Refit) -> dict[str, Any]:
    """Train the shipped student once more, on training and validation; nothing is left to select or to measure by."""
    again = replace(here.recipe.shipped, name=stage.name)
    both = joined(learned_from(here.splits, again), here.splits.validation)
    return {
        **trained(here, again, both, None, f"{here.splits.fingerprint} {both.name}"),
        "kind": stage.kind,
        "of": stage.of,
        "images": len(both),
    }
