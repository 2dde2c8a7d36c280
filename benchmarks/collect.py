"""Copies the evidence of a finished run, a few hundred KB, to where it is committed.

python benchmarks/collect.py RUN results/food-11/NAME
"""

import argparse
import sys
from pathlib import Path

from bantam.errors import BadData, BantamError
from bantam.files import replacing
from bantam.runs.runfolder import ROWS, STAGES

EVIDENCE = (
    "recipe.toml",
    "metrics.json",
    "submission.csv",
    "student_best.ckpt",
    "environment.json",
    "student.json",
)


def collect(run: Path, to: Path) -> None:
    """Copy the files of EVIDENCE and the learning curves of all stages from the folder `run`.

    Raises BadData if it is not finished, and CannotWrite.
    """
    missing = [name for name in EVIDENCE if not (run / name).is_file()]
    if missing:
        raise BadData(f"{run} lacks {', '.join(missing)}; run the recipe to its end first")
    curves = [str(path.relative_to(run)) for path in sorted(run.glob(f"{STAGES}/*/{ROWS}"))]
    for name in [*EVIDENCE, *curves]:
        with replacing(to / name) as temporary:
            temporary.write_bytes((run / name).read_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("to", type=Path)
    options = parser.parse_args()
    try:
        collect(options.run, options.to)
    except BantamError as error:
        sys.exit(f"collect: {error}")


if __name__ == "__main__":
    main()
