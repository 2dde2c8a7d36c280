"""The facts of a run that its files do not hold yet: measured on the photographs, kept in RUN/report/facts.json."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bantam.data.augment import plain
from bantam.data.splits import IMAGENET, LabelledSplit, Normalisation, Splits, require_labelled
from bantam.errors import BantamError, RunMismatch, typed
from bantam.files import sha256_of
from bantam.measure.accuracy import accuracy, calibration, confusion, soft_label_facts
from bantam.measure.cost import Cost, latencies
from bantam.measure.tta import logits_of_tta
from bantam.nets.budget import weigh
from bantam.nets.footprint import disk_bytes, footprint
from bantam.nets.students import describe
from bantam.nets.teachers import Teacher, build_teacher, load_teacher
from bantam.nets.weights import file_and_name
from bantam.recipes.kinds.given_teacher import GivenTeacher
from bantam.recipes.kinds.training import Training
from bantam.runs import checkpoint, runfolder
from bantam.runs.finished import FinishedRun
from bantam.runs.shipped import Shipped
from bantam.runs.watcher import Watcher

TEMPERATURES = (1.0, 2.0, 4.0, 8.0, 20.0)
SOFT_IMAGES = 256
"""Training images on which the teacher's soft labels are looked at."""

JUDGED_IMAGES = 1000
"""Validation images on which a given teacher, whose accuracy no file of the run holds, is judged."""

LATENCY_ROUNDS = 5
"""Turns that each net has when they are timed: a teacher on one thread is slow."""

FORMAT = 1
"""Raise it when the same run would have other facts."""

BINS = 15
HARDEST = 12


def measure(run: FinishedRun, data: Path, splits: Splits, made_by: dict[str, Any], watcher: Watcher) -> dict[str, Any]:
    """Measure the facts of a finished run on its photographs `splits`, which lie in `data`, and keep them.

    Facts that were measured of the same weights, photographs and teachers on this machine are taken as they are: the
    same measurement would give the same. `made_by` describes the machine and the versions; `watcher` is told what is
    being measured.

    Raises:
        BadData, BadCheckpoint: the run is not finished, or the photographs cannot be used.
        RunMismatch: the run was made with other photographs.
    """
    check_photographs(run, data, splits)
    of = measured_of(run, data, splits, made_by)
    known = read(run)
    if known.get("measured_of") == of:
        return known
    net, shipped = run.at_switch()
    watcher.say("validation: the student's answers")
    validation = of_validation(net, shipped, splits.validation, run.tta)
    facts: dict[str, Any] = {"measured_of": of, "made_by": made_by, "validation": validation}
    teacher = teacher_of(run, data)
    if teacher is not None:
        name, taught_by = teacher
        watcher.say(f"{name}: the teacher's soft labels")
        facts["teacher"] = {"stage": name, **of_teacher(taught_by, shipped, splits)}
    watcher.say("cost of every net")
    facts["costs"] = of_costs(run, net, shipped)
    return runfolder.write(run.facts, facts)


def measured_of(run: FinishedRun, data: Path, splits: Splits, made_by: dict[str, Any]) -> dict[str, Any]:
    """All that the facts of `run` depend on."""
    files = {"student": run.weights}
    for stage in run.recipe.stage:
        if isinstance(stage, GivenTeacher):
            files[stage.name] = file_and_name(data / stage.checkpoint)[0]
        elif stage.kind == "teacher":
            files[stage.name] = run.stage(stage.name) / runfolder.BEST
    return {
        "format": FORMAT,
        "recipe": sha256_of(run.folder / runfolder.RECIPE),
        "tta": run.tta,
        "photographs": splits.fingerprint,
        "machine": [made_by.get("processor"), made_by.get("versions")],
        "weights": {name: sha256_of(path) for name, path in files.items() if path.is_file()},
    }


def read(run: FinishedRun) -> dict[str, Any]:
    """The facts that were kept, or none. Raises BadData for a damaged file."""
    if not run.facts.exists():
        return {}
    return runfolder.table(run.facts, f"`bantam report {typed(run)} --data DIR` makes it anew")


def check_photographs(run: FinishedRun, data: Path, splits: Splits) -> None:
    """Raises RunMismatch where `run` was made with other photographs."""
    theirs = run.environment.get("data")
    if theirs not in (None, splits.fingerprint):
        raise RunMismatch(f"{run} was made with other photographs than those in {data}; give its own with --data")


def of_validation(net: nn.Module, shipped: Shipped, validation: LabelledSplit, tta: str) -> dict[str, Any]:
    """Confusion, calibration and the hardest images, on the answers that are shipped."""
    validation = require_labelled(validation, "the report's measurements")
    logits = logits_of_tta(net, validation, shipped.student.size, shipped.normalisation, tta)
    labels = validation.labels
    p = logits.double().softmax(1)  # [N, K]
    of_label = p.gather(1, labels[:, None]).squeeze(1)  # [N]
    hardest = of_label.argsort()[:HARDEST].tolist()
    return {
        "n": len(labels),
        "correct": accuracy(logits, labels).correct,
        "views": tta,
        "confusion": confusion(logits, labels).tolist(),
        "calibration": calibration(logits, labels, BINS)._asdict(),
        "reliability": reliability(p, labels),
        "hardest": [
            {
                "id": validation.ids[index],
                "label": int(labels[index]),
                "predicted": int(p[index].argmax()),
                "confidence": float(p[index].max()),
                "probability": float(of_label[index]),
            }
            for index in hardest
        ],
    }


