"""The tables about smaller and cheaper forms of a net: pruned, on integers, at a lower resolution first."""

from pathlib import Path
from typing import Any

from markdown_tables import NOTHING, made_by, read, table, with_error

RATIOS = (0, 0.25, 0.5, 0.75, 0.9, 0.95)
"""The ratios of a pruning curve that its table shows."""

LOOKS = {"before": "as pruned", "reestimated": "BatchNorm re-estimated", "finetuned": "fine-tuned"}


def pruning(results: Path) -> str:
    measured = read(results / "benchmarks" / "pruning.json")
    if measured is None:
        return NOTHING
    rows = [
        [
            f"{row['route']} ({row['family']}, {row['size']} px)",
            with_error(row["accuracy"], row["standard_error"]),
            f"{row['n']:,}",
            f"{max(row['parameters'].values()):,}",
            f"{row['macs'] / 1e6:.1f}",
            "-" if row["route"] == "designed" else f"{row['against_designed']['p']:.2g}",
        ]
        for row in measured["rows"]
    ]
    head = ("route", "validation accuracy", "n", "parameters", "M MACs", "p against designed")
    return table(head, rows) + "\n\n" + made_by(measured["environment"])


def pruning_speed(results: Path) -> str:
    measured = read(results / "benchmarks" / "pruning_speed.json")
    if measured is None:
        return NOTHING
    rows = [
        [
            f"{row['net']}, {row['version']}",
            str(row["batch"]),
            f"{row['median_ms']:,.2f}",
            f"{row['quartiles_ms'][0]:,.2f} to {row['quartiles_ms'][1]:,.2f}",
            f"{row['speedup']:.2f}",
            f"{row['bytes'] / 1e3:,.0f}",
        ]
        for row in measured["rows"]
    ]
    said = "\n".join(f"- {line}" for line in measured["explanation"])
    head = ("net", "batch", "median, ms", "quartiles, ms", "times as fast", "file, kB")
    return table(head, rows) + f"\n\n{said}\n\n" + made_by(measured["environment"])


def pruning_curve(results: Path, of: str) -> str:
    """A few ratios of the curve of the "teacher" or of the "student", and its picture."""
    folder = results / "benchmarks" / f"pruning-{of}"
    curve = read(folder / "curve.json")
    if curve is None:
        return NOTHING
    points = {(point["method"], point["ratio"]): point for point in curve["points"]}
    methods = list(dict.fromkeys(method for method, _ in points))
    looks = [look for look in LOOKS if any(point[look] for point in points.values())]
    rows = [
        [f"{ratio:g}", *(accuracies(points.get((method, ratio)), looks) for method in methods)]
        for ratio in RATIOS
        if any((method, ratio) in points for method in methods)
    ]
    dense = next(iter(points.values()))
    widest = max(point[look]["standard_error"] for point in points.values() for look in looks if point[look])
    said = (
        f"Validation accuracy {', '.join(LOOKS[look] for look in looks)}; n = {dense['before']['n']:,}, standard "
        f"errors up to {widest:.3f}. "
    )
    picture = f"![{curve['title']}](../results/benchmarks/{folder.name}/curve.svg)"
    return f"{table(('ratio', *methods), rows)}\n\n{said}{made_by(curve['environment'])}\n\n{picture}"


def accuracies(point: dict[str, Any] | None, looks: list[str]) -> str:
    """The accuracies of one net in the order of `looks`, with "-" for what was not measured."""
    if point is None:
        return "-"
    return " / ".join(f"{point[look]['accuracy']:.3f}" if point[look] else "-" for look in looks)


def quantization(results: Path) -> str:
    """A table for each student whose integer forms were measured."""
    parts: list[str] = []
    for path in sorted(results.glob("benchmarks/quantization-*.json")):
        measured = read(path)
        assert measured is not None
        rows = [
            [
                row["name"],
                with_error(row["accuracy"], row["standard_error"], 4),
                "-" if row["name"] == "fp32" else f"{row['mcnemar_p']:.2g}",
                f"{row['agreement']:.1%}",
                f"{row['bytes'] / 1e3:.1f}",
                f"{row['median_ms']:.2f}",
            ]
            for row in measured["rows"]
        ]
        head = ("form", "validation accuracy", "p against fp32", "same class as fp32", "file, kB", "one image, ms")
        said = (
            f"Student of `{path.stem.removeprefix('quantization-')}` ({measured['student']}), "
            f"{measured['rows'][0]['n']:,} validation images, ONNX Runtime {measured['environment']['onnxruntime']}, "
            f"one thread; {epochs_said(measured['epochs'])}; int4 packed: {measured['packed_int4_bytes'] / 1e3:.1f} kB."
        )
        parts.append(f"{said}\n\n{table(head, rows)}\n\n{made_by(measured['environment'])}")
    return "\n\n".join(parts) or NOTHING


def epochs_said(epochs: int) -> str:
    return f"qat: {epochs} epochs of training on integers" if epochs else "no training on integers"


