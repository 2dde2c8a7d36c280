"""The tables about `bantam fit`, from results/benchmarks/."""

from pathlib import Path
from typing import Any

from markdown_tables import NOTHING, made_by, read, table, with_error


def pretrained(results: Path) -> str:
    study = read(results / "benchmarks" / "pretrained.json")
    if study is None:
        return NOTHING
    rows: dict[int, list[str]] = {}
    for row in study["rows"]:
        cells = rows.setdefault(row["budget"], [f"{row['budget']:,}"])
        cells += [f"{row['curve'][3]:.3f}", with_error(row["accuracy"], row["standard_error"])]
    starts = dict.fromkeys(row["start"] for row in study["rows"])
    epochs = study["epochs"]
    head = ("budget", *(f"{start}, {when} epochs" for start in starts for when in (4, epochs)))
    (n,) = {row["n"] for row in study["rows"]}
    below = f"{study['each']} training images of each of 10 classes, n = {n:,}, one seed. "
    return table(head, list(rows.values())) + "\n\n" + below + made_by(study["environment"])


def fits(results: Path) -> str:
    """Each fit by the time that it was asked for, and each recipe, in minutes of the machine."""
    study = read(results / "benchmarks" / "fit.json")
    if study is None:
        return NOTHING
    rows = [fit_cells(row) for row in study["rows"]]
    rows += [
        [
            row["recipe"],
            "yes" if row["recipe"] != "simple" else "no",
            f"{row['seconds'] / 60:.1f}",
            "-",
            str(row["epochs"]),
            with_error(row["accuracy"], row["standard_error"]),
        ]
        for row in study["recipes"]
    ]
    head = ("what", "given teacher", "minutes", "student", "epochs", "accuracy")
    (n,) = {row["n"] for row in (*study["rows"], *study["recipes"]) if "failed" not in row}
    return table(head, rows) + f"\n\nn = {n:,}, one seed. " + made_by(study["environment"])


def fit_cells(row: dict[str, Any]) -> list[str]:
    """A row of the table of fits; of one that failed why it did."""
    what, taught = f"`--time {row['time']}`", "yes" if row["taught"] else "no"
    if "failed" in row:
        return [what, taught, "-", "-", "-", row["failed"]]
    return [
        what,
        taught,
        f"{row['seconds'] / 60:.1f}",
        f"{row['student']}, {row['size']} px",
        str(row["epochs"]),
        f"{with_error(row['accuracy'], row['standard_error'])}, {row['tta']}",
    ]


def trainers(results: Path) -> str:
    """Each net that was trained on the photographs of a fit: what a person did for it, and what it reached."""
    study = read(results / "benchmarks" / "trainers.json")
    if study is None:
        return NOTHING
    head = (
        "trainer",
        "net",
        "px",
        "commands",
        "by hand",
        "minutes (training)",
        "epochs",
        "parameters",
        "accuracy",
        "as shipped",
    )
    versions = ", ".join(f"{name} {version}" for name, version in study["versions"].items())
    images, (n,) = study["images"], {row["n"] for row in study["rows"] if "failed" not in row}
    below = (
        f"{study['photographs']}: {images['train']:,} to learn from, n = {n:,}, one seed; {study['asked']} for each. "
        f"{versions}. "
    )
    rows = [trainer_cells(row, len(head)) for row in study["rows"]]
    return table(head, rows) + "\n\n" + below + made_by(study["environment"])


def trainer_cells(row: dict[str, Any], columns: int) -> list[str]:
    """A row of the table of trainers; of a training that failed why it did."""
    if "failed" in row:
        return [row["trainer"], f"failed: {row['failed']}", *["-"] * (columns - 2)]
    shipped = row.get("shipped")
    return [
        row["trainer"],
        row["net"],
        str(row["size"]),
        str(len(row["commands"])),
        ", ".join(row["by_hand"]) or "-",
        f"{row['seconds'] / 60:.1f} ({row['training_seconds'] / 60:.1f})",
        str(row["epochs"]),
        f"{row['parameters']:,}",
        with_error(row["accuracy"], row["standard_error"]),
        f"{with_error(shipped['accuracy'], shipped['standard_error'])}, {shipped['tta']}" if shipped else "-",
    ]
