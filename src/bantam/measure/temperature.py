"""Temperature scaling: a student's logits divided by one number, so that it is right as often as it says.

Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, arXiv:1706.04599. The number is
fitted on validation and divided into the last layer, so that whatever is made of the weights has it: no parameter is
added, and no answer becomes another class. That holds for TTA too: in a mean of log-probabilities the normalising
terms are the same for all classes, so its probabilities are those of the mean logits, and these are divided alike.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bantam.measure.accuracy import calibration, require_matching
from bantam.nets.early_exit import EarlyExitNet, Exit
from bantam.nets.output import StagedNet

COLDEST, HOTTEST = 0.01, 100.0
"""Beyond these a temperature tells of logits that say nothing, not of how sure to be."""

DIGITS = 4
"""Significant digits of a temperature: the last bits of logits, which differ between machines, stay out of it."""


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature, COLDEST..HOTTEST, by which to divide `logits` [N, K] for the least NLL at `labels` [N].

    The NLL is convex in 1 / T, so there is one minimum. One more image is added whose label may be any class: N images
    that are all right would else ask for boundless certainty (Platt, "Probabilistic Outputs for Support Vector
    Machines", 1999, has the like). 1 where no temperature has a lower NLL. Raises as `accuracy`.
    """
    from scipy.optimize import minimize_scalar  # slow to import, and training alone needs it

    require_matching(logits, labels)
    logits, labels = logits.double().cpu(), labels.long().cpu()
    one_more = 1 / (len(labels) + 1)

    def nll(log_temperature: float) -> float:
        return float(F.cross_entropy(logits / math.exp(log_temperature), labels, label_smoothing=one_more))

    bounds = (math.log(COLDEST), math.log(HOTTEST))
    found: Any = minimize_scalar(nll, bounds=bounds, method="bounded", options={"xatol": 1e-8})
    temperature = float(f"{math.exp(found.x):.{DIGITS}g}")
    return temperature if calibration(logits / temperature, labels).nll < calibration(logits, labels).nll else 1.0


def fitted_elsewhere(logits: Tensor, labels: Tensor) -> Tensor:
    """The `logits` [N, K], each half of the images divided by the temperature that fits the other half at `labels` [N].

    So it is measured what a temperature does to images that did not choose it. One image alone stays as it is.
    """
    divided = logits.double().clone()
    halves = torch.arange(len(logits)) % 2 == 0  # by turns: the images may be sorted by class
    for half in (halves, ~halves):
        if bool((~half).any()):
            divided[half] = divided[half] / fit_temperature(logits[~half], labels[~half])
    return divided


@torch.no_grad()
def divide_logits(net: StagedNet, temperatures: Sequence[float]) -> None:
    """Divide, in place, the logits of each early exit of `net` in order, and then its last ones.

    `net` is in any form that has its classifiers: as trained, as shipped, with switches, which share one.
    """
    exits = [leave.head for leave in net.exits if isinstance(leave, Exit)] if isinstance(net, EarlyExitNet) else []
    heads: list[nn.Module] = [*exits, net.head]
    for head, temperature in zip(heads, temperatures, strict=True):
        for value in head.parameters():
            value.copy_(value.double() / temperature)  # the only rounding is that of the result


def temperatures_of(validation: Mapping[str, Any]) -> list[float]:
    """What `divide_logits` has divided a run's student by: `validation` is that table of its metrics.json.

    Empty for a run from before there were temperatures.
    """
    told = validation.get("calibration")
    return [one["temperature"] for one in (*told.get("exits", ()), told)] if told else []
