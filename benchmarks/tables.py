"""Fills the tables in README.md and docs/*.md from the files under results/, so that no number is typed by hand.

    python benchmarks/tables.py           writes them
    python benchmarks/tables.py --check   exits with 1, naming the file, where one is not what results/ says

A table stands between the lines `<!-- results: NAME -->` and `<!-- end -->`; the names are those of TABLES.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from bantam.files import write_text
from bantam.measure.crops import tta_of
from compression_tables import (
    cascade,
    device,
    device_speed,
    dynamic,
    pruning,
    pruning_curve,
    pruning_speed,
    quantization,
)
from evidence import ROOT
from fit_tables import fits, pretrained, trainers
from markdown_tables import NOTHING, machine, made_by, read, table, with_error
from provenance import commits_of_rows, evidence
from ways import doubling, way

SLOT = re.compile(r"(<!-- results: ([\w-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def views(results: Path) -> str:
    study = read(results / "benchmarks" / "views.json")
    if study is None:
        return NOTHING
    rows = [
        [
            "fresh" if row["views"] >= study["epochs"] else str(row["views"]),
            with_error(row["accuracy"], row["standard_error"]),
            *(("-", "-") if number == 0 else (f"{row['against_fresh']:+.4f}", f"{row['p']:.2g}")),
            f"{row['answers_seconds'] / 60:.0f}",
        ]
        for number, row in enumerate(study["rows"])
    ]
    head = ("views", "validation accuracy", "against fresh", "p, paired", "minutes of asking for it first")
    below = f"{study['epochs']} epochs, {study['images']:,} images at {study['size']} px, seed {study['seed']}."
    return table(head, rows) + f"\n\n{below} " + made_by(study["environment"])


def faults(results: Path) -> str:
    tried = read(results / "benchmarks" / "faults.json")
    if tried is None:
        return NOTHING
    rows = [[row["kind"], f"{row['tried']:,}", f"{row['held']:,}"] for row in tried["rows"]]
    return table(("what", "tried", "held"), rows) + "\n\n" + made_by(tried["environment"])


def mutants(results: Path) -> str:
    study = read(results / "benchmarks" / "mutants.json")
    if study is None:
        return NOTHING
    rows = [
        [room, f"{row['tried']:,}", f"{row['killed']:,}", f"{row['equivalent']:,}"]
        for room, row in study["rooms"].items()
    ]
    return table(("room", "tried", "noticed", "that change nothing"), rows) + "\n\n" + made_by(study["environment"])


def food_11(results: Path) -> str:
    rows: list[tuple[float, list[str]]] = []
    for path in sorted(results.glob("food-11/*/metrics.json")):
        metrics, environment = read(path), read(path.with_name("environment.json"))
        assert metrics is not None
        assert environment is not None
        judged = metrics["validation"]
        cells = [
            path.parent.name,
            metrics["student"],
            with_error(judged["accuracy"], judged["standard_error"])
            + (f", with {tta_of(judged)}" if judged["flip"] else "")
            if "refit" not in metrics
            else "none left: it has trained on validation",
            f"{judged['n']:,}" if "refit" not in metrics else "-",
            f"{max(metrics['parameters'].values()):,}",
            str(metrics["epochs"]),
            f"{metrics['seconds'] / 60:.0f}",
            machine(environment),
        ]
        rows.append((judged["accuracy"], cells))
    head = ("recipe", "student", "validation accuracy", "n", "parameters", "epochs", "minutes", "hardware")
    return table(head, [cells for _, cells in sorted(rows)])


def start(results: Path) -> str:
    study = read(results / "benchmarks" / "start.json")
    if study is None:
        return NOTHING
    versions = [version for version in ("before", "now") if version in study["rows"][0]]

    def cells(figures: dict[str, Any] | None) -> list[str]:
        if figures is None:
            return ["-"] * 3
        low, high = figures["quartiles"]
        more = (
            [f"{figures['core_seconds']:.2f}", f"{figures['megabytes']:.0f}"] if "megabytes" in figures else ["-"] * 2
        )
        return [f"{figures['seconds']:.2f} ({low:.2f} to {high:.2f})", *more]

    rows = [[row["what"], *(cell for version in versions for cell in cells(row.get(version)))] for row in study["rows"]]
    head = ("command", *(f"{version}, {unit}" for version in versions for unit in ("s", "s of a core", "MB")))
    before = f", before at commit {study['before'][:8]}" if "before" in study else ""
    below = f"Medians of {study['rounds']} rounds and their quartiles{before}. "
    return table(head, rows) + "\n\n" + below + made_by(study["environment"])


def throughput(results: Path) -> str:
    return speeds(read(results / "benchmarks" / "throughput.json"))


def throughput_cuda(results: Path) -> str:
    return speeds(read(results / "benchmarks" / "throughput-cuda.json"))


def speeds(measured: dict[str, Any] | None) -> str:
    if measured is None:
        return NOTHING
    rows = [
        [
            row["net"],
            *(f"{speed:,.0f}" for speed in row["images_per_second"].values()),
            f"{row['of_net_alone']:.0%}",
            f"{row['of_loader']:.1f}",
            f"{row['of_sample_code']:.1f}",
            second_thread(row),
            *(f"{row[cost]:.2f}" if cost in row else "-" for cost in ("cached_teacher_costs", "live_teacher_costs")),
        ]
        for row in measured["training"]
    ]
    names = [f"{name}, images/s" for name in measured["training"][0]["images_per_second"]]
    head = (
        "student",
        *names,
        "step / net alone",
        "step / loader",
        "step / at 224 px",
        "views in a second thread",
        "cached teacher costs",
        "live teacher costs",
    )
    return table(head, rows) + "\n\n" + made_by(measured["environment"])


def second_thread(row: dict[str, Any]) -> str:
    """The time of a step whose next views a second thread makes against that of one without; and what was taken."""
    tried = row.get("second_thread")
    return f"{tried['time_of_a_step']:.2f}, {'kept' if tried['kept'] else 'not kept'}" if tried else "-"


ANSWERS = {
    "photograph to class": ("file to class", 1),
    "net, 1 image": ("net alone", 1),
    "net, 64 images": ("net alone", 64),
}
"""Columns of the table of answers: what was timed, and the batch."""


def answers(results: Path) -> str:
    """Each run's forms, with the medians and quartiles of ANSWERS."""
    measured = read(results / "benchmarks" / "answers.json")
    if measured is None:
        return NOTHING
    rows: list[list[str]] = []
    for run, speeds in measured["runs"].items():
        found = {(row["form"], row["what"], row["batch"]): row for row in speeds}
        for form in dict.fromkeys(row["form"] for row in speeds):
            timed = [found[form, *kind] for kind in ANSWERS.values()]
            cells = ["{:.2f} ({:.2f} to {:.2f})".format(row["median_ms"], *row["quartiles_ms"]) for row in timed]
            gain = found["PyTorch", "net alone", 64]["median_ms"] / found[form, "net alone", 64]["median_ms"]
            rows.append([f"{run}, {form}", *cells, f"{gain:.1f}"])
    head = ("run and form", *(f"{name}, ms" for name in ANSWERS), "64 images: times as fast as PyTorch")
    said = f"One thread, ONNX Runtime {measured['onnxruntime']}, medians and quartiles of {measured['rounds']} turns. "
    return table(head, rows) + "\n\n" + said + made_by(measured["environment"])


