"""What is chosen on validation once a student is trained: BatchNorm's statistics and test-time views."""

import copy
from pathlib import Path
from typing import Any

from bantam.data.splits import Normalisation, Splits
from bantam.measure.accuracy import accuracy
from bantam.measure.logits import logits_of
from bantam.measure.looks import choose_views
from bantam.nets.output import StagedNet
from bantam.nets.slimmable import each_switch
from bantam.nets.students import Student
from bantam.runs import checkpoint
from bantam.train.reestimate import reestimated


def trained_net(student: Student, folder: Path) -> StagedNet:
    """The net of a finished stage's folder, in the form that was trained."""
    net = student.build()
    checkpoint.fill_from_stage(net, folder)
    return net


def choose_on_validation(
    net: StagedNet, student: Student, splits: Splits, normalisation: Normalisation
) -> dict[str, Any]:
    """Choose BatchNorm's statistics and the test-time views, and measure with them: what metrics.json says.

    `net`, in the form that was trained, is left with the chosen statistics. Each choice is between a few candidates,
    whose accuracies are all in the result. The statistics of a switchable net are chosen by the sum over its switches.
    """
    size, validation = student.size, splits.validation
    renewed = reestimated(copy.deepcopy(net), splits.training, size, normalisation)
    statistics = {
        name: [accuracy(logits_of(one, validation, size, normalisation), validation.labels) for _ in each_switch(one)]
        for name, one in (("of training", net), ("re-estimated", renewed))
    }
    batchnorm = max(statistics, key=lambda name: sum(item.correct for item in statistics[name]))
    if batchnorm == "re-estimated":
        net.load_state_dict(renewed.state_dict())
    by_switch = [
        {**switch._asdict(), "plain": item.value, "standard_error": item.standard_error}
        for switch, item in zip(student.switches, statistics[batchnorm], strict=False)
    ]
    views, by_views = choose_views(student.shipped_form(net), validation, size, normalisation)
    return {
        "accuracy": by_views[views].value,
        "standard_error": by_views[views].standard_error,
        "n": by_views[views].n,
        "views": views,
        "flip": views != "plain",
        "plain": by_views["plain"].value,
        "flipped": by_views["flip"].value,
        "by_views": {name: item.value for name, item in by_views.items()},
        "batchnorm": batchnorm,
        "by_batchnorm": {name: items[0].value for name, items in statistics.items()},
        **({"by_switch": by_switch} if by_switch else {}),
    }
