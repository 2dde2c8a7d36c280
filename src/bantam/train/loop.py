"""The only training loop.

Epoch e shows view e of every training image (or e mod `views`). After each epoch the net, or its averaged weights, is
evaluated on validation, and the best epoch is kept; of a cohort, the best member's. Everything random is a function of
(seed, image, view) or (seed, epoch), so a resumed run repeats an uninterrupted one to the bit on a CPU.
"""

import hashlib
import math
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bantam.data import batches
from bantam.data.splits import LabelledSplit, Normalisation, TrainingSplit, require_labelled, require_training
from bantam.errors import BadCheckpoint, BadData, NotFinite, TrainingStopped
from bantam.files import sweep
from bantam.measure.accuracy import accuracy
from bantam.measure.logits import raw_logits_of
from bantam.nets.slimmable import each_switch
from bantam.runs import checkpoint, runfolder
from bantam.runs.runfolder import Row
from bantam.runs.runlog import RunLog
from bantam.train.arithmetic import FP32, Arithmetic
from bantam.train.cohort import members_of
from bantam.train.distributed import ALONE, Processes
from bantam.train.pace import Pace
from bantam.train.place import Place
from bantam.train.plan import Plan
from bantam.train.step import Step
from bantam.train.ways import way_of

SAVE_EVERY = 20.0  # seconds between checkpoints: what a kill can cost
COLLAPSED_EPOCHS = 3  # epochs in a row with one predicted class before the alarm
FIRST_STEPS = 100  # steps after the warm-up in which one predicted class is only a net that has just begun


@dataclass(frozen=True)
class Trained:
    """What a training ends with: the best epoch's weights and its line of metrics; without validation, the last's.

    `epochs` are those that it had; the last of a training that was held to its time may be a part of one.
    """

    weights: dict[str, Tensor]
    best: Row
    seconds: float
    epochs: int


def train(
    net: nn.Module,
    plan: Plan,
    validation: LabelledSplit | None,
    place: Place,
    arithmetic: Arithmetic = FP32,
) -> Trained:
    """Train `net` as `plan` says, in `place`, and give the weights of the epoch that is best on validation.

    `net` may be a Cohort: then the weights are those of its best member. Without `validation` there is nothing to
    select by: they are those of the last epoch, and of the first member.
    Goes on from the folder's last.ckpt if it is there. Of several processes each is given the same arguments, but for
    the net's device, and ends with the same weights; process 0 writes the files. Raises SplitLeak for the evaluation
    split, BadData for a split too small to share, BadCheckpoint for a last.ckpt that is damaged or of another training,
    and TrainingStopped when the loss, the answers on validation or the weights to keep are not finite, or the
    predictions have collapsed to one class.
    """
    check(plan.training, validation, place.processes)
    stage, watcher, started = plan.stage, place.watcher, time.monotonic()
    per_epoch = len(order_of(plan, 0, place.processes))
    planned = per_epoch * stage.epochs
    step = Step(net, plan, planned, arithmetic, place.processes)
    asked = plan.answers
    pace = Pace(
        step,
        planned,
        per_epoch,
        place.folder / runfolder.PACE,
        place.left,
        lambda: asked.seconds if asked is not None else 0.0,
    )
    state = State(step, place.folder / "last.ckpt", told_apart(net, plan, arithmetic), started)
    state.resume()

    def keep(micro_batch: int) -> None:
        """Let a resumption train in the same way."""
        runfolder.write(place.folder / runfolder.PROBE, replace(arithmetic, micro_batch=micro_batch).to_json())

    log = None if place.processes.rank else RunLog(place.folder / "metrics.jsonl", state.epoch)
    net.train()
    tell = watcher.explain if step.device.type == "cpu" else watcher.say  # a GPU's memory may change what is computed
    taken = way_of(step, lambda line: tell(f"{stage.name}: {line}"), keep)
    watcher.begin(stage.name, planned, state.done)
    try:
        while state.done < pace.total or state.sums:  # what is begun is finished
            order = order_of(plan, state.epoch, place.processes).to(step.device)
            number = batches.view_of(state.epoch, stage.views)
            view = torch.full_like(order[0], number)
            step.begin(number)
            before = state.epoch * per_epoch
            while (row := state.done - before) < per_epoch and state.done < pace.total:
                following = order[row + 1] if row + 1 < per_epoch and state.done + 1 < pace.total else None
                state.add(taken(order[row], view, following))
                watcher.advance(state.done)
                if following is not None:
                    pace.look(state.done)
                if following is not None and state.due:
                    state.check_finite()
                    state.save()

            metrics = state.finish_epoch(state.done - before)
            shipped = step.ema.net if step.ema else net
            best = members_of(shipped)[0]
            if validation is not None:
                best = judged(shipped, validation, plan, state, metrics)
                state.check_collapse(metrics, validation, place)
            metrics["seconds"] = round(state.seconds, 2)
            state.keep_best(metrics, best)
            if log:
                log.append(metrics)
            watcher.epoch(metrics)
            place.kept(state.best, state.best_weights)
            pace.look(state.done)
            if state.due or state.done >= pace.total:
                state.save()
    finally:
        watcher.end()
        taken.close()
    return Trained(state.best_weights, state.best, state.seconds, state.epoch)