def scale(results: Path) -> str:
    measured = read(results / "benchmarks" / "throughput.json")
    if measured is None:
        return NOTHING
    each, memory = measured["flatness"]["microseconds_per_image"], measured["memory"]
    rows = [[f"time an image, {int(count):,} images", f"{value:,.0f} µs"] for count, value in each.items()]
    if memory:
        rows.append([f"peak memory of a run on {memory['images']:,} images", f"{memory['peak_bytes'] / 1e9:.2f} GB"])
    if beyond := memory.get("beyond_limit"):
        array, limit = beyond["array_bytes"] / 1e9, beyond["limit_bytes"] / 1e9
        rows.append(["largest array tried / memory that the process may have", f"{array:.2f} / {limit:.2f} GB"])
    if kept := measured["kept_memory"]:
        rows.append(["speed of the net alone with freed memory kept / given back", f"{kept['gain']:.2f}"])
    return table(("what", "measured"), rows) + "\n\n" + made_by(measured["environment"])


def cores(results: Path) -> str:
    measured = read(results / "benchmarks" / "cores.json")
    if measured is None:
        return NOTHING
    speeds, ratios = measured["images_per_second"], measured["against_one_thread"]
    rows = [
        [way, *(cell for place in speeds for cell in (f"{speeds[place][way]:,.0f}", f"{ratios[place][way]:.2f}"))]
        for way in next(iter(speeds.values()))
    ]
    head = ("threads", *(cell for place in speeds for cell in (f"{place}, images/s", "against one thread")))
    about = f"{measured['net']}, {measured['size']} px, batch {measured['batch']}, load {measured['load']:.1f}."
    return table(head, rows) + f"\n\n{about} " + made_by(measured["environment"])


