"""What reads a run, for whoever damages one: each as a function of the run's folder that gives something comparable."""

from pathlib import Path
from typing import Any

import torch

from bantam.cli import predict as cli_predict
from bantam.data import cache
from bantam.deliver.classify import load_classifier
from bantam.deliver.package.write import package
from bantam.deliver.report.report import report
from bantam.deliver.serve.progress import curves
from bantam.pipeline import reuse
from bantam.pipeline import run as pipeline
from bantam.recipes.recipe import parse
from bantam.runs import runfolder
from bantam.runs.finished import open_run
from bantam.runs.watcher import Watcher
from bantam.studies.prune import Source
from damage import Command
from killed_run import essence
from tiny_run import RECIPE


def commands_on(photographs: Path, tmp_path: Path) -> dict[str, Command]:
    """What reads a run, each as a function of its folder that gives something comparable."""

    def predict(run: Path) -> bytes:
        out = tmp_path / "answers.csv"
        cli_predict.evaluation_images(run, photographs, out, None, None, None, None, None, None, False)
        return out.read_bytes()

    def classify(run: Path) -> list[float]:
        classifier = load_classifier(open_run(run))
        generator = torch.Generator().manual_seed(0)
        blank = torch.randint(256, (2, 32, 32, 3), dtype=torch.uint8, generator=generator)
        return classifier.probabilities(blank).flatten().tolist()

    def packaged(run: Path) -> bytes:
        return package(run, tmp_path / "hw13.zip").path.read_bytes()

    def reused(run: Path) -> list[str]:
        fingerprint = cache.open_splits(photographs, 32).fingerprint
        return [stage.name for stage in reuse.found(open_run(run), parse(RECIPE), fingerprint)]

    def pruned(run: Path) -> dict[str, list[float]]:
        subject = Source(run).subject(cache.open_splits(photographs, 32))
        return {name: value.flatten().tolist() for name, value in subject.net.state_dict().items()}

    def reported(run: Path) -> str:
        return report(open_run(run), tmp_path / "report.html", None, {}, Watcher()).markdown.read_text()

    def again(run: Path) -> Any:
        pipeline.run(parse(RECIPE), photographs, run)
        return told(run)

    return {
        "predict": predict, "classify": classify, "package": packaged, "reuse": reused, "prune": pruned,
        "curves": lambda run: curves(open_run(run)), "cost": lambda run: open_run(run).accuracy,
        "report": reported, "run": again,
    }  # fmt: skip


def told(run: Path) -> Any:
    """All that a run came to, but for its times."""
    weights, rows = essence(run)
    metrics = runfolder.result(run)
    judged = {name: table.get("validation") for name, table in metrics["stages"].items()}
    values = {name: value.flatten().tolist() for name, value in weights.items()}
    return values, rows, metrics["validation"], judged, (run / "submission.csv").read_bytes()


READERS = {
    "recipe.toml": ("predict", "classify", "package", "reuse", "prune", "curves"),
    "environment.json": ("reuse",),
    "metrics.json": ("predict", "classify", "package", "cost"),
    "student.json": ("predict", "classify", "package", "prune"),
    "student_best.ckpt": ("predict", "package"),
    "submission.csv": ("predict",),
    "stages/student/best.ckpt": ("prune",),
    "stages/student/done.json": ("prune", "curves"),
    "stages/student/metrics.jsonl": ("curves",),
    "stages/student/probe.json": ("reuse",),
}
"""Of a finished run, by the commands that read each file and are quick."""
