"""What a fit ends with: exports behind the parity gate, the report, and how good the student is and what it costs."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bantam.deliver.export.forms import Material, export, target_of
from bantam.deliver.report.report import report
from bantam.errors import ParityFailed
from bantam.fit.asked import Asked
from bantam.fit.kept import PAGE
from bantam.fit.sight import judged
from bantam.measure.cost import costs
from bantam.nets.device.needs import needs
from bantam.nets.teachers import load_teacher
from bantam.recipes.kinds.given_teacher import GivenTeacher
from bantam.runs import runfolder
from bantam.runs.environment import environment
from bantam.runs.finished import FinishedRun
from bantam.runs.photographs import open_data
from bantam.runs.watcher import Watcher


def forms(asked: Asked) -> tuple[str, ...]:
    """What the student is exported to: always ONNX, and C for a small device."""
    return ("onnx", "onnx-int8", *["c"] * asked.for_device)


def handed_over(run: FinishedRun, root: Path, largest: float, to: Sequence[str], watcher: Watcher) -> dict[str, Any]:
    """Export the finished `run` on the photographs in `root` in the forms `to`, report it, and say what it came to.

    That is fit.json. What is there already is taken as it is. `largest` is the share of validation's largest class.
    Raises CannotWrite.
    """
    if not (run.folder / PAGE).exists():
        exports = exported(run, root, to, watcher)
        if not run.report.exists():
            report(run, run.report, root, environment(), watcher)
        told = {"exports": exports, "report": str(run.report)}
        if "c" in to:
            told["device"] = on_device(run)
        if run.submission.exists():
            told["predictions"] = str(run.submission)
        runfolder.write(run.folder / PAGE, {**page(run, root, largest, watcher), **told})
    return runfolder.table(run.folder / PAGE, "delete it and run the same command again")


def exported(run: FinishedRun, root: Path, to: Sequence[str], watcher: Watcher) -> dict[str, Any]:
    """Each of the forms `to`: its file, bytes and parity, or why it was not written."""
    net, shipped = run.whole_way()
    material = Material(run, net, shipped, open_data(run.recipe, root, watcher))
    told: dict[str, Any] = {}
    for form in to:
        target = target_of(form)
        path = run.exported(f"student{target.mark}{target.suffix}")
        watcher.say(f"writing {path}")
        try:
            parity = export(material, form, path, program=target.program is not None)
        except ParityFailed as error:
            told[form] = {"failed": str(error)}
        else:
            told[form] = {"file": path.name, "bytes": path.stat().st_size, "parity": parity.text()}
    return told


def page(run: FinishedRun, root: Path, largest: float, watcher: Watcher) -> dict[str, Any]:
    """How good the student is, beside always the largest class and each teacher, and what it costs here."""
    net, shipped = run.at_switch()
    metrics = run.metrics
    (cost,) = costs([(net, shipped.student.size)])
    chosen = metrics["validation"]
    teachers = {name: row["validation"] for name, row in metrics["stages"].items() if row["kind"] == "teacher"}
    for stage in run.recipe.stage:
        if isinstance(stage, GivenTeacher):
            teachers[stage.name] = given_accuracy(root / stage.checkpoint, stage, run, root, watcher)
    return {
        "accuracy": chosen["accuracy"],
        "standard_error": chosen["standard_error"],
        "plain": chosen["plain"],
        "tta": chosen["views"],
        "n": chosen["n"],
        "largest_class": largest,
        "teachers": teachers,
        "student": metrics["student"],
        "size": shipped.student.size,
        "classes": len(shipped.classes),
        "budget": metrics["budget"],
        "parameters": cost.weight.counted,
        "bytes": cost.disk_bytes,
        "macs": cost.footprint.macs,
        "activation_bytes": cost.footprint.activation_bytes,
        "ms": cost.latency.median_ms,
    }


def on_device(run: FinishedRun) -> dict[str, int]:
    """The bytes of RAM and flash that the whole student takes as the form c."""
    net, shipped = run.whole_way()
    return asdict(needs(net, shipped.student.size))


def given_accuracy(path: Path, stage: GivenTeacher, run: FinishedRun, root: Path, watcher: Watcher) -> dict[str, Any]:
    """How good the given teacher of `run` is on the plain views of validation that its student sees."""
    validation = open_data(run.recipe, root, watcher).validation
    net = load_teacher(path, stage.architecture, len(validation.classes))
    found = judged(net, validation, run.shipped.student.size, stage.size)
    return {"accuracy": found.value, "standard_error": found.standard_error, "n": found.n}