def step_parts(results: Path) -> str:
    measured = read(results / "benchmarks" / "step.json")
    if measured is None:
        return NOTHING
    kernels = sorted({row["kernel"] for row in measured["parts"]})
    found = {(row["part"], row["kernel"]): row for row in measured["parts"]}
    rows = [
        [part, *(f"{found[part, k]['milliseconds']:.1f} ({found[part, k]['gmacs_per_second']:.0f})" for k in kernels)]
        for part in dict.fromkeys(row["part"] for row in measured["parts"])
    ]
    head = ("part of a depthwise convolution", *(f"{k} x {k}, ms (GMACs/s)" for k in kernels))
    shape = f"[{measured['batch']}, {measured['channels']}, {measured['side']}, {measured['side']}]"
    return table(head, rows) + f"\n\nMaps {shape}, one thread. " + made_by(measured["environment"])


def step_ways(results: Path) -> str:
    measured = read(results / "benchmarks" / "step.json")
    if measured is None:
        return NOTHING
    rows = [[row["way"], f"{row['milliseconds']:.0f}", f"{row['ratio']:.2f}"] for row in measured["ways"]]
    return table(("the net's forward and backward", "ms", "times as fast"), rows)


def gpu(results: Path) -> str:
    measured = read(results / "benchmarks" / "throughput-cuda.json")
    if measured is None:
        return NOTHING
    head = ("student", "batch", "images/s", "10,000 images, ms", "of the roofline", "of it with all layers fused")
    rows = [
        [
            row["net"] + (", compiled" if row["compiled"] else ""),
            f"{row['batch']:,}",
            f"{row['images_per_second']:,.0f}",
            f"{row['epoch_milliseconds']:.0f}",
            f"{row['of_roofline']:.0%}",
            f"{row['of_roofline_fused']:.0%}",
        ]
        for row in measured["gpu"]["steps"]
    ]
    roofline = measured["gpu"]["roofline"]
    limits = (
        f"Roofline measured in the same run: {roofline['copy_bytes_per_second'] / 1e12:.2f} TB/s copied, "
        f"{roofline['matrix_operations_per_second'] / 1e12:.0f} Tflop/s in bf16 products. "
    )
    return table(head, rows) + "\n\n" + limits + made_by(measured["environment"])


def time_to_accuracy(results: Path) -> str:
    measured = read(results / "benchmarks" / "time_to_accuracy.json")
    if measured is None:
        return NOTHING
    opponent, target = measured["sample_code"], measured["target"]

    def row(name: str, side: dict[str, Any], ratios: tuple[float | None, float | None]) -> list[str]:
        seconds = f"{side['seconds']:,.0f}" if side["seconds"] is not None else "not reached"
        best = f"{max(accuracy for _, accuracy in side['history']):.3f}"
        shown = ["-" if ratio is None else f"{ratio:.1f}" for ratio in ratios]
        return [name, seconds, str(len(side["history"])), best, *shown]

    rows = [row("sample code", opponent, (None, None))]
    for run in measured["bantam"]:
        views = f"{run['views']} view{'s' if run['views'] > 1 else ''}"
        name = f"Bantam, {run['recipe']}: schedule of {run['epochs']} epochs, {views}"
        rows.append(row(name, run, (run["ratio"], run["ratio_when_prepared"])))
    head = ("who", f"seconds to {target:.3f}", "epochs run", "best accuracy", "ratio", "ratio, prepared")
    return table(head, rows) + "\n\n" + made_by(measured["environment"])


