"""Finished runs side by side: what each shipped student costs, and how accurate it is."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bantam.deliver.predict import load_whole
from bantam.measure.accuracy import Accuracy
from bantam.measure.cost import Cost, costs
from bantam.nets.students import Student
from bantam.runs import runfolder


@dataclass(frozen=True)
class RunCost:
    """A run's shipped student: the cost of one pass, and the validation accuracy of one pass, that is without flip."""

    student: Student
    cost: Cost
    validation: Accuracy

    def to_json(self) -> dict[str, Any]:
        """Return a dict that `json` can write."""
        return {
            "family": self.student.family,
            "size": self.student.size,
            **self.cost.to_json(),
            "validation": {
                "accuracy": self.validation.value,
                "standard_error": self.validation.standard_error,
                "n": self.validation.n,
            },
        }


def run_costs(runs: Sequence[Path]) -> dict[Path, RunCost]:
    """Cost the students that finished `runs` shipped, all in one measurement; the file size is that of the real file.

    Raises BadData for a folder without a finished run, and BadCheckpoint for weights that do not load.
    """
    accuracies = {run: validation_accuracy(run) for run in runs}
    loaded = {run: load_whole(run) for run in accuracies}
    measured = costs([(net, shipped.student.size) for net, shipped in loaded.values()])
    return {
        run: RunCost(
            shipped.student,
            replace(cost, disk_bytes=(run / "student_best.ckpt").stat().st_size),
            accuracies[run],
        )
        for (run, (_, shipped)), cost in zip(loaded.items(), measured, strict=True)
    }


def validation_accuracy(run: Path) -> Accuracy:
    """Read the accuracy without flip from a run's metrics.json. Raises BadData where there is none."""
    judged = runfolder.result(run)["validation"]
    return Accuracy(round(judged["plain"] * judged["n"]), judged["n"])
