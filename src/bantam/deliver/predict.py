"""A student's predictions on unlabelled images, written as the submission."""

from pathlib import Path

from torch import Tensor, nn

from bantam.data.splits import UnlabelledSplit
from bantam.deliver import submission
from bantam.measure.accuracy import require_finite
from bantam.measure.tta import logits_of_tta
from bantam.runs.shipped import Shipped


def predict(
    net: nn.Module,
    shipped: Shipped,
    evaluation: UnlabelledSplit,
    *,
    tta: str,
    path: Path,
    probabilities: Path | None = None,
) -> Tensor:
    """Write the submission to `path` (and the class probabilities on request); gives the logits [N, K].

    `tta` is a name in `bantam.measure.tta.TTA`. Raises BadData for another one.
    """
    logits = logits_of_tta(net, evaluation, shipped.student.size, shipped.normalisation, tta)
    write_answers(logits, shipped, evaluation, path, probabilities)
    return logits


def write_answers(
    logits: Tensor, shipped: Shipped, evaluation: UnlabelledSplit, path: Path, probabilities: Path | None
) -> None:
    """Write the submission of `logits` [N, K] to `path`, and the class probabilities on request. Raises NotFinite."""
    require_finite(logits)
    submission.write(path, evaluation.ids, logits.argmax(1).tolist())
    if probabilities is not None:
        submission.write_probabilities(probabilities, evaluation.ids, logits.softmax(1), shipped.classes)
