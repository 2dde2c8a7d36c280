"""The search for the best student within a budget: many short trainings, then a few in full.

The short trainings distil from shared views and are pruned by successive halving (Li et al., "A System for Massively
Parallel Hyperparameter Tuning", MLSys 2020, arXiv:1810.05934); the candidates are drawn by a tree-structured Parzen
estimator (Bergstra et al., NIPS 2011). The first candidates are all families under the recipe as it stands. Selection
sees the validation split alone. Every training is a run folder of its own, so a killed one goes on where it was.
"""

import hashlib
import json
import math
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from optuna.exceptions import TrialPruned
from optuna.pruners import NopPruner, SuccessiveHalvingPruner
from optuna.storages import RDBStorage
from optuna.trial import Trial, TrialState

from bantam.errors import BadRecipe, BantamError, BudgetExceeded, TrainingStopped
from bantam.files import explained
from bantam.nets import budget
from bantam.nets.footprint import footprint
from bantam.nets.students import STUDENTS, describe
from bantam.pipeline import run as pipeline
from bantam.recipes import recipe as recipes
from bantam.recipes.kinds.training import Training
from bantam.recipes.recipe import Recipe
from bantam.runs import runfolder
from bantam.runs.photographs import open_data
from bantam.runs.runfolder import Row
from bantam.runs.watcher import Watcher
from bantam.search import space
from bantam.search.queue import HEARTBEAT, Queue, hidden, open_storage, reachable
from bantam.search.result import last_reason, write_result
from bantam.search.team import Team
from bantam.train.distributed import ALONE, Processes

FINALISTS = 3
"""How many of the best candidates are trained in full, but at most one for every SHORT_PER_FULL short trainings."""

SHORT_PER_FULL = 5

FIRST_RUNG = 2
"""Epochs before a candidate is first compared with the others, and then at three times as many each."""


@dataclass(frozen=True)
class Search:
    """What all workers of a search must agree about. `name` stands for the recipe, the photographs and the space."""

    name: str
    recipe: Recipe
    root: Path
    out: Path
    storage: str
    trials: int
    classes: int
    heartbeat: int

    def screening(self) -> Queue:
        """The short trainings: first each family as the recipe stands, the recipe's own before the others."""
        standing = space.standing(self.recipe)
        families = sorted(STUDENTS, key=lambda family: family != self.recipe.shipped.net)
        starts: list[dict[str, Any]] = [{**standing, "family": family} for family in families[: self.trials]]
        starts += [{}] * (self.trials - len(starts))
        pruner = SuccessiveHalvingPruner(min_resource=FIRST_RUNG, reduction_factor=3)
        return Queue(self.connect(), self.name, starts, space.space(self.recipe), pruner)

    def final(self, screening: Queue) -> Queue:
        """The full trainings of the best candidates of a finished screening."""
        complete = [trial for trial in screening.finished() if trial.state is TrialState.COMPLETE]
        finalists = min(FINALISTS, math.ceil(self.trials / SHORT_PER_FULL))
        best = sorted(complete, key=lambda trial: trial.values[0], reverse=True)[:finalists]
        name = f"{self.name}-full-{len(screening.starts)}"
        return Queue(self.connect(), name, [trial.params for trial in best], space.space(self.recipe), NopPruner())

    def connect(self) -> RDBStorage:
        return open_storage(self.storage, self.heartbeat)

    def work(self, processes: Processes = ALONE) -> None:
        """Train candidates until there are none left. Raises a BantamError that ends this worker alone."""
        screening = self.screening()
        screening.work(lambda trial: self.train(trial, "trials", processes))
        self.final(screening).work(lambda trial: self.train(trial, "full", processes))

    def train(self, trial: Trial, kind: str, processes: Processes) -> float:
        """Weigh and train the candidate `trial`; gives its validation accuracy. Raises TrialPruned."""
        recipe = space.candidate(self.recipe, trial.params)
        if kind == "trials":
            recipe = space.shortened(recipe)
        stage = recipe.shipped
        try:
            student = describe(stage.net, recipe.budget, self.classes, stage.size, stage.shape)
            net = student.shipped_net()
            weight = budget.enforce([net], stage.size, recipe.budget)
        except (BudgetExceeded, BadRecipe) as error:
            trial.set_user_attr("rejected", str(error))
            raise TrialPruned from error
        trial.set_user_attr("parameters", weight.counted)
        trial.set_user_attr("macs", footprint(net, stage.size).macs)

        key = hashlib.sha256(recipes.dump(recipe).encode()).hexdigest()[:8]
        folder = self.out / kind / f"{trial.user_attrs['slot']:04d}-{stage.net}-{key}"
        trial.set_user_attr("folder", f"{kind}/{folder.name}")
        self.share_stages(recipe, folder)
        reporter = Reporter(trial)
        for row in runfolder.rows(folder / "stages" / stage.name / runfolder.ROWS):
            reporter.epoch(row)
        try:
            metrics = pipeline.run(recipe, self.root, folder, reporter, processes)
        except TrainingStopped as error:
            trial.set_user_attr("stopped", str(error))
            raise TrialPruned from error
        judged = metrics["stages"][stage.name]["validation"]
        trial.set_user_attr("standard_error", judged["standard_error"])
        trial.set_user_attr("n", judged["n"])
        return judged["accuracy"]

    def prepare_stages(self, watcher: Watcher) -> None:
        """Train what stands before the student in the recipe, once for all candidates."""
        if not self.before_student():
            return
        stage = self.recipe.shipped
        alone: dict[str, dict[str, Any]] = {"supervised": {"weight": 1.0}}
        # A recipe must ship a student: here a token of one epoch.
        token = replace(stage, teacher="", objectives=alone, epochs=1, views=0)
        stages = tuple(token if one is stage else one for one in self.recipe.stage)
        pipeline.run(replace(self.recipe, stage=stages), self.root, self.out / "before", watcher)

    def before_student(self) -> list[str]:
        stages = [stage for stage in self.recipe.stage if isinstance(stage, Training)]
        return [stage.name for stage in stages if stage is not self.recipe.shipped]

    def share_stages(self, recipe: Recipe, folder: Path) -> None:
        """Give the run `folder` of `recipe` the finished stages that stand before its student."""
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / runfolder.RECIPE).exists():
                runfolder.write_recipe(folder, recipe)
            for name in self.before_student():
                source, target = self.out / "before" / "stages" / name, folder / "stages" / name
                target.mkdir(parents=True, exist_ok=True)
                # done.json comes last: only then is the stage finished.
                for path in sorted(source.iterdir(), key=lambda path: path.name == "done.json"):
                    if not (target / path.name).exists():
                        link_or_copy(path, target / path.name)


