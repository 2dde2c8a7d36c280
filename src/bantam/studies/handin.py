"""THE PATH of `bantam handin`: everything that the course's exercise asks for, in one call that goes on where it was.

Each part is a command of its own, done here in order where it is missing:

    the student            bantam run RECIPE
    submission.csv         bantam predict RUN
    3-1, the curves        bantam prune, of the given teacher and of the student: pruned, re-estimated, fine-tuned
    3-2, the speed         bantam bench pruning
    hw13.zip, verified     bantam package RUN --data DIR
    the report             bantam report RUN --data DIR

RUN/handin.json      who hands in, and which package was verified
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bantam.compress.pruning_curve import CURVE, STATISTICS_IMAGES, ratios_of
from bantam.data.splits import Splits
from bantam.deliver.package.write import package
from bantam.deliver.predict import predict
from bantam.deliver.report.facts import check_photographs
from bantam.deliver.report.report import Written, report
from bantam.deliver.verify.unrun import Check
from bantam.deliver.verify.verify import Verdict, verify
from bantam.errors import BadData, BadPruning
from bantam.files import SEAL, sha256_of
from bantam.measure.crops import TTA
from bantam.pipeline import run as pipeline
from bantam.pipeline.given import require_there
from bantam.recipes.kinds.exiting import Exiting
from bantam.recipes.kinds.refit import Refit
from bantam.recipes.kinds.training import Training
from bantam.recipes.recipe import Recipe
from bantam.runs import runfolder
from bantam.runs.environment import environment
from bantam.runs.finished import FinishedRun, open_run
from bantam.runs.photographs import open_data
from bantam.runs.watcher import Watcher
from bantam.studies.durations import LEARNING, Paces, paces, told
from bantam.studies.prune import PROGRESS, Source, given_teachers, prune_curve
from bantam.studies.pruning_speed import BATCHES, pruning_speed

RATIOS = ratios_of("0:0.95:0.05")
METHODS = ("unstructured-global", "structured-taylor")
"""Of 3-1: single weights and whole channels, each by the way that costs least accuracy in docs/compression.md."""

JUDGED, TAUGHT, EPOCHS = 1000, 2048, 1
"""Of 3-1: validation images that judge a pruned net; training images, and passes over them, of its fine-tuning."""

RATIO, ROUNDS = 0.8, 15
"""Of 3-2: the share of the parameters that goes, and how often each version has its turn."""

STARTED, REPORTED = 60.0, 30.0
"""Seconds that verification and the report take besides their passes: processes start, photographs are read."""


@dataclass(frozen=True)
class Here:
    """What every part is made of: the run, its recipe and photographs, and how long a pass takes on this machine."""

    run: FinishedRun
    recipe: Recipe
    root: Path
    splits: Splits
    pace: Paces
    watcher: Watcher

    @property
    def answers(self) -> float:
        """Seconds of the student's answers, with its TTA, to one photograph."""
        return self.pace[self.recipe.shipped.name] * len(TTA[self.run.tta if self.run.is_finished else "zoom"])


@dataclass(frozen=True)
class Part:
    """One thing that is handed in: what it is called, whether it is there, how long it takes, and how it is made."""

    name: str
    there: bool
    seconds: float
    make: Callable[[], object]


@dataclass(frozen=True)
class Handed:
    """What is ready to be handed in, and what its checks say."""

    run: FinishedRun
    verdict: Verdict
    report: Written

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        files = {"submission": str(self.run.submission), "package": str(self.run.package)}
        return {**files, "verified": self.verdict.to_json(), "report": self.report.to_json()}


def handin(out: Path, root: Path, recipe: Recipe | None, author: Mapping[str, str], watcher: Watcher) -> Handed:
    """Make what the exercise asks for of the run in `out`, as far as it is not there; without a run, by `recipe`.

    `author` may have a `name` and a `student_id`, for the bonus report. A killed call goes on. Raises a BantamError for
    what a user can cause, before the long work where that is possible.
    """
    run = open_run(out)
    recipe = recipe or run.recipe
    if not run.is_finished:
        require_there(recipe, root)
    splits = open_data(recipe, root, watcher)
    if splits.evaluation is None:
        raise BadData(f"{root} has no evaluation images to hand in answers on; put them into {root / 'evaluation'}")
    if run.is_finished:
        check_photographs(run, root, splits)
    here = Here(run, recipe, root, splits, paces(recipe, len(splits.classes)), watcher)

    # What is missing, and how long each part of it takes.
    parts = [student(here), submission(here), *curves(here), speed(here), verified_package(here)]
    for line in plan_text([*parts, Part("the report", False, REPORTED + len(splits.validation) * here.answers, str)]):
        watcher.say(line)

    # Part by part; a part that was killed goes on within itself.
    for part in parts:
        if not part.there:
            watcher.say(part.name)
            part.make()
    sign(run, author)
    written = report(run, run.report, root, environment(), watcher)
    verdict = verdict_of(run)
    assert verdict is not None, "the part before has verified it"
    return Handed(run, verdict, written)


