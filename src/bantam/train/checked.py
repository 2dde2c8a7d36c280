"""Steps on a GPU that take nothing on trust: neither that the step's CUDA graph does what the step does, nor that a
batch fits the memory.

A graph replays what was launched once. A number that was read on the CPU, memory that has moved, a kernel that a
library chose differently: it would compute something else and say nothing. So a training's first steps are taken
plainly, and then once more, from the same state, as a graph. The training goes on from what the plain steps made.
"""

import gc
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bantam.errors import TrainingStopped
from bantam.train.capture import Captured, Snapshot
from bantam.train.step import Step

CHECKED = 3  # steps taken both ways

# What another order of summation may change: a loss, by so much relative to it and absolutely; and the state, by this
# share of the way that it went. Kernels add up in other orders, bf16 keeps three digits, and Adam's first steps go by
# the sign of a gradient, which is chance where the gradient is nothing but rounding. A graph that does something else,
# a stale batch or a rate that stands still, ends half of the way off and more.
LOSS = (1e-2, 1e-3)
WAY = 0.25

FURTHEST = 2.5
"""How far a single number may end from where it should, in ways that the one went which went furthest: a step of
Adam in the other direction is 2."""

FLOAT32 = 1e-6  # relative: what the format itself may change, where hardly anything moves

Replay = Callable[[Tensor, Tensor], dict[str, Tensor]]
Capture = Callable[[Step, Tensor, Tensor], Replay]


class Checked:
    """A Step on a GPU: replayed as a graph once that is seen to do the same, and in parts where it does not fit.

    Where there is no `capture`, making the graph or a replay fails, or losses or weights differ by more than rounding,
    steps are taken plainly. A step that is out of memory is undone, and taken again in micro-batches of half the size;
    see `Step.learn` for what they change. `say` is given a line on what was found, `keep` the size of micro-batches.
    Raises TrainingStopped where two images do not fit.
    """

    def __init__(
        self,
        step: Step,
        say: Callable[[str], None],
        keep: Callable[[int], None],
        capture: Capture | None = Captured,
    ) -> None:
        self.step, self.say, self.keep, self.capture = step, say, keep, capture
        self.graph: Replay | None = None
        self.start: Snapshot | None = None  # before the first of the steps in `taken`
        self.taken: list[tuple[Tensor, Tensor, Tensor]] = []  # index [B], view [B], loss

    def __call__(self, index: Tensor, view: Tensor, following: Tensor | None) -> dict[str, Tensor]:
        """As the Step, on the images `index` [B]; `following` is None at the end of an epoch."""
        if self.graph:
            return self.graph(index, view)
        terms = self.plainly(index, view)
        if self.capture:
            self.taken.append((index.clone(), view.clone(), terms["loss"].clone()))
            # A new epoch's answers take the place of these.
            if len(self.taken) == CHECKED or following is None:
                self.decide(self.capture)
        return terms

    def close(self) -> None:
        """Nothing is to be ended."""

    def plainly(self, index: Tensor, view: Tensor) -> dict[str, Tensor]:
        """One step as it is written, in micro-batches that fit."""
        while True:
            before = Snapshot(self.step)
            if self.capture and not self.taken:
                self.start = before
            try:
                return self.step(index, view)
            except torch.OutOfMemoryError:
                pass  # the error's frames hold the step's tensors, which are free only after this block
            self.undo(before)
            if not self.halve(len(index)):
                raise TrainingStopped(
                    f'stage "{self.step.stage.name}": not even 2 images at a time fit the memory of the GPU; '
                    "end what else runs on it, lower the stage's size, or take a smaller net or teacher"
                )

    def undo(self, before: Snapshot) -> None:
        """Put everything back, and drop what the optimizer has begun to remember since: it may be half of it."""
        before.put_back()
        for number, parameter in enumerate(self.step.parameters):
            if not any(name.startswith(f"optimizer.{number}.") for name in before.tensors):
                self.step.optimizer.state.pop(parameter, None)

    def halve(self, batch: int) -> bool:
        """Take batches of `batch` images in micro-batches of half the size, whole pairs; gives whether that can be."""
        free(self.step.device)
        now = min(self.step.micro_batch or batch, batch)
        half = now // 2 + now // 2 % 2
        if half == now:
            return False
        self.step.micro_batch = half
        self.taken = []  # they were other steps
        self.keep(half)
        self.say(
            f"out of memory: a batch of {batch} images is taken in parts of {half} from now on, each with a BatchNorm "
            "of its own; their gradients are added up"
        )
        return True

    def decide(self, capture: Capture) -> None:
        """Take the same steps once more, as a graph, and choose how to go on from where the plain ones led."""
        assert self.start is not None, "a step was taken"
        start, plain, taken = self.start, Snapshot(self.step), self.taken
        graph, full, found = None, False, None
        try:
            start.put_back()
            graph = capture(self.step, *taken[0][:2])
            start.put_back()  # the making of a graph draws random numbers
            losses = [graph(index, view)["loss"].clone() for index, view, _ in taken]
            found = difference(start, plain, Snapshot(self.step), [loss for _, _, loss in taken], losses)
        except torch.OutOfMemoryError:
            full, found = True, "it does not fit the memory"
        # Whatever it is that a graph cannot do, the plain steps can.
        except Exception as error:
            found = f"{type(error).__name__}, {' '.join(str(error).split())[:200]}"
        plain.put_back()
        self.taken, self.start = [], None
        if full:
            graph = None
            if self.halve(len(taken[0][0])):
                return  # to try again, with the next steps
        self.capture = None
        if found is None:
            self.graph = graph
            self.say(f"{len(taken)} steps as a CUDA graph agree with the plain ones: it is replayed from now on")
        else:
            self.say(f"steps are taken plainly, for as a CUDA graph they are not the same: {found}")


