"""How fast finished students answer in each of their forms on this machine.

    python benchmarks/answers.py RUN [RUN ...] [--rounds 20]

Times what `bantam bench cost` shows, and writes results/benchmarks/answers.json.
"""

import argparse
from pathlib import Path

import onnxruntime

from bantam.deliver.export.speeds import form_speeds, speeds_text
from bantam.runs.finished import open_run
from evidence import RESULTS, write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=RESULTS / "benchmarks" / "answers.json")
    options = parser.parse_args()
    found = {run.name: form_speeds(open_run(run), options.rounds) for run in options.runs}
    for name, speeds in found.items():
        print(f"{name}\n{speeds_text(speeds)}")
    result = {
        "rounds": options.rounds,
        "runs": {name: [speed.to_json() for speed in speeds] for name, speeds in found.items()},
        "onnxruntime": onnxruntime.__version__,
    }
    write(options.out, result)


if __name__ == "__main__":
    main()
