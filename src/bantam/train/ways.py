"""The ways to take a step: plainly, with the next views made meanwhile, or replayed."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from bantam.train.ahead import Ahead
from bantam.train.capture import Captured
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


def way_of(step: Step, batch: int, say: Callable[[str], None]) -> Way:
    """How steps on `batch` images are taken on the step's device; `say` is told what was found out about it.

    On a GPU the step is captured once and replayed. With several processes it is the plain sequence: within a capture
    DistributedDataParallel could neither order its buckets nor notice a lost process. So it is where switches take
    turns, for one step is not another. On a CPU a second thread may make the next views meanwhile.
    """
    if step.device.type == "cpu":
        return Ahead(step, say)
    step.settle()
    if step.processes.world > 1 or step.takes_turns:
        return OneByOne(step)
    step.begin(0)
    example = torch.arange(batch, device=step.device)
    return OneByOne(Captured(step, example, torch.zeros_like(example)))