def difference(
    start: Snapshot, plain: Snapshot, graph: Snapshot, expected: Sequence[Tensor], losses: Sequence[Tensor]
) -> str | None:
    """What in `losses` and the state that a `graph` has led to is not the `plain` steps' within rounding, if anything.

    Each tensor must have changed if it changed plainly, and whole numbers are equal. Of all weights together, of all
    averaged weights, of each kind of the optimizer's memory and so on, the distance from where they should be is held
    against the way that they went: LOSS, WAY, FURTHEST.
    """
    for number, (right, own) in enumerate(zip(expected, losses, strict=True), 1):
        if not abs(float(own) - float(right)) <= LOSS[0] * abs(float(right)) + LOSS[1]:
            return f"the loss of step {number} is {float(own):.6g} and not {float(right):.6g}"
    groups: dict[str, list[tuple[Tensor, Tensor, Tensor]]] = {}  # values, ways and distances, flat
    for name, right in plain.tensors.items():
        own = graph.tensors[name]
        before = start.tensors.get(name, torch.zeros_like(right))  # what was not there yet starts at 0
        if not right.is_floating_point():
            if not torch.equal(right, own):
                return f"{name} is another number"
            continue
        if not torch.equal(right, before) and torch.equal(own, before):
            return f"{name} does not change"
        value, way, distance = (item.double().flatten() for item in (right, right - before, own - right))
        groups.setdefault(group_of(name), []).append((value, way, distance))
    for group, members in groups.items():
        value, way, distance = (torch.cat(parts) for parts in zip(*members, strict=True))
        for what, norm, share in (("", 2, WAY), (" in one place", torch.inf, FURTHEST)):
            size, went, apart = (float(torch.linalg.vector_norm(item, norm)) for item in (value, way, distance))
            if not apart <= share * went + FLOAT32 * size:
                return f"{group} ends {apart:.3g} off{what}, having gone {went:.3g}"
    return None


def group_of(name: str) -> str:
    """What a tensor of `state_of` is compared with: what goes as far as it does."""
    owner, last = name.partition(".")[0], name.rpartition(".")[2]
    if last in ("running_mean", "running_var"):
        return f"{owner}, statistics"
    return f"{owner}, {last}" if owner == "optimizer" else owner


def free(device: torch.device) -> None:
    """Give the memory that nothing holds back to the device."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
