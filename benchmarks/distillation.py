"""The study of distillation: one student under each method, temperature, share and teacher, all else being equal.

    python benchmarks/distillation.py --data DIR --runs RUNS [--only NAMES] [--epochs N] [--seeds 0 1 2] [--parallel N]

Each variant and seed is one `bantam run` in a folder of its own, so the study may be killed and goes on; several calls
with other `--only` or other seeds may fill the same folder, and each collects all that is finished there. Every variant
is compared with well-tuned distillation, the best temperature and share of the two grids, by McNemar's exact test on
the plain views of the validation images. Writes results/benchmarks/distillation.json and docs/distillation.svg.
"""

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor

from bantam.data import cache
from bantam.data.splits import IMAGENET, Splits
from bantam.errors import BadRecipe
from bantam.files import replacing, write_json, write_text
from bantam.measure.accuracy import accuracy, mcnemar
from bantam.measure.logits import logits_of
from bantam.measure.plots import STYLE
from bantam.nets.teachers import Teacher, load_teacher
from bantam.recipes import recipe as recipes
from bantam.recipes.kinds.given_teacher import GivenTeacher
from bantam.recipes.recipe import Recipe
from evidence import RESULTS, ROOT, finished_run, validation_hits, write

Objectives = dict[str, dict[str, Any]]

