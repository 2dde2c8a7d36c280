"""What it brings to start from the model that comes with Bantam, on photographs that are no food, by budget.

    python benchmarks/pretrained.py cifar-10.zip --runs RUNS [--each 300] [--epochs 16] [--budgets 60000 20000]

The archive has train/CLASS/* and test/CLASS/*. Of each class --each photographs train, and 200 of test measure, drawn
with seed 1. For each budget the same recipe, that of a fit, trains from fresh weights and from the pretrained ones; a
run that is finished is taken as it is, and one that was killed goes on. Writes results/benchmarks/pretrained.json.
"""

import argparse
import random
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

from bantam.runs import runfolder
from bantam.runs.finished import open_run
from evidence import RESULTS, write

MEASURED, SEED = 200, 1
STARTS = {"fresh": "", "pretrained": "food11"}
RECIPE = """
name = "start"
seed = 0
budget = {budget}
[data]
size = 64
[[stage]]
name = "student"
kind = "student"
net = "largekernel"
size = 64
pretrained = "{pretrained}"
epochs = {epochs}
batch_size = 32
ema = 0.995
[stage.augment]
scale = [0.35, 1.0]
flip = 0.5
brightness = 0.3
contrast = 0.3
saturation = 0.3
hue = 0.02
cutmix = 0.5
[stage.optimizer]
lr = 3e-3
weight_decay = 0.05
[stage.objectives.supervised]
weight = 1.0
label_smoothing = 0.1
"""


def unpacked(archive: Path, each: int, folder: Path) -> Path:
    """Some photographs of the archive, as folders of classes."""
    draw = random.Random(SEED)
    with zipfile.ZipFile(archive) as file:
        classes: dict[tuple[str, str], list[str]] = {}
        for name in sorted(name for name in file.namelist() if name.endswith(".jpg")):
            split, label, _ = name.split("/")
            classes.setdefault((split, label), []).append(name)
        for (split, label), names in classes.items():
            for name in draw.sample(names, each if split == "train" else MEASURED):
                path = folder / split.replace("test", "val") / label / Path(name).name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(file.read(name))
    return folder


def trained(budget: int, start: str, epochs: int, data: Path, runs: Path) -> dict[str, Any]:
    """The row of one run."""
    out = runs / f"{start}-{budget}"
    recipe = runs / f"{out.name}.toml"
    recipe.write_text(RECIPE.format(budget=budget, pretrained=STARTS[start], epochs=epochs))
    if not (out / runfolder.RESULT).exists():
        command = [sys.executable, "-m", "bantam", "run", str(recipe), "--data", str(data), "--out", str(out)]
        subprocess.run(command, check=True)
    run = open_run(out)
    (stage,) = run.metrics["stages"].values()
    curve = [row["validation"]["accuracy"] for row in runfolder.rows(out / "stages" / "student" / runfolder.ROWS)]
    found = {key: stage["validation"][key] for key in ("accuracy", "standard_error", "n")}
    return {"budget": budget, "start": start, "parameters": stage["parameters"], **found, "curve": curve}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--each", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--budgets", type=int, nargs="+", default=[60_000, 20_000])
    options = parser.parse_args()

    data = options.runs / "photographs"
    if not data.exists():
        unpacked(options.archive, options.each, data)
    rows = [
        trained(budget, start, options.epochs, data, options.runs) for budget in options.budgets for start in STARTS
    ]
    write(
        RESULTS / "benchmarks" / "pretrained.json",
        {"data": options.archive.name, "each": options.each, "epochs": options.epochs, "rows": rows},
    )


if __name__ == "__main__":
    main()
