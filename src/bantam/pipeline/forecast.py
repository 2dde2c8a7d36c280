"""How long a recipe would take on this machine: a few real steps of each of its trainings, timed."""

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from bantam.pipeline.run import prepared, require_same
from bantam.pipeline.stages import goals_of, learned_from
from bantam.recipes.kinds.derived import Derived
from bantam.recipes.kinds.given_teacher import GivenTeacher
from bantam.recipes.kinds.refit import Refit
from bantam.recipes.kinds.training import Training
from bantam.recipes.recipe import Recipe
from bantam.runs import runfolder
from bantam.runs.watcher import Watcher
from bantam.train.bench import bench_train

STEPS = 5
"""Timed steps of each training, after those that warm up."""


@dataclass(frozen=True)
class Forecast:
    """What a training would take: `epochs` that are left, of `steps` steps; `asking` is for a teacher's answers."""

    stage: str
    epochs: int
    steps: int
    seconds: float
    asking: float

    @property
    def minutes(self) -> float:
        """All of it."""
        return (self.seconds + self.asking) / 60

    def text(self) -> str:
        """A line for people."""
        if not self.epochs:
            return f"{self.stage}: finished"
        asking = f", {lasting(self.asking / 60)} of it for the teacher's answers" if self.asking >= 1 else ""
        return f"{self.stage}: {self.epochs} epochs of {self.steps:,} steps, about {lasting(self.minutes)}{asking}"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "minutes": self.minutes}


def lasting(minutes: float) -> str:
    """Minutes as people say them: 40 seconds, 7 minutes, 2.5 hours."""
    if minutes < 1.5:
        return f"{60 * minutes:.0f} seconds"
    return f"{minutes:.0f} minutes" if minutes < 100 else f"{minutes / 60:.1f} hours"


def forecast(recipe: Recipe, root: Path, out: Path, watcher: Watcher) -> list[Forecast]:
    """What the trainings of `recipe` on the photographs in `root` would take, those in `out` gone on with.

    Everything is checked as `run` checks it, and nothing is written into `out`. Raises as `run` does before its first
    step. The time of choosing on validation and of predicting at the end is not in it, nor what is cached already.
    """
    splits, _, _ = prepared(recipe, root, watcher)
    require_same(recipe, out, splits.fingerprint)
    rows: list[Forecast] = []
    for one in recipe.stage:
        again = isinstance(one, Refit)
        stage = replace(recipe.shipped, name=one.name) if again else one
        if not isinstance(stage, Training):
            continue
        folder = out / runfolder.STAGES / stage.name
        images = len(learned_from(splits, stage)) + again * len(splits.validation)
        steps = images // stage.batch_size or 1
        done = stage.epochs if runfolder.finished(folder) else len(runfolder.rows(folder / runfolder.ROWS))
        epochs = stage.epochs - done
        if not epochs:
            rows.append(Forecast(stage.name, 0, steps, 0.0, 0.0))
            continue
        like = net_source(recipe, stage)
        watcher.say(f"{stage.name}: timing {STEPS} steps ...")
        timed = bench_train(recipe, splits, goals_of(like), STEPS, watcher, like)
        judging = 0 if again else len(splits.validation) / timed.batch * timed.seconds["forward"]
        asking = images * max(0, stage.views - done) * timed.asked
        rows.append(Forecast(stage.name, epochs, steps, epochs * (steps * timed.step + judging), asking))
    return rows


def net_source(recipe: Recipe, stage: Training) -> Training:
    """A stage with a net as large as the one that `stage` trains at most: itself, or that whose net it goes on with."""
    by_name = {one.name: one for one in recipe.stage}
    while isinstance(stage, Derived):
        earlier = by_name[stage.of]
        if isinstance(earlier, GivenTeacher):
            keys = {one.name: getattr(stage, one.name) for one in fields(Training)}
            return Training(**{**keys, "kind": "teacher", "net": earlier.architecture})
        assert isinstance(earlier, Training), "recipes in which it is another are refused"
        stage = earlier
    return stage


def text(rows: list[Forecast]) -> str:
    """A line for each training, and all together."""
    total = lasting(sum(row.minutes for row in rows))
    return "\n".join(
        [*(row.text() for row in rows), f"in all about {total} on this machine, if it has nothing else to do"]
    )
