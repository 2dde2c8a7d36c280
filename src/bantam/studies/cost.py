"""THE PATH of `bantam bench cost`: finished runs side by side, what each student costs and how accurate it is."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from bantam.measure.accuracy import Accuracy
from bantam.measure.cost import Cost, costs
from bantam.nets.students import Student
from bantam.runs.finished import FinishedRun


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


def run_costs(runs: Sequence[FinishedRun]) -> dict[FinishedRun, RunCost]:
    """Cost the students that finished `runs` shipped, all in one measurement; the file size is that of the real file.

    Raises BadData for a folder without a finished run, and BadCheckpoint for weights that do not load.
    """
    accuracies = {run: run.accuracy for run in runs}
    loaded = {run: run.as_shipped() for run in accuracies}
    measured = costs([(net, shipped.student.size) for net, shipped in loaded.values()])
    return {
        run: RunCost(shipped.student, replace(cost, disk_bytes=run.weights.stat().st_size), accuracies[run])
        for (run, (_, shipped)), cost in zip(loaded.items(), measured, strict=True)
    }
