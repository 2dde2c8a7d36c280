"""What validation chooses once a student is trained: BatchNorm's statistics, test-time augmentation (TTA), temperature.

A temperature is fitted for the chosen TTA, whose probabilities are shown, and one for each early exit by itself: a
threshold compares their probabilities, and no two exits err alike in how sure they are. The switches of a net share
their classifier, and so the temperature that fits the first of them.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bantam.data.splits import LabelledSplit, Normalisation, Splits
from bantam.measure.accuracy import accuracy, calibration
from bantam.measure.logits import logits_of
from bantam.measure.temperature import divide_logits, fit_temperature, fitted_elsewhere
from bantam.measure.tta import choose_tta
from bantam.nets.early_exit import EarlyExitNet
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
    """Choose BatchNorm's statistics and the TTA, fit temperatures, and measure with them: what metrics.json says.

    `net`, in the form that was trained, is left with the chosen statistics, and its logits divided by the temperatures.
    Each choice is between a few candidates, whose accuracies are all in the result. The statistics of a switchable net
    are chosen by the sum over its switches.
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

    # Temperatures change no class, and of averaged log-probabilities they make what they make of logits: nothing is
    # asked a second time.
    labels, shipped = validation.labels, student.shipped_form(net)
    tta, answers = choose_tta(shipped, validation, size, normalisation)
    by_tta = {name: accuracy(logits, labels) for name, logits in answers.items()}
    before = (*logits_of_exits(shipped, validation, size, normalisation), answers[tta])
    temperatures = [fit_temperature(logits, labels) for logits in before]
    divide_logits(net, temperatures)
    *by_exit, calibrated = map(calibrations, temperatures, before, [labels] * len(before))
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
        **({"by_switch": by_switch(net, student, validation, normalisation)} if student.switches else {}),
        "calibration": {**calibrated, **({"exits": by_exit} if by_exit else {})},
    }


def by_switch(
    net: StagedNet, student: Student, validation: LabelledSplit, normalisation: Normalisation
) -> list[dict[str, Any]]:
    """The accuracy of each switch of `net`."""
    measured = [
        accuracy(logits_of(net, validation, student.size, normalisation), validation.labels) for _ in each_switch(net)
    ]
    return [
        {**switch._asdict(), "plain": item.value, "standard_error": item.standard_error}
        for switch, item in zip(student.switches, measured, strict=True)
    ]


def logits_of_exits(
    net: StagedNet, validation: LabelledSplit, size: int, normalisation: Normalisation
) -> tuple[Tensor, ...]:
    """The logits [N, K] of each early exit of `net` on plain views, as images leave by them; none without exits."""
    if not isinstance(net, EarlyExitNet):
        return ()

    def look(views: Tensor) -> Tensor:
        return torch.stack(net.observe(views).exits, 1)  # [B, exits, K]

    return logits_of(net, validation, size, normalisation, look=look).unbind(1)


def calibrations(temperature: float, logits: Tensor, labels: Tensor) -> dict[str, Any]:
    """How well the probabilities of `logits` [N, K] agree with `labels` [N], before and after the temperature.

    `held_out` is on images that did not choose it.
    """
    return {
        "temperature": temperature,
        "n": len(labels),
        "before": calibration(logits, labels)._asdict(),
        "after": calibration(logits / temperature, labels)._asdict(),
        "held_out": calibration(fitted_elsewhere(logits, labels), labels)._asdict(),
    }
