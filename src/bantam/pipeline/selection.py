"""What is chosen on validation once a student is trained: BatchNorm's statistics and test-time augmentation (TTA)."""

import copy
from pathlib import Path
from typing import Any

from bantam.data.splits import Normalisation, Splits
from bantam.measure.accuracy import accuracy
from bantam.measure.logits import logits_of
from bantam.measure.tta import choose_tta
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
    """Choose BatchNorm's statistics and the TTA, and measure with them: what metrics.json says.

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
    tta, by_tta = choose_tta(student.shipped_form(net), validation, size, normalisation)
    return {
        "accuracy": by_tta[tta].value,
        "standard_error": by_tta[tta].standard_error,
        "n": by_tta[tta].n,
        "views": tta,
        "flip": tta != "plain",
        "plain": by_tta["plain"].value,
        "flipped": by_tta["flip"].value,
        "by_views": {name: item.value for name, item in by_tta.items()},
        "batchnorm": batchnorm,
        "by_batchnorm": {name: items[0].value for name, items in statistics.items()},
        **({"by_switch": by_switch} if by_switch else {}),
    }