def stages(results: Path) -> str:
    """Each stage of a run against what it started from; below, what a doubling of time brought."""
    study = read(results / "benchmarks" / "stages.json")
    if study is None:
        return NOTHING
    rows = [
        [
            row["stage"],
            f"{row['net']}, {row['size']} px",
            f"{row['teacher']}: {row['taught_by']['accuracy']:.3f}" if "taught_by" in row else "-",
            str(row.get("epochs", "-")),
            f"{row['seconds'] / 60:.0f}" if "seconds" in row else "-",
            with_error(row["accuracy"], row["standard_error"]),
            *difference_cells(row.get("against_start"), row.get("start", "")),
        ]
        for row in study["rows"]
    ]
    head = ("stage", "net", "learns from", "epochs", "minutes", "validation accuracy", "against its start", "p")
    (n,) = {row["n"] for row in study["rows"]}
    last = next(row["against_given"] for row in study["rows"] if "against_given" in row)
    below = (
        f"Plain views, n = {n:,}, one seed, recipe {study['recipe']}. The student is "
        f"{100 * last['difference']:+.1f} points from `{last['given']}` (p {last['p']:.2g}). Over its "
        f"{len(way(study))} stages each doubling of the minutes that went into it brought "
        f"{100 * doubling(study):.1f} points. "
    )
    return table(head, rows) + "\n\n" + below + made_by(study["environment"])


def difference_cells(paired: dict[str, Any] | None, start: str) -> list[str]:
    """The cells of a paired difference: in points and of what, and p."""
    if paired is None:
        return ["-", "-"]
    return [f"{100 * paired['difference']:+.1f} points, {start}", f"{paired['p']:.2g}"]


def peers(results: Path) -> str:
    rows: list[list[str]] = []
    for path in sorted(results.glob("benchmarks/peer-*.json")):
        measured = read(path)
        assert measured is not None
        judged = measured["validation"]
        rows.append(
            [
                measured["peer"],
                with_error(judged["accuracy"], judged["standard_error"]),
                f"{judged['n']:,}",
                f"{measured['parameters']:,}",
                str(measured["epochs"]),
                f"{measured['seconds'] / 60:.0f}",
                machine(measured["environment"]),
            ]
        )
    return table(("peer", "validation accuracy", "n", "parameters", "epochs", "minutes", "hardware"), rows)


def families(results: Path) -> str:
    """The families, and among them the peers, each trained in its own way for its own number of epochs."""
    measured = read(results / "benchmarks" / "families.json")
    if measured is None:
        return NOTHING
    rows: list[tuple[float, list[str]]] = []
    for row in measured["rows"]:
        if "failed" not in row:
            name, weight = row["family"], max(row["parameters"].values())
            rows.append((row["accuracy"], tournament_cells(name, row, measured["epochs"], weight)))
    peers = [read(path) or {} for path in sorted(results.glob("benchmarks/peer-*.json"))]
    for peer in peers:
        accuracy, n = peer["plain"], peer["validation"]["n"]
        row = {**peer, "accuracy": accuracy, "standard_error": (accuracy * (1 - accuracy) / n) ** 0.5, "n": n}
        rows.append((accuracy, tournament_cells(f"*{peer['peer']}, a peer*", row, peer["epochs"], peer["parameters"])))
    rows.sort(key=lambda ranked: -ranked[0])
    head = ("family", "validation accuracy", "n", "parameters", "M MACs", "epochs", "minutes")
    commits = ", ".join(commits_of_rows(measured))
    below = f"One plain view, {len(measured['seeds'])} seed(s); families at commit(s) {commits}. "
    if peers:
        below += "Peers look at 224 px and train in their own way, with the same teacher (`benchmarks/peers.py`). "
    return table(head, [cells for _, cells in rows]) + "\n\n" + below + made_by(measured["environment"])


