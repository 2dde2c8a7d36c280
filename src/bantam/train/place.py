"""Where a training takes place."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from bantam.runs.runfolder import Row
from bantam.runs.watcher import Watcher
from bantam.train.distributed import ALONE, Processes


def nobody(row: Row, weights: dict[str, Tensor]) -> None:
    """Keep nothing before the end."""


@dataclass(frozen=True)
class Place:
    """The folder of its files, who looks on, the processes that share it, and how long it may take.

    `left` gives the seconds until it must end; without it the training is as long as it was planned. `kept` is given
    the best epoch so far and its weights after each epoch.
    """

    folder: Path
    watcher: Watcher = field(default_factory=Watcher)
    processes: Processes = ALONE
    left: Callable[[], float] | None = None
    kept: Callable[[Row, dict[str, Tensor]], None] = nobody