ALPHA, TEMPERATURE, SIZE = 0.9, 2.0, 96
TEMPERATURES = (1.0, 2.0, 4.0, 8.0, 20.0)
ALPHAS = (0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
SIZES = (64, 80, 96, 112, 128)


def kd(alpha: float = ALPHA, temperature: float = TEMPERATURE, **more: Any) -> Objectives:
    """alpha * KD + (1 - alpha) * cross-entropy."""
    return {"supervised": {"weight": 1 - alpha}, "kd": {"weight": alpha, "temperature": temperature, **more}}


@dataclass(frozen=True)
class Variant:
    """What a student learns from, and in which tables of the study it stands."""

    what: str
    objectives: Objectives
    studies: tuple[str, ...] = ("methods",)
    teacher_size: int = SIZE
    peers: int = 1

    @property
    def taught(self) -> bool:
        return bool(self.objectives.keys() - {"supervised", "dml"})


def variants() -> dict[str, Variant]:
    """The whole study. A method's weight is its paper's where that carries over, and is not tuned here."""
    alone: Objectives = {"supervised": {"weight": 1.0}}
    found = {
        "cross-entropy": Variant("labels alone", alone),
        "dkd": Variant("decoupled KD", {**alone, "dkd": {"weight": 1.0, "temperature": TEMPERATURE}}),
        "dist": Variant("DIST", {**alone, "dist": {"weight": 2.0}}),
        "standardised-kd": Variant("KD of standardised logits", kd(temperature=2.0, standardize=True)),
        "standardised-dkd": Variant(
            "decoupled KD of standardised logits",
            {**alone, "dkd": {"weight": 1.0, "temperature": 2.0, "standardize": True}},
        ),
        "fitnet": Variant("KD and a hint", kd() | {"fitnet": {"weight": 10.0}}),
        "rkd": Variant("KD, distances and angles", kd() | {"rkd": {"weight": 25.0}}),
        "rkd-light": Variant("the same with a weight of 1", kd() | {"rkd": {"weight": 1.0}}),
        "attention": Variant("KD and attention maps", kd() | {"attention": {"weight": 10.0}}),
        "similarity": Variant("KD and similarities", kd() | {"similarity": {"weight": 3000.0}}),
        "dml": Variant("two peers without a teacher", {**alone, "dml": {"weight": 1.0}}, peers=2),
        "dml-kd": Variant("KD and two peers", kd() | {"dml": {"weight": 1.0}}, peers=2),
    }
    # One run may stand in several grids.
    for study, values in (("temperature", TEMPERATURES), ("alpha", ALPHAS), ("teacher", SIZES)):
        for value in values:
            alpha = value if study == "alpha" else ALPHA
            temperature = value if study == "temperature" else TEMPERATURE
            size = int(value) if study == "teacher" else SIZE
            name = f"kd-a{alpha:g}-t{temperature:g}-{size}px"
            what = f"KD, alpha {alpha:g}, T {temperature:g}, teacher at {size} px"
            before = found.get(name, Variant(what, {}, ()))
            found[name] = Variant(what, kd(alpha, temperature), (*before.studies, study), size)
    return found


def recipe_of(name: str, variant: Variant, options: argparse.Namespace) -> Recipe:
    """The recipe of a variant: the base recipe with another teacher's size, other objectives and epochs."""
    base = recipes.load(options.recipe, options.set)
    student = replace(
        base.shipped,
        epochs=options.epochs,
        views=min(options.views, options.epochs),
        objectives=variant.objectives,
        teacher=base.shipped.teacher if variant.taught else "",
        peers=variant.peers,
    )
    stages = [
        replace(stage, size=variant.teacher_size) if isinstance(stage, GivenTeacher) else stage for stage in base.stage
    ]
    kept = [student if stage.name == student.name else stage for stage in stages]
    return replace(base, name=f"distillation-{name}", stage=tuple(kept))


def run_one(name: str, seed: int, options: argparse.Namespace) -> None:
    """Run one variant with one seed in a process of its own, or go on with it; what it prints is in a file beside."""
    out = options.runs / f"{name}-{seed}"
    if (out / "metrics.json").exists():
        return
    recipe = replace(recipe_of(name, variants()[name], options), seed=seed)
    path = options.runs / f"{name}-{seed}.toml"
    write_text(path, recipes.dump(recipe))
    finished_run(str(path), options.data, out, [])


def row_of(name: str, variant: Variant, found: Mapping[int, Tensor], seconds: float) -> dict[str, Any]:
    """A variant's line: the mean over seeds, its binomial standard error, and the spread between seeds."""
    each = [float(one.float().mean()) for one in found.values()]
    mean, n = statistics.mean(each), len(next(iter(found.values())))
    return {
        "name": name,
        "what": variant.what,
        "studies": list(variant.studies),
        "objectives": variant.objectives,
        "teacher_size": variant.teacher_size if variant.taught else None,
        "accuracy": mean,
        "standard_error": (mean * (1 - mean) / n) ** 0.5,
        "between_seeds": statistics.stdev(each) / len(each) ** 0.5 if len(each) > 1 else None,
        "accuracies": dict(zip(map(str, found), each, strict=True)),
        "n": n,
        "seconds": seconds,
    }


def compared(found: Mapping[int, Tensor], reference: Mapping[int, Tensor]) -> dict[str, Any]:
    """A variant against the reference, seed by seed on the same images, all pairs in one test.

    The test knows how images differ, not how trainings differ: for that look at `by_seed`.
    """
    seeds = [seed for seed in found if seed in reference]
    if not seeds:
        return {}
    test = mcnemar(torch.cat([found[seed] for seed in seeds]), torch.cat([reference[seed] for seed in seeds]))
    pairs = sum(len(found[seed]) for seed in seeds)
    by_seed = [float(found[seed].float().mean() - reference[seed].float().mean()) for seed in seeds]
    return {"seeds": seeds, "by_seed": by_seed, "difference": (test.only_a - test.only_b) / pairs, **test._asdict()}


def well_tuned(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """The best of the rows that were run most often: a single run is the best of many by luck too easily."""
    best = max(rows, key=lambda row: (len(row["accuracies"]), row["accuracy"]), default=None)
    return best["name"] if best else None


def teacher_accuracies(
    options: argparse.Namespace, splits: Splits, sizes: Sequence[int]
) -> dict[str, dict[str, float]]:
    """The given teacher's validation accuracy at each input size, plain views of the student's size; asked once."""
    kept = options.runs / "teacher.json"
    known: dict[str, dict[str, float]] = json.loads(kept.read_text()) if kept.exists() else {}
    base = recipes.load(options.recipe, options.set)
    given = next((stage for stage in base.stage if isinstance(stage, GivenTeacher)), None)
    if given is None:
        raise BadRecipe(f'recipe "{base.name}" has no stage of kind "given_teacher"')
    for size in sizes:
        if str(size) not in known:
            net = load_teacher(options.data / given.checkpoint, given.architecture, len(splits.classes))
            teacher = Teacher(net, size, IMAGENET.mean, IMAGENET.std, IMAGENET.mean, IMAGENET.std)
            said = accuracy(
                logits_of(teacher, splits.validation, base.shipped.size, IMAGENET), splits.validation.labels
            )
            known[str(size)] = {"accuracy": said.value, "standard_error": said.standard_error}
            write_json(kept, known)
    return known


def report_of(options: argparse.Namespace) -> dict[str, Any]:
    """What all finished runs of the folder say."""
    splits = cache.open_splits(options.data, recipes.load(options.recipe, options.set).data.size)
    found: dict[str, dict[int, Tensor]] = {}
    rows: list[dict[str, Any]] = []
    for name, variant in variants().items():
        # Only a number may follow: "dml-kd-0" is no run of "dml".
        seeds = sorted(
            int(path.parent.name.removeprefix(f"{name}-"))
            for path in options.runs.glob(f"{name}-*/metrics.json")
            if path.parent.name.removeprefix(f"{name}-").isdigit()
        )
        if not seeds:
            continue
        found[name] = {seed: validation_hits(options.runs / f"{name}-{seed}", splits.validation) for seed in seeds}
        files = [options.runs / f"{name}-{seed}" / "metrics.json" for seed in seeds]
        seconds = [json.loads(path.read_text())["stages"]["student"]["seconds"] for path in files]
        made = [json.loads(path.with_name("environment.json").read_text()) for path in files]
        row = row_of(name, variant, found[name], statistics.median(seconds))
        rows.append({**row, "commits": sorted({one["commit"] for one in made if one["commit"]})})
    tuned = [row for row in rows if {"temperature", "alpha"} & set(row["studies"])]
    reference = well_tuned(tuned)
    for row in rows:
        if reference and row["name"] != reference:
            row["against_reference"] = compared(found[row["name"]], found[reference])
    asked = sorted({row["teacher_size"] for row in rows if "teacher" in row["studies"]})
    return {
        "what": f"{recipes.load(options.recipe, options.set).shipped.net} under every method of distillation",
        "recipe": Path(options.recipe).stem,
        "epochs": options.epochs,
        "views": options.views,
        "settings": options.set,
        "reference": reference,
        "seeds": sorted({seed for each in found.values() for seed in each}),
        "teacher": teacher_accuracies(options, splits, asked),
        "rows": rows,
    }


def plot(report: Mapping[str, Any], path: Path) -> None:
    """Three panels as SVG: accuracy against temperature, against alpha, and against the teacher's accuracy.

    A teacher has nearly the same accuracy at several input sizes, so in the last panel they stand side by side, the
    weakest first, each with its size and accuracy below.
    """

    def told(row: Mapping[str, Any]) -> float:
        return report["teacher"][str(row["teacher_size"])]["accuracy"]

    panels = {
        "temperature": ("temperature T", lambda row: row["objectives"]["kd"]["temperature"]),
        "alpha": ("alpha, the teacher's share", lambda row: row["objectives"]["kd"]["weight"]),
        "teacher": ("the teacher's input and its accuracy", told),
    }
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 3.4), layout="constrained")
        for axes, (study, (label, value)) in zip(figure.subplots(1, 3, sharey=True), panels.items(), strict=True):
            rows = sorted((row for row in report["rows"] if study in row["studies"]), key=value)
            places, names = [value(row) for row in rows], [f"{value(row):g}" for row in rows]
            if study == "teacher":
                places = list(range(len(rows)))
                names = [f"{row['teacher_size']} px\n{told(row):.1%}" for row in rows]
            if study == "temperature":
                axes.set_xscale("log")
                axes.minorticks_off()
            heights, errors = ([100 * row[key] for row in rows] for key in ("accuracy", "standard_error"))
            axes.errorbar(places, heights, errors, fmt="o-", capsize=3)
            axes.set_xticks(places, names)
            axes.set_xlabel(label)
            axes.grid(alpha=0.3)
            axes.margins(x=0.12)
            if study == "temperature":
                axes.set_ylabel("student ± standard error, %")
        with replacing(path) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})