def tournament_cells(name: str, row: dict[str, Any], epochs: int, parameters: int) -> list[str]:
    return [
        name,
        with_error(row["accuracy"], row["standard_error"]),
        f"{row['n']:,}",
        f"{parameters:,}",
        f"{row['macs'] / 1e6:.1f}" if "macs" in row else "-",
        str(epochs),
        f"{row['seconds'] / 60:.0f}",
    ]


def against_peers(results: Path, name: str = "against-peers") -> str:
    measured = read(results / "benchmarks" / f"{name}.json")
    if measured is None:
        return NOTHING
    rows = [
        [
            f"{row['views']} against {row['peer']}",
            with_error(row["accuracy"], row["standard_error"]),
            with_error(row["peer_accuracy"], row["peer_standard_error"]),
            f"{measured['epochs']} / {row['peer_epochs']}",
            f"{100 * row['difference']:+.1f} points",
            f"{row['only_ours']:,} / {row['only_peer']:,}",
            f"{row['p']:.2g}",
            f"{row['n']:,}",
        ]
        for row in measured["rows"]
    ]
    head = ("views", measured["recipe"], "peer", "epochs", "difference", "only one right", "p, paired", "n")
    return table(head, rows) + "\n\n" + made_by(measured["environment"])


def levers(results: Path) -> str:
    measured = read(results / "benchmarks" / "levers.json")
    if measured is None:
        return NOTHING
    rows: list[list[str]] = []
    for row in measured["rows"]:
        versus = row.get("against_unchanged")
        rows.append(
            [
                row["lever"],
                with_error(row["accuracy"], row["standard_error"]),
                f"{100 * versus['difference']:+.1f} points" if versus else "-",
                f"{versus['p']:.2g}" if versus else "-",
                f"{row['n']:,}",
                f"{row['macs'] / 1e6:.1f}",
            ]
        )
    head = ("changed", "validation accuracy", "against unchanged", "p, paired", "n", "M MACs")
    below = f"{measured['epochs']} epochs, {len(measured['seeds'])} seed(s). "
    return table(head, rows) + "\n\n" + below + made_by(measured["environment"])


def distillation(results: Path) -> str:
    """Every method, and the reference among the grids, the best first."""
    measured = read(results / "benchmarks" / "distillation.json")
    if measured is None:
        return NOTHING
    rows = [row for row in measured["rows"] if "methods" in row["studies"] or row["name"] == measured["reference"]]
    rows.sort(key=lambda row: -row["accuracy"])
    cells = [
        [row["name"] + (", the reference" if row["name"] == measured["reference"] else ""), *judged_cells(row)]
        for row in rows
    ]
    about = ", ".join(
        [f"{measured['epochs']} epochs, {measured['views']} views, recipe {measured['recipe']}", *measured["settings"]]
    )
    return table(("method", *JUDGED), cells) + "\n\n" + about + ". " + made_by(measured["environment"])


def headline(results: Path) -> str:
    """The study in three rows: labels alone, well-tuned distillation, and the best of the other methods."""
    measured = read(results / "benchmarks" / "distillation.json")
    if measured is None:
        return NOTHING
    rows = {row["name"]: row for row in measured["rows"]}
    alone, tuned = rows.get("cross-entropy"), rows[measured["reference"]]
    others = [row for row in rows.values() if "methods" in row["studies"] and row is not alone]
    best = max(others, key=lambda row: (len(row["accuracies"]), row["accuracy"]), default=None)
    shown = [(f"{row['what']}", *judged_cells(row)[:-1]) for row in (alone, tuned, best) if row]
    return table(("the student learns from", *JUDGED[:-1]), shown)


JUDGED = ("student", "seeds", "n", "against the reference", "seed by seed", "p", "minutes")


def judged_cells(row: dict[str, Any]) -> list[str]:
    """The cells under JUDGED."""
    versus = row.get("against_reference") or {}
    return [
        with_error(row["accuracy"], row["standard_error"]),
        str(len(row["accuracies"])),
        f"{row['n']:,}",
        f"{100 * versus['difference']:+.1f} points" if versus else "-",
        ", ".join(f"{100 * one:+.1f}" for one in versus["by_seed"]) if versus else "-",
        f"{versus['p']:.2g}" if versus else "-",
        f"{row['seconds'] / 60:.0f}",
    ]


