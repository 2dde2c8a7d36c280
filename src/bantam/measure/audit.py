"""What a teacher still has to teach: accuracy, calibration and the softness of its answers, plain and augmented.

A teacher that has memorised its training images answers them with hard labels, and a student learns nothing from it
that the labels do not say. Strong augmentation brings the softness back.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bantam.data import augment
from bantam.data.augment import Augmentation, Viewing
from bantam.data.splits import LabelledSplit, require_labelled
from bantam.measure.accuracy import (
    Accuracy,
    Calibration,
    SoftLabelFacts,
    accuracy,
    calibration,
    soft_label_facts,
)
from bantam.nets.teachers import AnyTeacher

TEMPERATURES = (1.0, 2.0, 4.0, 8.0)


@dataclass(frozen=True)
class Looked:
    """A teacher's answers on one split: `augmented` says whether the views were training views."""

    split: str
    augmented: bool
    accuracy: Accuracy
    calibration: Calibration
    soft: dict[float, SoftLabelFacts]


@dataclass(frozen=True)
class Audit:
    """The answers on training and validation, plain and under augmentation."""

    looks: tuple[Looked, ...]

    @property
    def gap(self) -> tuple[float, float]:
        """Accuracy on training less that on validation (plain views), and the standard error of the difference."""
        training, validation = (look.accuracy for look in self.looks if not look.augmented)
        error = (training.standard_error**2 + validation.standard_error**2) ** 0.5
        return training.value - validation.value, error

    @property
    def verdict(self) -> str:
        """In words: whether the teacher has memorised training, or may have seen validation."""
        gap, error = self.gap
        training = next(look.accuracy.value for look in self.looks if not look.augmented)
        if training > 0.97:
            return (
                f"it has memorised its training images ({training:.3f}): without augmentation its soft labels there "
                "say little more than the labels"
            )
        if gap > 3 * error:
            return f"it is better on training by {gap:.3f} ± {error:.3f}, so validation was not trained on"
        return (
            f"training and validation differ by {gap:.3f} ± {error:.3f}, within the noise: either it has not "
            "overfitted at all, or it was trained on validation images too, and then validation flatters it"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        looks = [
            {
                "split": look.split,
                "augmented": look.augmented,
                "accuracy": look.accuracy.value,
                "standard_error": look.accuracy.standard_error,
                "n": look.accuracy.n,
                "calibration": look.calibration._asdict(),
                "soft_labels": {
                    f"{temperature:g}": {"entropy": facts.entropy, "off_class": facts.off_class}
                    for temperature, facts in look.soft.items()
                },
            }
            for look in self.looks
        ]
        return {
            "looks": looks,
            "gap": self.gap[0],
            "gap_standard_error": self.gap[1],
            "verdict": self.verdict,
        }


def audit(
    teacher: AnyTeacher,
    training: LabelledSplit,
    validation: LabelledSplit,
    viewing: Viewing,
    images: int = 0,
) -> Audit:
    """Ask `teacher` about at most `images` images of each split (0: all), drawn evenly: plain, and as `viewing` says.

    Raises SplitLeak for an unlabelled split.
    """
    looks: list[Looked] = []
    for augmented in (False, True):
        for split in (training, validation):
            split = require_labelled(split, "a teacher's audit")
            count = min(images, len(split)) if images else len(split)
            chosen = torch.linspace(0, len(split) - 1, count).round().long()
            used = viewing if augmented else replace(viewing, augmentation=OFF)
            logits, targets = answers(teacher, split, chosen, used)
            labels = targets.argmax(1)
            looks.append(
                Looked(
                    split.name,
                    augmented,
                    accuracy(logits, labels),
                    calibration(logits, labels),
                    {temperature: soft_label_facts(logits, targets, temperature) for temperature in TEMPERATURES},
                )
            )
    return Audit(tuple(looks))


OFF = Augmentation(flip=0.0)


@torch.inference_mode()
def answers(
    teacher: AnyTeacher,
    split: LabelledSplit,
    chosen: Tensor,
    viewing: Viewing,
) -> tuple[Tensor, Tensor]:
    """Logits [n, K] and targets [n, K] on view 0 of the `chosen` images; the odd one out of a pair is left away."""
    device = next(teacher.parameters()).device
    logits: list[Tensor] = []
    targets: list[Tensor] = []
    for index in chosen[: len(chosen) // 2 * 2].split(128):
        images, ratio = augment.render(split.images, index, 0, viewing)
        logits.append(teacher.observe(images.to(device)).logits.float().cpu())
        targets.append(augment.soft_targets(split.labels[index], ratio, len(split.classes)).cpu())
    return torch.cat(logits), torch.cat(targets)
