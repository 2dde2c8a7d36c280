"""The ways to take a step: plainly, with the next views made meanwhile, or replayed."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from bantam.train.ahead import Ahead
from bantam.train.capture import Captured
from bantam.train.checked import Checked
from bantam.train.step import Step


class Way(Protocol):
    """A Step that is told which images `following` [B] come next, None if it is not known yet."""

    def __call__(self, index: Tensor, view: Tensor, following: Tensor | None) -> dict[str, Tensor]: ...

    def close(self) -> None:
        """No step will follow."""


class OneByOne:
    """Steps that do not care which is the next."""

    def __init__(self, step: Callable[[Tensor, Tensor], dict[str, Tensor]]) -> None:
        self.step = step

    def __call__(self, index: Tensor, view: Tensor, following: Tensor | None) -> dict[str, Tensor]:
        return self.step(index, view)

    def close(self) -> None:
        pass


def way_of(step: Step, say: Callable[[str], None], keep: Callable[[int], None]) -> Way:
    """How steps are taken on the step's device; `say` is told what is found out about it, `keep` the micro-batch.

    On a GPU the step is captured and replayed, once that is seen to do the same. With several processes it is the plain
    sequence: within a capture DistributedDataParallel could neither order its buckets nor notice a lost process, and
    no process may take smaller parts than the others. It is plain where switches take turns, for one step is not
    another, and where the images do not fit the GPU. On a CPU a second thread may make the next views meanwhile.
    """
    if step.device.type == "cpu":
        return Ahead(step, say)
    resident = settled(step, say)
    if step.processes.world > 1:
        return OneByOne(step)
    return Checked(step, say, keep, Captured if resident and not step.takes_turns else None)


def settled(step: Step, say: Callable[[str], None]) -> bool:
    """Have the images on the step's device; gives whether there is room for them."""
    try:
        step.settle()
    except torch.OutOfMemoryError:
        say("the photographs do not fit the GPU's memory: they stay outside, and steps are taken plainly")
        return False
    return True
