"""THE PATH of `bantam views`: TTA crops beyond the plain one only where a finished run's student is unsure.

RUN/views/views.json .csv .svg      the curve, each TTA alone, and the chosen threshold
"""

from pathlib import Path
from typing import Any

from bantam.deliver.export.forms import require_classes
from bantam.deliver.predict import load_whole_way
from bantam.measure.tta import answers_of_tta, ladder, macs_of_tta
from bantam.pipeline import run as pipeline
from bantam.runs import runfolder
from bantam.runs.environment import environment
from bantam.runs.finished import chosen_tta
from bantam.runs.watcher import Watcher
from bantam.studies.exits import (
    Ways,
    compared,
    require_in_reach,
    require_one_target,
    written,
)

RESULT = Path("views") / "views.json"


def tta(
    run: Path,
    root: Path,
    most: str | None,
    drop: float,
    macs: float | None,
    confidence: float | None,
    watcher: Watcher,
) -> dict[str, Any]:
    """Measure the student that `run` shipped on validation with ever more TTA crops; gives what views.json holds.

    `most` names the TTA of the whole way, by default what the run chose. The threshold is chosen as for
    `bantam.studies.exits.exits`. Raises BadData where the whole way is one crop, for a target outside its range or out
    of reach, and for a `confidence` that no image reaches; nothing is written then.
    """
    require_one_target(drop, macs, confidence)
    net, shipped = load_whole_way(run)
    names, size = ladder(most or chosen_tta(run)), shipped.student.size
    paid = macs_of_tta(net, size, names)
    require_in_reach(macs, "one crop", paid[0])
    splits = pipeline.open_data(pipeline.recipe_of(run), root, watcher)
    require_classes(shipped, splits)
    validation = splits.validation
    answers = answers_of_tta(net, validation, size, shipped.normalisation, names).unbind(0)
    ways = Ways("views while unsure", answers, paid, names, names, paid)
    result = compared(ways, validation.labels, drop, macs, confidence)
    about = {"student": shipped.student.family, "size": size}
    with runfolder.alone_in(run):
        return written(run / RESULT, {**about, **result, "environment": environment()}, ways)