def plan_text(parts: Sequence[Part]) -> list[str]:
    """A line for each part, and one for all."""
    left = sum(part.seconds for part in parts if not part.there)
    rows = [(part.name, "there" if part.there else told(part.seconds)) for part in parts]
    rows.append(("in all, with this machine as busy as it is", told(left)))
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {words}" for name, words in rows]


# --- the parts, in their order


def student(here: Here) -> Part:
    """The run itself. Where another recipe's stands in its folder, making it says so."""
    there = here.run.is_finished and here.run.recipe == here.recipe
    name = f"the student, by the recipe {here.recipe.name}"
    return Part(
        name, there, training_seconds(here), lambda: pipeline.run(here.recipe, here.root, here.run.folder, here.watcher)
    )


def training_seconds(here: Here) -> float:
    """What the stages that are not finished take; of one that has begun, the epochs that are left."""
    seconds, recipe = 0.0, here.recipe
    stages = {stage.name: stage for stage in recipe.stage}
    for name, stage in stages.items():
        folder = here.run.stage(name)
        asked = stages[stage.of] if isinstance(stage, Refit) else stage
        if isinstance(asked, Training) and runfolder.finished(folder) is None:
            left = asked.epochs - len(runfolder.rows(folder / runfolder.ROWS))
            seconds += asked.peers * here.pace.training(asked, len(here.splits.training), left)
    return seconds


def submission(here: Here) -> Part:
    """The student's answers on the evaluation images, which a run on these photographs has written already."""
    run, images = here.run, len(here.splits.evaluation or ())

    def make() -> None:
        net, shipped = run.at_switch()
        predict(net, shipped, run.evaluation(here.root, here.watcher), tta=run.tta, path=run.submission)

    return Part(f"submission.csv, {images:,} answers", run.submission.exists(), images * here.answers, make)


def pruned(here: Here) -> list[Source]:
    """What 3-1 and 3-2 prune: the given teacher, and the student unless it is one that cannot be pruned."""
    shared = bool(here.recipe.shipped.switches) or isinstance(here.recipe.shipped, Exiting)
    return [*given_teachers(here.recipe, here.root)[:1], *([] if shared else [Source(here.run.folder)])]


def stage_of(here: Here, source: Source) -> str:
    """The stage of the recipe whose net `source` is."""
    return here.recipe.shipped.name if source.path == here.run.folder else here.recipe.given[0].name


def curves(here: Here) -> list[Part]:
    """3-1: ratio against accuracy, as pruned, with BatchNorm's statistics taken anew, and after fine-tuning."""
    parts: list[Part] = []
    for source in pruned(here):
        name = stage_of(here, source)
        whose = "student" if name == here.recipe.shipped.name else "teacher"
        folder = curve_folder(here.run, whose)
        parts.append(
            Part(
                f"3-1, the {whose} pruned to {len(RATIOS)} ratios in {len(METHODS)} ways, each fine-tuned",
                is_whole(here.run, folder),
                curve_seconds(here, name) * (1 - share_done(folder)),
                lambda source=source, folder=folder: draw(here, source, folder),
            )
        )
    return parts


def draw(here: Here, source: Source, folder: Path) -> None:
    """Draw a curve; of a net so small that the largest ratio would empty a layer, up to what goes through."""
    for count in range(len(RATIOS), 0, -1):
        try:
            prune_curve(source, here.root, RATIOS[:count], METHODS, JUDGED, EPOCHS, folder, here.watcher, TAUGHT)
        except BadPruning:
            if count == 1:
                raise
            continue
        if count < len(RATIOS):
            here.watcher.say(f"a ratio above {RATIOS[count - 1]:g} would empty a layer")
        kept = handed_in(here.run)
        runfolder.write(here.run.handin, {**kept, "ratios": {**kept.get("ratios", {}), folder.name: count}})
        return


