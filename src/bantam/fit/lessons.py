"""The stages of a fit's recipe: how students and teachers are trained where photographs are few.

Few photographs want many epochs of many different views: crops, colours, CutMix, smoothed labels, small batches.
"""

from bantam.fit.candidates import Student
from bantam.fit.known import Known
from bantam.recipes.keys import PRETRAINED
from bantam.recipes.kinds.given_teacher import GivenTeacher
from bantam.recipes.kinds.training import VIEWS, Augment, Optimizer, Training

MOST_VIEWS, LEAST_VIEWS = VIEWS, 4
"""Of each image, about which a teacher is asked."""

MIXING = 40
"""Epochs from which on it pays to mix photographs: a short training does not come to the end of them as they are."""

BATCHES = ((400, 16, 2e-3), (4_000, 32, 3e-3))
LARGE_BATCH = (64, 4e-3)
"""Up to so many images batch size and learning rate, and those for more: few images have few steps in an epoch."""

AVERAGED = 0.03
"""The share of all steps over which weights are averaged."""


def student_stage(known: Known, student: Student, name: str, epochs: int, views: int = 0, start: str = "") -> Training:
    """A student that learns from the labels, or where there are `views` from the stage `teacher`."""
    batch, lr = batch_for(known.training)
    objectives = {"supervised": {"weight": 1.0, "label_smoothing": 0.1}}
    if views:
        objectives = {"supervised": {"weight": 0.1}, "kd": {"weight": 0.9, "temperature": 4.0}}
    return Training(
        name=name,
        kind="student",
        net=student.net,
        size=student.size,
        teacher="teacher" if views else "",
        views=views,
        start=start,
        pretrained="" if start else pretrained_for(known, student),
        epochs=epochs,
        batch_size=batch,
        ema=averaging(known.training, batch, epochs),
        augment=augment(known, cutmix=0.5 if epochs >= MIXING else 0.0),
        optimizer=Optimizer(lr=lr, weight_decay=0.05),
        objectives=objectives,
    )


def pretrained_for(known: Known, student: Student) -> str:
    """The model that comes with Bantam from which the student starts; empty where there is none of its family.

    What it has learned of photographs serves others too; signs are not like them.
    """
    return "" if known.signs else next((name for name, family in PRETRAINED.items() if family == student.net), "")


def teacher_stage(known: Known, name: str, size: int, epochs: int) -> Training:
    """A teacher that is trained on the photographs alone."""
    batch, _ = batch_for(known.training)
    return Training(
        name=name,
        kind="teacher",
        net="resnet18",
        size=size,
        epochs=epochs,
        batch_size=batch,
        ema=averaging(known.training, batch, epochs),
        augment=augment(known, cutmix=0.5),
        optimizer=Optimizer(lr=1e-3, weight_decay=0.05),
        objectives={"supervised": {"weight": 1.0}},
    )


def given_stage(name: str, architecture: str, checkpoint: str, size: int) -> GivenTeacher:
    """A teacher whose weights somebody gave."""
    return GivenTeacher(name=name, architecture=architecture, checkpoint=checkpoint, size=size)


def answers_views(affordable: int) -> int:
    """About how many views of each image a teacher is asked, where there is time for `affordable` ones."""
    return min(max(affordable, LEAST_VIEWS), MOST_VIEWS)


def augment(known: Known, cutmix: float) -> Augment:
    """What the views of these photographs may differ in."""
    if known.signs:
        return Augment(scale=(0.6, 1.0), flip=0.0, rotation=10.0, brightness=0.2, contrast=0.2)
    return Augment(scale=(0.35, 1.0), flip=0.5, brightness=0.3, contrast=0.3, saturation=0.3, hue=0.02, cutmix=cutmix)


def batch_for(images: int) -> tuple[int, float]:
    """Batch size and peak learning rate of a student."""
    return next(((batch, lr) for most, batch, lr in BATCHES if images <= most), LARGE_BATCH)


def averaging(images: int, batch: int, epochs: int) -> float:
    """The decay a step of the averaged weights: over a share of all steps."""
    steps = max(1, images // batch) * epochs
    return round(min(max(1 - 1 / max(AVERAGED * steps, 1.0), 0.5), 0.9995), 5)