def reliability(p: Tensor, labels: Tensor) -> list[dict[str, float]]:
    """Mean confidence and accuracy of the images in each of BINS equal bins (low, high] of the largest probability.

    `p` is [N, K] in 0..1. Empty bins are left out (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017).
    """
    confidence, predicted = p.max(1)
    right = (predicted == labels).double()
    bin_of = ((confidence * BINS).ceil().long() - 1).clamp(0, BINS - 1)
    rows: list[dict[str, float]] = []
    for number in range(BINS):
        inside = bin_of == number
        if n := int(inside.sum()):
            rows.append(
                {"confidence": float(confidence[inside].mean()), "accuracy": float(right[inside].mean()), "n": n}
            )
    return rows


def teacher_of(run: FinishedRun, data: Path) -> tuple[str, Teacher] | None:
    """The first teacher of the shipped student whose weights are at hand, with its stage's name."""
    recipe, shipped = run.recipe, run.shipped
    asked = recipe.shipped.teachers
    stages = sorted(recipe.stage, key=lambda stage: stage.name not in asked)
    classes, views = shipped.student.classes, shipped.normalisation
    for stage in stages:
        if isinstance(stage, GivenTeacher):
            net = load_teacher(data / stage.checkpoint, stage.architecture, classes)
            return stage.name, as_teacher(net, stage.size, IMAGENET, views)
        if isinstance(stage, Training) and stage.kind == "teacher":
            net = build_teacher(stage.net, classes)
            folder = run.stage(stage.name)
            if not (folder / runfolder.BEST).exists():
                continue
            checkpoint.fill_from_stage(net, folder)
            return stage.name, as_teacher(net, stage.size, views, views)
    return None


def as_teacher(net: nn.Module, size: int, own: Normalisation, views: Normalisation) -> Teacher:
    """A net as a teacher that sees views normalised as `views` say, itself used to `own`."""
    return Teacher(net, size, own.mean, own.std, views.mean, views.std)


def of_teacher(teacher: Teacher, shipped: Shipped, splits: Splits) -> dict[str, Any]:
    """How soft the teacher's answers to training images are at each temperature, and its accuracy on validation."""
    logits, labels = answers(teacher, splits.training, shipped, SOFT_IMAGES)
    soft: list[dict[str, Any]] = []
    for temperature in TEMPERATURES:
        p = (logits.double() / temperature).softmax(1)  # [N, K]
        facts = soft_label_facts(logits, labels, temperature)
        ranked = p.sort(dim=1, descending=True).values.mean(0)  # [K]
        soft.append(
            {
                "temperature": temperature,
                "ranked": ranked.tolist(),
                "entropy": facts.entropy,
                "off_class": facts.off_class,
            }
        )
    judged = accuracy(*answers(teacher, splits.validation, shipped, JUDGED_IMAGES))
    return {"n": len(labels), "soft": soft, "validation": {"correct": judged.correct, "n": judged.n}}


@torch.inference_mode()
def answers(teacher: Teacher, split: LabelledSplit, shipped: Shipped, images: int) -> tuple[Tensor, Tensor]:
    """Logits [n, K] and labels [n] of at most `images` images of `split`, drawn evenly, in plain views."""
    chosen = torch.linspace(0, len(split) - 1, min(images, len(split))).round().long()
    size, normalisation = shipped.student.size, shipped.normalisation
    rows = [
        teacher.observe(plain(split.images[index], size, normalisation.mean, normalisation.std)).logits.float()
        for index in chosen.split(64)
    ]
    return torch.cat(rows), split.labels[chosen]


def of_costs(run: FinishedRun, net: nn.Module, shipped: Shipped) -> dict[str, Any]:
    """What each stage's net costs for one image, all timed in turns; the shipped one's file is the real one."""
    nets: dict[str, tuple[nn.Module, int]] = {}
    recipe = run.recipe
    classes = shipped.student.classes
    with torch.random.fork_rng(devices=[]):
        for stage in recipe.stage:
            try:
                if stage.name == recipe.shipped.name:
                    nets[stage.name] = net, shipped.student.size
                elif isinstance(stage, GivenTeacher):
                    nets[stage.name] = build_teacher(stage.architecture, classes).eval(), stage.size
                elif isinstance(stage, Training) and stage.kind == "teacher":
                    nets[stage.name] = build_teacher(stage.net, classes).eval(), stage.size
                elif isinstance(stage, Training) and stage.of_family:
                    built = describe(
                        stage.net, stage.limit(recipe.budget), classes, stage.size, stage.shape, stage.switches
                    ).shipped_net()
                    nets[stage.name] = built, stage.size
            except BantamError:
                # A net that this version cannot build any more has no cost here; the report says so.
                continue
    timed = latencies(list(nets.values()), LATENCY_ROUNDS)
    found: dict[str, Any] = {}
    for (name, (built, size)), latency in zip(nets.items(), timed, strict=True):
        cost = Cost(weigh(built, size), footprint(built, size), disk_bytes(built), latency)
        found[name] = {**cost.to_json(), "size": size}
    found[recipe.shipped.name]["disk_bytes"] = run.weights.stat().st_size
    return found
