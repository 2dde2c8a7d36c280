"""A finished run, opened: the one way to what a training has left behind, for everything that comes after it.

`open_run` gives a FinishedRun. A part of it is read, and checked, when it is first asked for, and then kept; so a run
whose folder was copied without its stages, or lost a file, still answers whatever does not need them. A student is
given in one of its forms (docs/forms.md), each time as a new net on the CPU, in eval mode, with its description.
What needs torch is imported where it is used: a run's files are read without it.
"""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bantam.errors import BadCheckpoint, BadData, BadRunFile, typed
from bantam.measure.counts import Accuracy
from bantam.measure.crops import TTA, tta_of
from bantam.recipes.recipe import Recipe
from bantam.runs import remembered, runfolder
from bantam.runs.schema import Threshold
from bantam.runs.student_graph import graph
from bantam.runs.watcher import Watcher

MODELS = Path(__file__).parents[1] / "models"
FOOD11 = MODELS / "food11"
"""The folder of the small trained model that comes with Bantam, laid out like a finished run's."""

if TYPE_CHECKING:
    from torch import nn

    from bantam.data.splits import LabelledSplit, Splits, UnlabelledSplit
    from bantam.nets.early_exit import EarlyExitNet
    from bantam.nets.output import StagedNet
    from bantam.runs.shipped import Shipped

IMAGES = 1024
"""So many training images tell the statistics of the BatchNorms that come back where a student is unfolded."""


def open_run(run: "Path | FinishedRun") -> "FinishedRun":
    """The run in a folder; one that is open already as it is. Reads nothing yet."""
    return run if isinstance(run, FinishedRun) else FinishedRun(run)


def load_shipped(
    run: "Path | FinishedRun", width: float | None = None, size: int | None = None
) -> "tuple[StagedNet, Shipped]":
    """The student that a run shipped, as an ordinary net, and its description: `FinishedRun.at_switch`."""
    return open_run(run).at_switch(width, size)


