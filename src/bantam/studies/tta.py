"""THE PATH of `bantam views`: TTA crops beyond the plain one only where a finished run's student is unsure.

RUN/views/views.json .csv .svg      the curve, each TTA alone, and the chosen threshold
"""

from pathlib import Path
from typing import Any

from bantam.measure.tta import answers_of_tta, ladder, macs_of_tta
from bantam.runs import runfolder
from bantam.runs.environment import environment
from bantam.runs.finished import FinishedRun
from bantam.runs.watcher import Watcher
from bantam.studies.exits import (
    Ways,
    compared,
    require_in_reach,
    require_one_target,
    written,
)


def tta(
    run: FinishedRun,
    root: Path,
    most: str | None,
    drop: float,
    macs: int | None,
    confidence: float | None,
    watcher: Watcher,
) -> dict[str, Any]:
    """Measure the student that `run` shipped on validation with ever more TTA crops; gives what views.json holds.

    `most` names the TTA of the whole way, by default what the run chose. The threshold is chosen as for
    `bantam.studies.exits.exits`. Raises BadData where the whole way is one crop, for a target outside its range or out
    of reach, and for a `confidence` that no image reaches; nothing is written then.
    """
    require_one_target(drop, macs, confidence)
    net, shipped = run.whole_way()
    names, size = ladder(most or run.tta), shipped.student.size
    paid = macs_of_tta(net, size, names)
    require_in_reach(macs, "one crop", paid[0])
    validation = run.open_data(root, watcher).validation
    answers = answers_of_tta(net, validation, size, shipped.normalisation, names).unbind(0)
    ways = Ways("views while unsure", answers, paid, names, names, paid)
    result = compared(ways, validation.labels, drop, macs, confidence)
    about = {"student": shipped.student.family, "size": size}
    with runfolder.alone_in(run.folder):
        return written(run.views, {**about, **result, "environment": environment()}, ways)