def grid(results: Path, study: str) -> str:
    """One of the study's grids: each value, and with the teacher's size the teacher's own accuracy."""
    measured = read(results / "benchmarks" / "distillation.json")
    if measured is None:
        return NOTHING
    rows: list[tuple[float, list[str]]] = []
    for row in measured["rows"]:
        if study not in row["studies"]:
            continue
        kd = row["objectives"]["kd"]
        value = {"temperature": kd["temperature"], "alpha": kd["weight"], "teacher": row["teacher_size"]}[study]
        cells = [f"{value:g}{' px' if study == 'teacher' else ''}", *judged_cells(row)[:-1]]
        if study == "teacher":
            own = measured["teacher"][str(value)]
            cells.insert(1, with_error(own["accuracy"], own["standard_error"]))
        rows.append((value, cells))
    head = [{"teacher": "teacher's input"}.get(study, study), *JUDGED[:-1]]
    if study == "teacher":
        head.insert(1, "teacher")
    return table(head, [cells for _, cells in sorted(rows)])


TABLES: dict[str, Callable[[Path], str]] = {
    "evidence": evidence,
    "faults": faults,
    "mutants": mutants,
    "food-11": food_11,
    "start": start,
    "pretrained": pretrained,
    "trainers": trainers,
    "fits": fits,
    "throughput": throughput,
    "throughput-cuda": throughput_cuda,
    "answers": answers,
    "scale": scale,
    "cores": cores,
    "step-parts": step_parts,
    "step-ways": step_ways,
    "gpu": gpu,
    "time-to-accuracy": time_to_accuracy,
    "stages": stages,
    "views": views,
    "device": device,
    "device-speed": device_speed,
    "peers": peers,
    "families": families,
    "against-peers": against_peers,
    "against-peers-boss": partial(against_peers, name="against-peers-boss"),
    "levers": levers,
    "distillation": distillation,
    "distillation-headline": headline,
    "distillation-temperature": partial(grid, study="temperature"),
    "distillation-alpha": partial(grid, study="alpha"),
    "distillation-teacher": partial(grid, study="teacher"),
    "pruning": pruning,
    "pruning-speed": pruning_speed,
    "pruning-teacher": partial(pruning_curve, of="teacher"),
    "pruning-student": partial(pruning_curve, of="student"),
    "pruning-teacher-finetuned": partial(pruning_curve, of="teacher-finetuned"),
    "pruning-student-finetuned": partial(pruning_curve, of="student-finetuned"),
    "quantization": quantization,
    "exits": partial(dynamic, name="exits"),
    "views-while-unsure": partial(dynamic, name="views-while-unsure"),
    "slim": partial(cascade, name="slim"),
    "sizes": partial(cascade, name="sizes"),
    "cascade": partial(cascade, name="cascade"),
}


def pages(root: Path) -> Iterator[Path]:
    """The files that may hold tables."""
    if (root / "README.md").exists():
        yield root / "README.md"
    yield from sorted((root / "docs").glob("*.md"))


def filled(text: str, results: Path) -> str:
    """`text` with each table made anew. Raises KeyError for a name that TABLES does not have."""
    return SLOT.sub(lambda slot: f"{slot[1]}\n{TABLES[slot[2]](results)}\n\n{slot[4]}", text)


def stale(root: Path) -> list[Path]:
    """The pages whose tables are not what results/ says."""
    texts = ((path, path.read_text(encoding="utf-8")) for path in pages(root))
    return [path for path, text in texts if filled(text, root / "results") != text]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 where a table is stale")
    options = parser.parse_args()
    for path in stale(ROOT):
        name = path.relative_to(ROOT)
        if options.check:
            sys.exit(f"tables: {name} does not say what results/ says; run `make results`")
        write_text(path, filled(path.read_text(encoding="utf-8"), ROOT / "results"))
        print(f"{name}: tables written")


if __name__ == "__main__":
    main()