def printed(report: Mapping[str, Any]) -> Table:
    table = Table(title=f"{report['what']}; reference {report['reference']}")
    for name in ("variant", "accuracy", "between seeds", "against reference", "p", "s"):
        table.add_column(name, justify="left" if name == "variant" else "right")
    for row in sorted(report["rows"], key=lambda row: -row["accuracy"]):
        versus = row.get("against_reference") or {}
        spread = f"± {row['between_seeds']:.4f}" if row["between_seeds"] is not None else "-"
        difference = f"{100 * versus['difference']:+.2f} points" if versus else "-"
        mean = f"{row['accuracy']:.4f} ± {row['standard_error']:.4f}"
        p = f"{versus['p']:.2g}" if versus else "-"
        table.add_row(row["name"], mean, spread, difference, p, f"{row['seconds']:.0f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=RESULTS / "benchmarks" / "distillation.json")
    parser.add_argument("--plot", type=Path, default=ROOT / "docs" / "distillation.svg")
    parser.add_argument("--recipe", default="quick", help="what all variants have in common")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=list(variants()), metavar="NAME", help=" ".join(variants()))
    parser.add_argument("--parallel", type=int, default=1, help="runs at a time; more than 1 pays on a large GPU")
    parser.add_argument("--set", nargs="*", default=[], help="further settings for every run")
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    jobs = [(name, seed) for seed in options.seeds for name in options.only or variants()]
    with ThreadPoolExecutor(options.parallel) as pool:
        list(pool.map(lambda job: run_one(job[0], job[1], options), jobs))
    report = report_of(options)
    write(options.out, report)
    plot(report, options.plot)
    console = Console(width=110)
    console.print(printed(report))
    for name, seed in jobs:
        if not (options.runs / f"{name}-{seed}" / "metrics.json").exists():
            said = (options.runs / f"{name}-{seed}.log").read_text().strip().splitlines()
            console.print(f"failed: {name}-{seed}: {said[-1] if said else 'no output'}", markup=False)


if __name__ == "__main__":
    main()