def curve_folder(run: FinishedRun, whose: str) -> Path:
    """RUN/pruning/teacher or student; where a curve that lacks something stands there already, one beside it."""
    plain, beside = run.pruning / whose, run.pruning / f"{whose}-finetuned"
    return beside if (plain / CURVE).exists() and not is_whole(run, plain) else plain


def is_whole(run: FinishedRun, folder: Path) -> bool:
    """Whether a curve there has every ratio that goes through, by a method of METHODS, pruned and fine-tuned."""
    path = folder / CURVE
    points = runfolder.table(path, f"delete {folder}").get("points", []) if path.exists() else []
    tuned = {(each["method"], each["ratio"]) for each in points if each["finetuned"] or not each["ratio"]}
    wanted = RATIOS[: handed_in(run).get("ratios", {}).get(folder.name)]
    return any(all((method, ratio) in tuned for ratio in wanted) for method in METHODS)


def share_done(folder: Path) -> float:
    """The share of a curve that a killed call has kept."""
    path = folder / PROGRESS
    return len(runfolder.table(path, "delete it")["points"]) / len(METHODS) / len(RATIOS) if path.exists() else 0.0


def curve_seconds(here: Here, name: str) -> float:
    """What one curve takes. A net with fewer channels has about as many fewer products to compute."""
    pace, split = here.pace[name], here.splits
    looks = 3 * min(JUDGED, len(split.validation)) + min(STATISTICS_IMAGES, len(split.training))
    tuning = LEARNING * EPOCHS * min(TAUGHT, len(split.training))
    return pace * (looks + tuning) * sum(1 + (1 - ratio) for ratio in RATIOS)


def speed(here: Here) -> Part:
    """3-2: dense, masked, sparse and with fewer channels, timed in turns on one thread of this machine."""
    sources, where = pruned(here), here.run.pruning_speed
    passes = 2 * 4 * sum(BATCHES) * ROUNDS  # each of four versions once to warm up, once timed
    seconds = passes * torch.get_num_threads() * sum(here.pace[stage_of(here, source)] for source in sources)
    return Part(
        "3-2, how fast pruned nets are",
        where.is_file(),
        seconds,
        lambda: pruning_speed(sources, here.root, RATIO, ROUNDS, where, here.watcher),
    )


def verified_package(here: Here) -> Part:
    """The zip, its own code run in the sandbox; what was verified once is not verified again."""
    run = here.run

    def make() -> None:
        made = package(run, run.package)
        verdict = verify(made.path, here.root, made.budget, run_code=True)
        kept = {"files": files_of(run), "checks": verdict.to_json()["checks"]}
        runfolder.write(run.handin, {**handed_in(run), "verified": kept})

    seconds = STARTED + 3 * len(here.splits.evaluation or ()) * here.answers
    verdict = verdict_of(run)
    there = verdict is not None and verdict.passed
    return Part(f"{runfolder.PACKAGE}, verified", there, seconds, make)


# --- RUN/handin.json


def handed_in(run: FinishedRun) -> dict[str, Any]:
    """What handin.json holds, without its seal; nothing where there is none yet. Raises BadRunFile."""
    if not run.handin.exists():
        return {}
    known = runfolder.table(run.handin, "delete it: the package is verified once more")
    return {name: value for name, value in known.items() if name != SEAL}


def verdict_of(run: FinishedRun) -> Verdict | None:
    """What the package that lies there was found to be; None where that one, or this submission, was not verified."""
    known = handed_in(run).get("verified")
    if not known or known["files"] != files_of(run):
        return None
    return Verdict(str(run.package), tuple(Check(**check) for check in known["checks"]))


def files_of(run: FinishedRun) -> dict[str, str]:
    """The SHA-256 of each file that is handed in, as far as it is there."""
    return {path.name: sha256_of(path) for path in (run.package, run.submission) if path.is_file()}


def sign(run: FinishedRun, author: Mapping[str, str]) -> None:
    """Keep who hands in, for this report and every later one; what is not said anew stays as it was."""
    said = {name: text for name, text in author.items() if text}
    if said:
        kept = handed_in(run)
        runfolder.write(run.handin, {**kept, "author": {**kept.get("author", {}), **said}})