def check(training: TrainingSplit, validation: LabelledSplit | None, processes: Processes) -> None:
    """Refuse what is not to be learned or selected from, and what cannot be shared. Raises SplitLeak and BadData."""
    require_training(training, "training")
    if validation is not None:
        require_labelled(validation, "selection of the best epoch")
    world = processes.world
    for split, least in ((training, 2 * world), (validation, world)):
        if split is not None and len(split) < least:
            raise BadData(
                f"the {split.name} split has {len(split)} image(s), too few for {world} process(es): {least} are needed"
            )


def order_of(plan: Plan, epoch: int, processes: Processes) -> Tensor:
    """The images of each step of `epoch` for this process: int64 [steps, B]."""
    stage = plan.stage
    return batches.epoch(
        len(plan.training), stage.batch_size, plan.seed, epoch, stage.views, processes.rank, processes.world
    )


def judged(shipped: nn.Module, validation: LabelledSplit, plan: Plan, state: "State", metrics: Row) -> nn.Module:
    """Measure each member of `shipped` on validation, note it in `metrics`, and give the best member."""
    members, size, processes = members_of(shipped), plan.stage.size, state.step.processes
    with state.finite_answers():
        rows = [
            [judge(member, validation, size, plan.normalisation, processes) for _ in each_switch(member)]
            for member in members
        ]
    best = max(range(len(members)), key=lambda number: rows[number][0]["accuracy"])
    metrics["validation"] = rows[best][0]
    if len(members) > 1:
        metrics["peers"] = {"accuracies": [row[0]["accuracy"] for row in rows], "best": best}
    if len(rows[best]) > 1:
        metrics["switches"] = [row["accuracy"] for row in rows[best]]
    return members[best]


