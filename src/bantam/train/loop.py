"""The only training loop.

Epoch e shows view e of every training image (or e mod `views`). After each epoch the net, or its averaged weights, is
evaluated on validation, and the best epoch is kept; of a cohort, the best member's. Everything random is a function of
(seed, image, view) or (seed, epoch), so a resumed run repeats an uninterrupted one to the bit on a CPU.
"""

import hashlib
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
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
from bantam.recipes.kinds import Training
from bantam.runs import checkpoint
from bantam.runs.watcher import Watcher
from bantam.train.ahead import Ahead
from bantam.train.answers import Answers
from bantam.train.capture import Captured
from bantam.train.cohort import members_of
from bantam.train.distributed import ALONE, Processes
from bantam.train.runlog import Row, RunLog
from bantam.train.step import Goal, Step

SAVE_EVERY = 20.0  # seconds between checkpoints: what a kill can cost
COLLAPSED_EPOCHS = 3  # epochs in a row with one predicted class before the alarm
FIRST_STEPS = 100  # steps after the warm-up in which one predicted class is only a net that has just begun


@dataclass(frozen=True)
class Trained:
    """What a training ends with: the best epoch's weights and its line of metrics; without validation, the last's."""

    weights: dict[str, Tensor]
    best: Row
    seconds: float


def train(
    net: nn.Module,
    stage: Training,
    training: TrainingSplit,
    validation: LabelledSplit | None,
    normalisation: Normalisation,
    goals: Mapping[str, Goal],
    answers: Answers | None,
    seed: int,
    folder: Path,
    watcher: Watcher,
    autocast: torch.dtype | None = None,
    processes: Processes = ALONE,
    memory_format: torch.memory_format = torch.channels_last,
) -> Trained:
    """Train `net` as `stage` says, in `folder`, and give the weights of the epoch that is best on validation.

    `net` may be a Cohort: then the weights are those of its best member. Without `validation` there is nothing to
    select by: they are those of the last epoch, and of the first member.
    Goes on from `folder/last.ckpt` if it is there. Of several processes each is given the same arguments, but for the
    net's device, and ends with the same weights; process 0 writes the files. Raises SplitLeak for the evaluation split,
    BadData for a split too small to share, BadCheckpoint for a last.ckpt that is damaged or of another training, and
    TrainingStopped when the loss, the answers on validation or the weights to keep are not finite, or the predictions
    have collapsed to one class.
    """
    training = require_training(training, "training")
    if validation is not None:
        validation = require_labelled(validation, "selection of the best epoch")
    device = next(net.parameters()).device
    rank, world = processes.rank, processes.world
    for split, least in ((training, 2 * world), (validation, world)):
        if split is not None and len(split) < least:
            raise BadData(
                f"the {split.name} split has {len(split)} image(s), too few for {world} process(es): {least} are needed"
            )

    per_epoch, batch = batches.epoch(len(training), stage.batch_size, seed, 0, stage.views, rank, world).shape
    total = per_epoch * stage.epochs
    saved_at = started = time.monotonic()
    step = Step(
        net, stage, training, normalisation, goals, answers, seed, total, autocast, processes, memory_format
    )  # fmt: skip
    state = State(step, folder / "last.ckpt", told_apart(net, stage, training, normalisation, seed, autocast))
    state.resume()
    log = None if rank else RunLog(folder / "metrics.jsonl", state.epoch)
    net.train()
    # On a GPU the step is captured once and replayed; everywhere else it is the plain sequence. So it is with several
    # processes: within a capture DistributedDataParallel could neither order its buckets nor notice a lost process.
    # Where switches take turns, one step is not another. On a CPU a second thread may make the next views meanwhile.
    one_step: Callable[[Tensor, Tensor], dict[str, Tensor]] = step
    ahead = Ahead(step, lambda line: watcher.say(f"{stage.name}: {line}")) if device.type == "cpu" else None
    if device.type == "cuda":
        step.settle()
    if device.type == "cuda" and world == 1 and not step.takes_turns:
        step.begin(0)
        example = torch.arange(batch, device=device)
        one_step = Captured(step, example, torch.zeros_like(example))
    watcher.begin(stage.name, total, state.done)
    earlier = state.seconds
    try:
        while state.epoch < stage.epochs:
            order = batches.epoch(len(training), stage.batch_size, seed, state.epoch, stage.views, rank, world)
            order = order.to(device)
            view = torch.full_like(order[0], batches.view_of(state.epoch, stage.views))
            step.begin(batches.view_of(state.epoch, stage.views))
            for row in range(state.done - state.epoch * per_epoch, per_epoch):
                following = order[row + 1] if row + 1 < per_epoch else None
                state.add(ahead(order[row], view, following) if ahead else one_step(order[row], view))
                watcher.advance(state.done)
                state.seconds = earlier + time.monotonic() - started
                if time.monotonic() - saved_at > SAVE_EVERY and row + 1 < per_epoch:
                    state.check_finite()
                    state.save()
                    saved_at = time.monotonic()

            metrics = state.finish_epoch(per_epoch)
            members = members_of(step.ema.net if step.ema else net)
            best = 0
            if validation is not None:
                with state.finite_answers():
                    judged = [
                        [judge(member, validation, stage.size, normalisation, processes) for _ in each_switch(member)]
                        for member in members
                    ]
                best = max(range(len(members)), key=lambda number: judged[number][0]["accuracy"])
                metrics["validation"] = judged[best][0]
                if len(members) > 1:
                    metrics["peers"] = {"accuracies": [rows[0]["accuracy"] for rows in judged], "best": best}
                if len(judged[best]) > 1:
                    metrics["switches"] = [row["accuracy"] for row in judged[best]]
                state.check_collapse(metrics, validation)
            state.seconds = earlier + time.monotonic() - started
            metrics["seconds"] = round(state.seconds, 2)
            state.keep_best(metrics, members[best])
            if log:
                log.append(metrics)
            watcher.epoch(metrics)
            if time.monotonic() - saved_at > SAVE_EVERY or state.epoch == stage.epochs:
                state.save()
                saved_at = time.monotonic()
    finally:
        watcher.end()
        if ahead:
            ahead.close()
    return Trained(state.best_weights, state.best, state.seconds)


