"""Where a training takes place."""

from dataclasses import dataclass, field
from pathlib import Path

from bantam.runs.watcher import Watcher
from bantam.train.distributed import ALONE, Processes


@dataclass(frozen=True)
class Place:
    """The folder of its files, who looks on, and the processes that share it."""

    folder: Path
    watcher: Watcher = field(default_factory=Watcher)
    processes: Processes = ALONE