class State:
    """All that a resumed training needs, and the running sums of the epoch under way."""

    def __init__(self, step: Step, path: Path, of: str, started: float) -> None:
        self.step, self.path, self.of = step, path, of
        self.done = self.epoch = self.collapsed = self.warned = 0
        self.started = self.saved = started
        self.earlier = 0.0  # seconds of the processes before this one
        self.sums: dict[str, Tensor] = {}
        self.best: Row = {}
        self.best_weights: dict[str, Tensor] = {}

    @property
    def seconds(self) -> float:
        """What the training has taken so far, in all its processes one after the other."""
        return self.earlier + time.monotonic() - self.started

    @property
    def due(self) -> bool:
        """Whether it is time for a checkpoint."""
        return time.monotonic() - self.saved > SAVE_EVERY

    def add(self, terms: dict[str, Tensor]) -> None:
        for name, term in terms.items():
            self.sums[name] = self.sums[name] + term if name in self.sums else term.clone()
        self.done += 1

    def check_finite(self) -> None:
        loss = float(self.sums["loss"])
        if not math.isfinite(loss):
            raise self.diverged(f"the loss is not finite ({loss}) in epoch {self.epoch + 1}")

    def diverged(self, what: str) -> TrainingStopped:
        stage = self.step.stage
        return TrainingStopped(
            f'stage "{stage.name}": {what}; '
            f"lower {stage.name}.optimizer.lr (now {stage.optimizer.lr:g}) or clip gradients harder, and run again"
        )

    @contextmanager
    def finite_answers(self) -> Iterator[None]:
        """Within it answers that are not finite end the training: an epoch of them must never be the best."""
        try:
            yield
        except NotFinite as error:
            raise self.diverged(f"the answers on validation are not finite after epoch {self.epoch}") from error

    def finish_epoch(self, per_epoch: int) -> Row:
        self.check_finite()
        means = {name: float(total) / per_epoch for name, total in self.sums.items()}
        self.sums = {}
        self.epoch += 1
        return {"epoch": self.epoch, "lr": float(self.step.rate), "training": means}

    def keep_best(self, metrics: Row, shipped: nn.Module) -> None:
        if not self.best or "validation" not in metrics or selected_by(metrics) > selected_by(self.best):
            if not all(bool(value.isfinite().all()) for value in shipped.state_dict().values()):
                raise self.diverged(f"the weights are not finite after epoch {self.epoch}")
            self.best = metrics
            self.best_weights = {name: value.detach().cpu().clone() for name, value in shipped.state_dict().items()}

    def check_collapse(self, metrics: Row, validation: LabelledSplit, place: Place) -> None:
        """Raise TrainingStopped; where the training has a time to end at, say it, for nobody is there to try again."""
        begun = self.done > self.step.warm_up + FIRST_STEPS
        one_class = begun and metrics["validation"]["largest_share"] >= 0.995 and len(validation.labels.unique()) > 1
        self.collapsed = self.collapsed + 1 if one_class else 0
        if self.collapsed < COLLAPSED_EPOCHS or self.warned:
            return
        name, lr = self.step.stage.name, self.step.stage.optimizer.lr
        what = f"predictions have collapsed to one class for {self.collapsed} epochs (epoch {self.epoch})"
        if place.left is None:
            instead = f"lower {name}.optimizer.lr (now {lr:g}) or lengthen the warm-up, and run again in a new folder"
            raise TrainingStopped(f'stage "{name}": {what}; {instead}')
        self.warned = 1
        place.watcher.say(f"warning: {name}: {what}; it goes on, and the best epoch is kept")

    def save(self) -> None:
        step = self.step
        self.saved = time.monotonic()
        if step.processes.rank:
            return
        state: dict[str, Any] = {
            "net": step.net.state_dict(),
            "ema": step.ema.net.state_dict() if step.ema else {},
            "objectives": {name: objective.state_dict() for name, objective in step.objectives().items()},
            "optimizer": step.optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "best_weights": self.best_weights,
            "of": self.of,
            **{name: getattr(self, name) for name in ("done", "epoch", "collapsed", "seconds", "sums", "best")},
        }
        checkpoint.save(self.path, state)

    def resume(self) -> None:
        """Take up what `path` holds, if it is there. Raises BadCheckpoint: damaged, or of another training."""
        if self.step.processes.rank == 0:
            sweep(self.path.parent)
        if not self.path.exists():
            return
        advice = "delete it and run again: the stage starts from its beginning"
        state = checkpoint.load(self.path, advice=advice)
        if state.get("of", self.of) != self.of:  # checkpoints from before there was this key go by their content
            raise BadCheckpoint(f"{self.path} is of another training: other weights, keys or photographs; {advice}")
        try:
            self.take(state)
        # What is not a training's own may fail anywhere in the taking.
        except (RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise BadCheckpoint(f"{self.path} does not hold this training's state ({reason}); {advice}") from error

    def take(self, state: dict[str, Any]) -> None:
        step = self.step
        kinds = {"done": int, "epoch": int, "collapsed": int, "seconds": float, "best": dict, "sums": dict}
        for name, kind in kinds.items():
            if type(state[name]) is not kind:
                raise TypeError(f"{name} is {type(state[name]).__name__}, not {kind.__name__}")
        step.net.load_state_dict(state["net"])
        if step.ema:
            step.ema.net.load_state_dict(state["ema"])
        for name, objective in step.objectives().items():
            objective.load_state_dict(state["objectives"][name])
        step.optimizer.load_state_dict(state["optimizer"])
        for group in step.optimizer.param_groups:
            group["lr"] = step.rate
        torch.set_rng_state(state["random"])
        step.count.fill_(state["done"])
        for name in ("done", "epoch", "collapsed", "best", "best_weights"):
            setattr(self, name, state[name])
        self.earlier = state["seconds"]
        self.sums = {name: value.to(step.device) for name, value in state["sums"].items()}


def told_apart(net: nn.Module, plan: Plan, arithmetic: Arithmetic) -> str:
    """A hash of what a training is of, by which its checkpoint is told from that of another."""
    shapes = [(name, tuple(value.shape)) for name, value in net.state_dict().items()]
    learned = plan.training
    about = (
        shapes, plan.stage, learned.ids, learned.labels.tolist(), plan.normalisation, plan.seed, arithmetic.autocast,
    )  # fmt: skip
    return hashlib.sha256(repr(about).encode()).hexdigest()


def selected_by(metrics: Row) -> float:
    """By what the best epoch is chosen: the accuracy, or of a switchable net the mean over its switches.

    One checkpoint serves them all, and the whole net may be good before the others are.
    """
    return statistics.mean(metrics.get("switches") or [metrics["validation"]["accuracy"]])


def part(split: LabelledSplit, processes: Processes) -> LabelledSplit:
    """This process's share of a split."""
    rows = processes.share(len(split))
    return LabelledSplit(split.name, split.images[rows], split.labels[rows], split.ids[rows], split.classes)


def judge(
    net: nn.Module, validation: LabelledSplit, size: int, normalisation: Normalisation, processes: Processes = ALONE
) -> Row:
    """Accuracy with its standard error, cross-entropy and the share of the class predicted most, on validation.

    Each process looks at its share of the images, and all of them get the same numbers. Raises NotFinite.
    """
    logits = processes.gathered(raw_logits_of(net, part(validation, processes), size, normalisation))
    measured = accuracy(logits, validation.labels)
    shares = logits.argmax(1).bincount(minlength=logits.shape[1]) / len(logits)
    return {
        "accuracy": measured.value,
        "standard_error": measured.standard_error,
        "n": measured.n,
        "cross_entropy": float(F.cross_entropy(logits, validation.labels)),
        "largest_share": float(shares.max()),
    }
