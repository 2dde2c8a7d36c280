"""What each stage of a finished run brought: its net against the one that it started from, image by image.

    python benchmarks/stages.py --data DIR --run RUN

Every net that was trained, in one plain view of validation, which chose nothing here but each stage's best epoch; and
what taught it, with as many answers joined as the stage names. Differences are paired: McNemar's exact test. Last the
student against the given teacher at the input size at which that is best. Needs the run's own folder: only there are
the weights of all its stages. Writes results/benchmarks/stages.json.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from torch import Tensor

from bantam.measure.accuracy import Accuracy, hits, mcnemar
from bantam.measure.logits import logits_of
from bantam.nets.teachers import AnyTeacher, Teacher, joint
from bantam.pipeline.stages import Run, teacher_of, weights_of
from bantam.recipes.kinds.given_teacher import GivenTeacher
from bantam.recipes.kinds.training import Training
from bantam.runs.finished import FinishedRun, open_run
from bantam.runs.photographs import normalisation, open_data
from bantam.runs.watcher import Watcher
from bantam.train.distributed import ALONE
from evidence import RESULTS, write


def rows_of(run: FinishedRun, root: Path) -> list[dict[str, Any]]:
    """A row for each stage of `run`, in their order."""
    watcher = Watcher()
    splits = open_data(run.recipe, root, watcher)
    shared = normalisation(run.recipe, splits)
    here = Run(run.recipe, root, run.folder, splits, shared, ALONE.device, watcher, ALONE, {})
    done = run.metrics["stages"]
    teachers: dict[str, Teacher] = {}
    right: dict[str, Tensor] = {}
    rows: list[dict[str, Any]] = []
    for stage in run.recipe.stage:
        if not isinstance(stage, GivenTeacher | Training):  # a refit: validation has trained it
            continue
        teachers[stage.name] = teacher_of(here, stage, weights_of(here, stage))
        right[stage.name] = correct(teachers[stage.name], stage.size, here)
        row: dict[str, Any] = {"stage": stage.name, "size": stage.size}
        row |= {name: done[stage.name][name] for name in ("kind", "net")}
        row |= judged(right[stage.name])
        if isinstance(stage, Training):
            row |= {"teacher": stage.teacher, "start": stage.start}
            row |= {name: done[stage.name][name] for name in ("epochs", "seconds", "answers_seconds")}
            if stage.start:
                row["against_start"] = against(right[stage.name], right[stage.start])
            if stage.teacher:
                taught = [teachers[name] for name in stage.teachers]
                said = correct(joint(taught, stage.teacher_mean, stage.teacher_flip), stage.size, here)
                row["taught_by"] = judged(said)
        rows.append(row)
        print(json.dumps(row), flush=True)
    if given := [row for row in rows if row["kind"] == "given_teacher"]:
        best = max(given, key=lambda row: row["accuracy"])["stage"]
        shipped = next(row for row in rows if row["stage"] == run.recipe.shipped.name)
        shipped["against_given"] = {"given": best, **against(right[shipped["stage"]], right[best])}
    return rows


def correct(net: AnyTeacher, size: int, here: Run) -> Tensor:
    """Which validation images `net` has right in one plain view of `size` pixels a side: boolean [N]."""
    validation = here.splits.validation
    return hits(logits_of(net, validation, size, here.normalisation), validation.labels)


def judged(right: Tensor) -> dict[str, Any]:
    """The accuracy, with its standard error and n."""
    found = Accuracy(int(right.sum()), len(right))
    return {"accuracy": found.value, "standard_error": found.standard_error, "n": found.n}


def against(ours: Tensor, theirs: Tensor) -> dict[str, Any]:
    """The difference on the same images: in accuracy, how many only one of both has right, and p."""
    test = mcnemar(ours, theirs)
    return {
        "difference": (test.only_a - test.only_b) / len(ours),
        "only_this": test.only_a,
        "only_other": test.only_b,
        "p": test.p,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=RESULTS / "benchmarks" / "stages.json")
    options = parser.parse_args()
    run = open_run(options.run)
    write(options.out, {"recipe": run.recipe.name, "rows": rows_of(run, options.data)})


if __name__ == "__main__":
    main()
