"""Accuracy with its uncertainty, paired comparison, calibration: arithmetic on logits.

Every function takes logits `[N, K]` (any float type) and integer labels `[N]` of images that have exactly one
label, unless it says otherwise. An accuracy is measured on a sample, so it carries its standard error; two
nets measured on the same images are compared by McNemar's test, which is far sharper than comparing the two
error bars.

Logits that are not finite are no answer: they raise NotFinite, and never count as a class.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from bantam.measure.counts import Accuracy, McNemar, mcnemar_of, not_finite


def hits(logits: Tensor, labels: Tensor) -> Tensor:
    """Boolean [N]: whether the largest logit is the label's."""
    require_matching(logits, labels)
    return logits.argmax(dim=1) == labels


def accuracy(logits: Tensor, labels: Tensor) -> Accuracy:
    """Top-1 accuracy."""
    correct = hits(logits, labels)
    return Accuracy(int(correct.sum()), len(labels))


def confusion(logits: Tensor, labels: Tensor) -> Tensor:
    """Integer matrix [K, K]: row = true class, column = predicted class, entry = images."""
    require_matching(logits, labels)
    classes = logits.shape[1]
    cells = labels.long() * classes + logits.argmax(dim=1)  # [N]
    return torch.bincount(cells, minlength=classes**2).reshape(classes, classes)


def per_class(logits: Tensor, labels: Tensor) -> tuple[Accuracy | None, ...]:
    """One accuracy for each of the K classes; None where no image has the class."""
    matrix = confusion(logits, labels)
    counts = zip(matrix.diagonal().tolist(), matrix.sum(dim=1).tolist(), strict=True)
    return tuple(Accuracy(correct, n) if n else None for correct, n in counts)


def mcnemar(correct_a: Tensor, correct_b: Tensor) -> McNemar:
    """McNemar's exact test (`mcnemar_of`) of two nets that were measured on the same images.

    Args:
        correct_a: boolean [N], for instance from `hits`.
        correct_b: boolean [N], of the same images in the same order.

    Raises:
        ValueError: the two do not have the same length.
    """
    if correct_a.shape != correct_b.shape or correct_a.ndim != 1:
        raise ValueError(f"a paired test needs [N] and [N], not {[*correct_a.shape]} and {[*correct_b.shape]}")
    return mcnemar_of(int((correct_a & ~correct_b).sum()), int((correct_b & ~correct_a).sum()))


class Calibration(NamedTuple):
    """`ece`: expected calibration error, 0..1; `nll`: nats an image; `brier`: per image, 0..2."""

    ece: float
    nll: float
    brier: float


def calibration(logits: Tensor, labels: Tensor, bins: int = 15) -> Calibration:
    """How well the predicted probabilities agree with what is true.

    ECE = sum_b n_b / n * |accuracy_b - confidence_b| over `bins` equal bins (low, high] of the largest
    probability (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017). NLL = -mean log p_label.
    Brier = mean sum_k (p_k - [k = label])^2 (Brier, Monthly Weather Review 78, 1950).
    """
    right = hits(logits, labels).double()
    log_p = F.log_softmax(logits.double(), dim=1)  # [N, K]
    p = log_p.exp()
    confidence = p.amax(dim=1)  # [N]
    bin_of = ((confidence * bins).ceil().long() - 1).clamp(0, bins - 1)
    # In each bin n_b / n * |accuracy - confidence| is |sum of right - sum of confidence| / n.
    gaps = torch.zeros(bins, dtype=torch.float64, device=p.device).index_add_(0, bin_of, right - confidence)
    one_hot = F.one_hot(labels.long(), p.shape[1])
    return Calibration(
        ece=float(gaps.abs().sum() / len(labels)),
        nll=float(F.nll_loss(log_p, labels.long())),
        brier=float((p - one_hot).square().sum(dim=1).mean()),
    )


class SoftLabelFacts(NamedTuple):
    """`entropy`: mean entropy in nats, 0..log K; `off_class`: mean probability outside the label, 0..1."""

    entropy: float
    off_class: float
    accuracy: Accuracy


def soft_label_facts(logits: Tensor, labels: Tensor, temperature: float) -> SoftLabelFacts:
    """What a teacher still has to say beyond the label, when its logits are softened by `temperature`.

    A teacher that has memorised an image gives off-class mass 0: its soft label is the hard one again.

    Args:
        logits: [N, K].
        labels: integer labels [N], or class probabilities [N, K] of mixed views. Of these, every class that
            is in the mixture counts as the label for `off_class`, and the largest share for `accuracy`.
        temperature: T above 0.
    """
    if labels.ndim == 2:
        present, largest = labels > 0, labels.argmax(dim=1)
    else:
        present, largest = F.one_hot(labels.long(), logits.shape[1]).bool(), labels
    log_p = F.log_softmax(logits.double() / temperature, dim=1)  # [N, K]
    p = log_p.exp()
    return SoftLabelFacts(
        entropy=float(-(p * log_p).sum(dim=1).mean()),
        off_class=float(p.masked_fill(present, 0).sum(dim=1).mean()),
        accuracy=accuracy(logits, largest),
    )


def require_matching(logits: Tensor, labels: Tensor) -> None:
    """Raises ValueError unless `logits` is [N, K] and `labels` [N]: broadcasting would miscount; and NotFinite."""
    require_finite(logits)
    if logits.ndim != 2 or labels.ndim != 1 or len(logits) != len(labels):
        raise ValueError(f"logits [N, K] and labels [N] do not fit: {[*logits.shape]} and {[*labels.shape]}")


def require_finite(logits: Tensor) -> Tensor:
    """Give `logits` [N, ...] back. Raises NotFinite where one is NaN or infinite."""
    finite = logits.isfinite()
    if not bool(finite.all()):
        raise not_finite(int((~finite).reshape(len(logits), -1).any(1).sum()), len(logits))
    return logits