def dynamic(results: Path, name: str) -> str:
    """Each way out alone, and the chosen threshold; then where images leave. `name` is that of the file."""
    measured = read(results / "benchmarks" / f"{name}.json")
    if measured is None:
        return NOTHING
    alone = [row for row in measured["rows"] if row["kind"].endswith("alone")]
    chosen, full = measured["chosen"], measured["reference"]["macs"]
    rows = [
        [row["kind"], with_error(row["accuracy"], row["standard_error"]), f"{row['mean_macs'] / 1e6:.2f}"]
        for row in [*alone, *([chosen] if chosen else [])]
    ]
    said = f"{measured['student']}, {measured['rows'][0]['n']:,} validation images. "
    if chosen:
        places = [f"{share:.1%} at {name}" for share, name in zip(chosen["shares"], measured["left_at"], strict=True)]
        said += (
            f"At the threshold {chosen['threshold']:.2f}, {', '.join(places)} leave: "
            f"{1 - chosen['mean_macs'] / full:.0%} fewer mean MACs than {alone[-1]['kind']}, "
            f"{100 * (measured['reference']['accuracy'] - chosen['accuracy']):.1f} points less accuracy "
            f"(p {chosen['mcnemar_p']:.2g}); {chosen['held_out_accuracy']:.3f} on images that did not choose it. "
        )
    else:
        said += "No threshold has fewer mean MACs at the accuracy asked for. "
    return (
        table(("answer", "validation accuracy", "mean M MACs"), rows) + "\n\n" + said + made_by(measured["environment"])
    )


def cascade(results: Path, name: str) -> str:
    """Each pass alone, and the chosen cascade; `name` is that of the file."""
    measured = read(results / "benchmarks" / f"{name}.json")
    if measured is None:
        return NOTHING
    rows = [measured_pass(f"{row['pass']} alone", row, measured) for row in measured["rows"] if row["kind"] == "static"]
    chosen, full = measured["chosen"], measured["reference"]
    if chosen:
        rows.append(measured_pass(f"{chosen['pass']}, then {full['pass']}", chosen, measured))
    said = f"{measured['student']}, {measured['rows'][0]['n']:,} validation images, one plain view. "
    if chosen:
        said += (
            f"At the threshold {chosen['threshold']:.2f}, {chosen['stopped']:.1%} stop after the first pass: "
            f"{1 - chosen['mean_macs'] / full['macs']:.0%} fewer mean MACs than {full['pass']} alone, "
            f"{100 * (full['accuracy'] - chosen['accuracy']):.1f} points less accuracy; "
            f"{chosen['held_out_accuracy']:.3f} on images that did not choose it. "
        )
    else:
        said += f"No cascade has fewer mean MACs with {100 * measured['drop']:.1f} points less accuracy, or fewer. "
    head = ("pass", "validation accuracy", f"p against {full['pass']}", "mean M MACs")
    return table(head, rows) + "\n\n" + said + made_by(measured["environment"])


def measured_pass(name: str, row: dict[str, Any], measured: dict[str, Any]) -> list[str]:
    """A line of a cascade's table; the full pass is not compared with itself."""
    itself = name == f"{measured['reference']['pass']} alone"
    p = "-" if itself else f"{row['mcnemar_p']:.2g}"
    return [name, with_error(row["accuracy"], row["standard_error"]), p, f"{row['mean_macs'] / 1e6:.2f}"]


def device(results: Path) -> str:
    """Students as C files on emulated boards."""
    measured = read(results / "benchmarks" / "device.json")
    if measured is None:
        return NOTHING
    rows = [
        [
            f"`{row['run']}`" + (f", {row['left_early']:.0%} leave early" if row["threshold"] else ""),
            f"{row['accuracy']:.4f}",
            f"{row['accuracy_fp32']:.4f}",
            f"{row['macs'] / 1e6:.1f}",
            core["core"],
            f"{core['flash']:,}",
            f"{core['ram']:,}",
            f"{row['ram_planned']:,}",
            f"{core['instructions']['median'] / 1e6:.0f}",
        ]
        for row in measured["rows"]
        for core in row["cores"]
    ]
    head = (
        "student", "validation accuracy", "float32", "M MACs", "core", "flash, bytes", "RAM with image", "RAM planned",
        "M instructions",
    )  # fmt: skip
    n = measured["rows"][0]["n"]
    return table(head, rows) + f"\n\nAccuracies on {n:,} images. " + made_by(measured["environment"])


def device_speed(results: Path) -> str:
    """The same C files on a PC, beside ONNX Runtime."""
    measured = read(results / "benchmarks" / "device_speed.json")
    if measured is None:
        return NOTHING
    rows = [
        [
            f"`{row['run']}`",
            one["form"],
            f"{one['median_ms']:.2f} ({one['quartiles_ms'][0]:.2f} to {one['quartiles_ms'][2]:.2f})",
        ]
        for row in measured["rows"]
        for one in row["forms"]
    ]
    return (
        table(("student", "form", "one image, ms"), rows)
        + "\n\nOne thread, all in turns. "
        + made_by(measured["environment"])
    )