class State:
    """All that a resumed training needs, and the running sums of the epoch under way."""

    def __init__(self, step: Step, path: Path, of: str) -> None:
        self.step, self.path, self.of = step, path, of
        self.done = self.epoch = self.collapsed = 0
        self.seconds = 0.0
        self.sums: dict[str, Tensor] = {}
        self.best: Row = {}
        self.best_weights: dict[str, Tensor] = {}

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

    def check_collapse(self, metrics: Row, validation: LabelledSplit) -> None:
        begun = self.done > self.step.warm_up + FIRST_STEPS
        one_class = begun and metrics["validation"]["largest_share"] >= 0.995 and len(validation.labels.unique()) > 1
        self.collapsed = self.collapsed + 1 if one_class else 0
        if self.collapsed >= COLLAPSED_EPOCHS:
            stage = self.step.stage
            raise TrainingStopped(
                f'stage "{stage.name}": predictions have collapsed to one class for {self.collapsed} epochs '
                f"(epoch {self.epoch}); lower {stage.name}.optimizer.lr (now {stage.optimizer.lr:g}) or lengthen "
                "the warm-up, and run again in a new folder"
            )

    def save(self) -> None:
        step = self.step
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
        for name in ("done", "epoch", "collapsed", "seconds", "best", "best_weights"):
            setattr(self, name, state[name])
        self.sums = {name: value.to(step.device) for name, value in state["sums"].items()}


def told_apart(
    net: nn.Module, stage: Training, training: TrainingSplit, normalisation: Normalisation, seed: int,
    autocast: torch.dtype | None,
) -> str:  # fmt: skip
    """A hash of what a training is of, by which its checkpoint is told from that of another."""
    shapes = [(name, tuple(value.shape)) for name, value in net.state_dict().items()]
    about = (shapes, stage, training.ids, training.labels.tolist(), normalisation, seed, autocast)
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