class Reporter(Watcher):
    """Tells the study each epoch's validation accuracy, and stops the training where the study prunes it."""

    def __init__(self, trial: Trial) -> None:
        self.trial, self.told = trial, 0

    def epoch(self, row: Row) -> None:
        if row["epoch"] <= self.told:  # a resumed training repeats epochs that were told before
            return
        self.told = row["epoch"]
        self.trial.report(row["validation"]["accuracy"], self.told)
        if self.trial.should_prune():
            raise TrialPruned


def search(
    recipe: Recipe,
    root: Path,
    out: Path,
    trials: int,
    storage: str | None = None,
    workers: int = 1,
    watcher: Watcher | None = None,
    heartbeat: int = HEARTBEAT,
) -> dict[str, Any]:
    """Search about `recipe` on the photographs in `root` with `workers` processes; gives what search.json holds.

    The study has exactly `trials` short trainings, whoever does them: a search with the same recipe, photographs and
    storage joins, here or on another machine. Without a `storage` the study is in out/search.db. `heartbeat` is in
    seconds. Writes winner.toml, pareto.svg and search.json into `out`. Raises a BantamError for what a user can cause.
    """
    watcher = watcher or Watcher()
    plan = planned(recipe, root, out, trials, storage, watcher, heartbeat)
    with reachable(plan.storage):
        screening = plan.screening()
        screening.fill()
        watcher.say(f"study {plan.name} in {hidden(plan.storage)}")
        over = screening.done() and plan.final(screening).done()
        if not over:
            plan.prepare_stages(watcher)
        team = Team(plan.work, plan.storage, 0 if over else workers)
        try:
            team.watch(screening, "search", watcher)
            if not any(trial.state is TrialState.COMPLETE for trial in screening.finished()):
                raise TrainingStopped(f"none of the {trials} candidates could be trained: {last_reason(screening)}")
            final = plan.final(screening)
            team.watch(final, "full", watcher)
        finally:
            team.dismiss()
        return write_result(plan.name, recipe, out, screening, final)


def planned(
    recipe: Recipe, root: Path, out: Path, trials: int, storage: str | None, watcher: Watcher, heartbeat: int
) -> Search:
    """What `search` does with these arguments; decodes the photographs. Raises a BantamError before any training."""
    pipeline.check(recipe)
    if refusal := space.refusal(recipe):
        raise BadRecipe(f'recipe "{recipe.name}": {refusal}')
    splits = open_data(recipe, root, watcher)
    classes = len(splits.classes)
    fits_somewhere(recipe, classes)
    with explained(out):
        out.mkdir(parents=True, exist_ok=True)
    about = [recipes.dump(recipe), splits.fingerprint, repr(space.space(recipe)), space.SHORT, space.SHORT_VIEWS]
    key = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:12]
    name = f"{recipe.name}-{recipe.budget}-{key}"
    url = storage or f"sqlite:///{out / 'search.db'}"
    return Search(name, recipe, root, out, url, trials, classes, heartbeat)


def fits_somewhere(recipe: Recipe, classes: int) -> None:
    """Raise the recipe's own student's BudgetExceeded if no family fits the budget."""
    refusals: list[BantamError] = []
    for family in sorted(STUDENTS, key=lambda family: family != recipe.shipped.net):
        try:
            describe(family, recipe.budget, classes, recipe.shipped.size)
            return
        except (BudgetExceeded, BadRecipe) as error:
            refusals.append(error)
    raise refusals[0]


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`, or a copy where links are not possible."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
