"""THE PATH of `bantam slim`: every width of a finished run's student, alone and as the first pass of a cascade.

RUN/slim/slim.json .csv .svg      every curve, each width alone, and the cheapest cascade within the drop
"""

from pathlib import Path
from typing import Any

from bantam.errors import BadData
from bantam.measure.dynamic import require_share
from bantam.nets.slimmable import SwitchableNet
from bantam.runs import runfolder
from bantam.runs.finished import FinishedRun
from bantam.runs.watcher import Watcher
from bantam.studies.cascade import compared, passes_of_switches, written


def slim(run: FinishedRun, root: Path, drop: float, confidence: float | None, watcher: Watcher) -> dict[str, Any]:
    """Measure every switch of the student that `run` shipped on validation; gives what slim.json holds.

    `drop` and `confidence` are as for `bantam.studies.cascade.cascade`. Raises BadData for a student with one width
    alone, where no image reaches the confidence, and for a `drop` or `confidence` outside 0..1.
    """
    require_share(("--drop", drop), ("--confidence", confidence))
    net, shipped = run.as_shipped()
    if not isinstance(net, SwitchableNet):
        raise BadData(
            f"the student in {run} has one width alone; `bantam run slim --data DIR --out RUN` trains one with several"
        )
    splits = run.open_data(root, watcher)
    passes = passes_of_switches(net, shipped, splits.validation)
    result = compared(passes, splits.validation.labels, drop, confidence)
    with runfolder.alone_in(run.folder):
        return written(run.slim, shipped.student, result)