@dataclass(frozen=True)
class FinishedRun:
    """The run in `folder`. As text it is that path, as messages name it."""

    folder: Path

    def __str__(self) -> str:
        return str(self.folder)

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    # --- what its files say

    @cached_property
    def recipe(self) -> Recipe:
        """The resolved recipe. Raises BadData where the folder holds no run, BadRunFile for a damaged recipe.toml."""
        return runfolder.recipe(self.folder)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """metrics.json. Raises BadData for an unfinished run, BadRunFile for a damaged file."""
        return runfolder.result(self.folder)

    @cached_property
    def environment(self) -> dict[str, Any]:
        """environment.json: what made the run, and its photographs; empty where there is none. Raises BadRunFile."""
        return runfolder.environment(self.folder) or {}

    @cached_property
    def described(self) -> dict[str, Any]:
        """student.json as it was written. Raises BadData for an unfinished run, BadRunFile for a damaged file."""
        return runfolder.student(self.folder)

    @cached_property
    def shipped(self) -> "Shipped":
        """The description of the student, its normalisation and its classes. Raises as `described`, BadCheckpoint."""
        from bantam.runs.shipped import Shipped

        try:
            return Shipped.from_json(self.described)
        except BadCheckpoint as error:
            raise BadCheckpoint(f"{self.folder / runfolder.STUDENT} is damaged: {error}") from error

    @property
    def is_finished(self) -> bool:
        """Whether there is a result by now."""
        return (self.folder / runfolder.RESULT).exists()

    @property
    def stored(self) -> int:
        """The side in pixels at which its photographs are stored."""
        return self.recipe.data.size

    @property
    def tta(self) -> str:
        """The name in TTA that validation chose; "plain" of the best student so far, for which it has chosen none.

        Raises BadData for an unfinished run that has shipped none yet, BadRunFile for a damaged one.
        """
        if not self.is_finished and runfolder.INTERIM in self.described:
            return "plain"
        chosen = tta_of(self.metrics["validation"])
        if chosen not in TTA:
            raise BadRunFile(f"{self.folder / runfolder.RESULT} names no TTA of this version; {runfolder.AGAIN}")
        return chosen

    @property
    def accuracy(self) -> Accuracy:
        """On validation, of one pass: without flip. Raises as `metrics`."""
        judged = self.metrics["validation"]
        return Accuracy(round(judged["plain"] * judged["n"]), judged["n"])

    @property
    def accuracy_as_shipped(self) -> Accuracy:
        """On validation, over the views that were chosen: what whoever asks the student gets. Raises as `metrics`."""
        judged = self.metrics["validation"]
        return Accuracy(round(judged.get("accuracy", judged["plain"]) * judged["n"]), judged["n"])

    @property
    def refit_of(self) -> str | None:
        """The stage that a refit repeated on training and validation, whose figures those on validation are; or None.

        Raises BadRunFile for a damaged file.
        """
        return self.metrics["refit"]["of"] if self.is_finished and "refit" in self.metrics else None

    @property
    def exit_confidence(self) -> float | None:
        """The threshold, 0..1, that `bantam exits` chose; None where there is none. Raises BadRunFile."""
        if not self.exits.exists():
            return None
        advice = f"`bantam exits {typed(self)} --data DIR` makes it anew"
        found = runfolder.checked(Threshold, self.exits, runfolder.table(self.exits, advice), advice)
        return None if found.chosen is None else found.chosen.threshold

    @property
    def graph(self) -> bytes | None:
        """The student as a graph that answers without torch; None where there is none. Raises as `graph`."""
        return graph(self.folder)

    def quantized_graph(self, name: str) -> bytes:
        """The bytes of RUN/quantized/NAME as `bantam quantize` has written them. Raises BadRunFile for other ones."""
        path, record = self.quantized / name, self.quantized / runfolder.QUANTIZATION
        advice = f"`bantam quantize {typed(self)} --data DIR` makes it anew"
        known = runfolder.table(record, advice).get("files", {}) if record.exists() else {}
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BadRunFile(f"cannot read {path}: {error.strerror or error}; {advice}") from error
        # Files from before there was a record, and those that somebody has put there, have none.
        if name in known and known[name] != hashlib.sha256(data).hexdigest():
            raise BadRunFile(f"{path} is not what was written there, its SHA-256 is another; {advice}")
        return data

    # --- its photographs

    def photographs(self, given: Path | None = None) -> Path:
        """`given`, or else the data folder that the run remembers. Raises BadData where there is none any more."""
        assert self.recipe  # raises where there is no run at all
        return given or remembered.photographs(self.folder)

    def named(self, classes: tuple[str, ...], names: Path | None = None) -> tuple[str, ...]:
        """The student's `classes` by the names that they were given since: `remembered.named`."""
        return remembered.named(self.folder, classes, names)

    def open_data(self, root: Path, watcher: Watcher) -> "Splits":
        """The photographs in `root` as the recipe stores them. Raises BadData where their classes are others."""
        from bantam.runs.photographs import open_data

        splits = open_data(self.recipe, root, watcher)
        self.shipped.require_classes(splits)
        return splits

    def evaluation(self, root: Path, watcher: Watcher) -> "UnlabelledSplit":
        """The evaluation images in `root` as the recipe stores them. Raises BadData where there are none."""
        from bantam.runs.photographs import open_data

        # Without those of `unlabelled/`, which only a training needs.
        images = open_data(self.recipe, root, watcher, unlabelled=False).evaluation
        if images is None:
            raise BadData(f"{root} has no evaluation images; put them into {root / 'evaluation'}")
        return images

    # --- its student, in each of its forms

    def as_shipped(self) -> "tuple[StagedNet, Shipped]":
        """What is weighed: folded, with all its switches and early exits.

        Raises BadData without a student, BadRunFile, BadCheckpoint and NotFinite for damaged files and unfit weights.
        """
        from bantam.runs import checkpoint

        shipped = self.shipped
        net = shipped.student.shipped_net()
        weights = checkpoint.weights(self.weights, sha256=self.described.get("weights"))
        checkpoint.fill(net, weights, self.weights)
        return net.eval(), shipped

    def at_switch(self, width: float | None = None, size: int | None = None) -> "tuple[StagedNet, Shipped]":
        """As shipped, and an ordinary net: of a switchable one, one of its switches.

        The `width` and the `size` in pixels are a switch's, by default the largest. Raises BadData without this switch,
        and as `as_shipped`.
        """
        from bantam.nets.slimmable import Switch, SwitchableNet, extract

        net, shipped = self.as_shipped()
        student = shipped.student
        whole = Switch(1.0, student.size)
        switches = student.switches or (whole,)
        wanted = Switch(whole.width if width is None else width, size or whole.size)
        if wanted not in switches:
            valid = ", ".join(f"{one.width:g} at {one.size} px" for one in sorted(switches))
            raise BadData(f"the student in {self} has no width {wanted.width:g} at {wanted.size} px; it has {valid}")
        if not isinstance(net, SwitchableNet):
            return net, shipped
        number = switches.index(wanted)
        ordinary = student.at(student.switches[number])
        return extract(net, number, ordinary.shipped_net()), replace(shipped, student=ordinary)

    def whole_way(self, width: float | None = None, size: int | None = None) -> "tuple[StagedNet, Shipped]":
        """As `at_switch`, without early exits: the one pass that other runtimes and integers compute."""
        from bantam.nets.early_exit import without_exits

        net, shipped = self.at_switch(width, size)
        return without_exits(net), replace(shipped, student=replace(shipped.student, exits=()))

    def with_exits(self, width: float | None = None, size: int | None = None) -> "tuple[EarlyExitNet, Shipped]":
        """As `at_switch`, where that has early exits. Raises BadData where it has none."""
        net, shipped = self.at_switch(width, size)
        return self.require_exits(net), shipped

    def require_exits(self, net: "nn.Module") -> "EarlyExitNet":
        """`net`, the student of this run, if it has early exits. Raises BadData."""
        from bantam.nets.early_exit import EarlyExitNet

        if not isinstance(net, EarlyExitNet):
            raise BadData(
                f"the student of {self} has no early exits; a recipe's stage of kind exits gives them, as "
                "`bantam recipes show exits` shows"
            )
        return net

    def as_trained(self, training: "LabelledSplit") -> "StagedNet":
        """With BatchNorms, training-only branches, switches and exits: of its stage, or unfolded where that is gone.

        Raises as `unfolded`, and BadCheckpoint for a damaged stage.
        """
        from bantam.runs import checkpoint

        folder = self.stage(self.recipe.shipped.name)
        if not (folder / runfolder.BEST).exists():
            return self.unfolded(training)
        net = self.shipped.student.build()
        checkpoint.fill_from_stage(net, folder)
        return net.eval()

    def unfolded(self, training: "LabelledSplit") -> "StagedNet":
        """What was shipped, with BatchNorms and branches in front of it again: the same classes, and it can train.

        The BatchNorms' statistics are those of `training` images. Its logits are those of the training, before they
        were divided by a temperature: a student that learns on, or teaches, does so as it did. Raises as `at_switch`,
        and `metrics`.
        """
        import torch

        from bantam.data.augment import plain
        from bantam.measure.temperature import divide_logits, temperatures_of
        from bantam.nets.unfold import unfold

        net, shipped = self.at_switch()
        if temperatures := temperatures_of(self.metrics["validation"]):
            divide_logits(net, [1 / temperature for temperature in temperatures])
        chosen = torch.randperm(len(training), generator=torch.Generator().manual_seed(0))[:IMAGES]
        normalisation = shipped.normalisation
        images = plain(training.images[chosen], shipped.student.size, normalisation.mean, normalisation.std)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # the same net every time, training-only branches included
            return unfold(shipped.student, net, images)

    # --- where its files lie

    def stage(self, name: str) -> Path:
        """The folder of the stage of this name."""
        return self.folder / runfolder.STAGES / name

    @property
    def weights(self) -> Path:
        """The state_dict as shipped."""
        return self.folder / runfolder.WEIGHTS

    @property
    def submission(self) -> Path:
        """The predictions on the evaluation images, if there are any."""
        return self.folder / runfolder.SUBMISSION

    @property
    def package(self) -> Path:
        """What `bantam package` makes."""
        return self.folder / runfolder.PACKAGE

    @property
    def exits(self) -> Path:
        """What `bantam exits` measures."""
        return self.folder / runfolder.EXITS

    @property
    def views(self) -> Path:
        """What `bantam views` measures."""
        return self.folder / runfolder.VIEWS

    @property
    def cascade(self) -> Path:
        """What `bantam cascade` measures."""
        return self.folder / runfolder.CASCADE

    @property
    def slim(self) -> Path:
        """What `bantam slim` measures."""
        return self.folder / runfolder.SLIM

    @property
    def pruning(self) -> Path:
        """The folder of the curves that `bantam prune` draws for the report."""
        return self.folder / runfolder.PRUNING

    @property
    def pruning_speed(self) -> Path:
        """What `bantam bench pruning` measures."""
        return self.folder / runfolder.SPEED

    @property
    def quantized(self) -> Path:
        """The folder of what `bantam quantize` makes."""
        return self.folder / runfolder.QUANTIZED

    @property
    def report(self) -> Path:
        """The page that `bantam report` writes."""
        return self.folder / runfolder.REPORT

    @property
    def handin(self) -> Path:
        """What `bantam handin` keeps: who hands in, and which package was verified."""
        return self.folder / runfolder.HANDIN

    @property
    def facts(self) -> Path:
        """What the report had measured."""
        return self.folder / runfolder.FACTS

    def exported(self, name: str) -> Path:
        """The file of this name that `bantam export` writes."""
        return self.folder / name
