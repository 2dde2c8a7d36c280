"""The commands `fit` and `demo`: from photographs to everything, in the time that there is."""

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bantam.cli.options import (
    ActivationMemoryOption,
    BoardOption,
    BudgetOption,
    BytesOption,
    FlashOption,
    JsonOption,
    MacsOption,
    RamOption,
    next_step,
    print_json,
    whole,
)
from bantam.errors import BadData, TooShort
from bantam.recipes.keys import LARGEST, SMALLEST

if TYPE_CHECKING:
    from bantam.fit.asked import Asked

DEMO_TIME = "2m"
"""What `bantam demo` takes."""


def fit(
    photographs: Annotated[
        Path,
        typer.Argument(metavar="PHOTOS", help="Folder, .zip or .tar of photographs, or table of files and labels."),
    ],
    budget: BudgetOption = 60_000,
    within: Annotated[
        str, typer.Option("--time", metavar="TIME", help="How long it may take: 90s, 30m, 1h30m.")
    ] = "1h",
    out: Annotated[
        Path, typer.Option("--out", metavar="RUN", help="Folder of the run; a fit that was stopped goes on in it.")
    ] = Path("runs/fit"),
    teacher: Annotated[
        Path | None, typer.Option(metavar="CKPT", help="Weights of a classifier of these photographs, to learn from.")
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            "--size", parser=whole("--size", SMALLEST, LARGEST), metavar="N", help="Input, pixels; by default as fits."
        ),
    ] = None,
    macs: MacsOption = None,
    activation_memory: ActivationMemoryOption = None,
    file_bytes: BytesOption = None,
    ram: RamOption = None,
    flash: FlashOption = None,
    board: BoardOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make the best student for your photographs in a given time: plan, train, choose, export, report."""
    from bantam.fit.asked import Asked, seconds_of, time_text

    began = time.monotonic()
    wishes = (budget, macs, activation_memory, file_bytes, size)
    guide = None if teacher is None else str(teacher.absolute())
    asked = Asked(seconds_of(within), *wishes, teacher=guide, ram=ram, flash=flash, board=board)
    if teacher is not None and not (teacher.exists() or (teacher.parent / teacher.name.partition("#")[0]).exists()):
        raise BadData(f"there is no {teacher}; check the path, or leave --teacher out")
    if not as_json:  # before torch is loaded
        typer.echo(f"fit on {photographs}, {time_text(asked.seconds)}, into {out}")
    result = fitted(photographs, asked, out, began, as_json)
    if as_json:
        print_json(result)
        return
    typer.echo(page_text(result))
    typer.echo(next_step("bantam", "predict", "PHOTO", "--run", out, why="the class of a photograph"))
    typer.echo(next_step("bantam", "serve", out, why="the same in a local page"))


def demo(
    out: Annotated[
        Path, typer.Option("--out", metavar="FOLDER", help="Folder for everything that the demo makes.")
    ] = Path("runs/demo"),
) -> None:
    """Run a fit in minutes, on scikit-learn's digits: a student of 5,000 parameters, its files, and a grade."""
    typer.echo(f"demo on scikit-learn's digits, into {out}")  # before torch is loaded

    from bantam.data import embedded
    from bantam.deliver.grade import grade
    from bantam.fit.asked import Asked, seconds_of
    from bantam.fit.kept import seconds_in
    from bantam.runs.finished import open_run

    began = time.monotonic()
    labels = embedded.write_digits(out / "digits")
    asked = Asked(seconds_in(out / "run") or seconds_of(DEMO_TIME), parameters=5_000)
    try:
        result = fitted(out / "digits", asked, out / "run", began)
    except TooShort as error:  # on a machine that is slow, or busy, the demo takes longer
        typer.echo(f"this machine needs longer: {error}")
        result = fitted(out / "digits", replace(asked, seconds=2 * error.enough), out / "run", time.monotonic())
    made = open_run(out / "run")
    graded = grade(made.submission, labels)
    typer.echo(page_text(result))
    typer.echo(f"held-back labels: {graded.overall}, n = {graded.overall.n:,}")
    typer.echo(next_step("bantam", "serve", out / "run", why="a page that classifies digits"))
    typer.echo("for photographs of your own: `bantam fit PHOTOS --time 30m`")


def fitted(photographs: Path, asked: "Asked", out: Path, began: float, as_json: bool = False) -> dict[str, Any]:
    """The fit, begun at the time `began` of time.monotonic(), shown on the terminal; on stderr with JSON."""
    from rich.console import Console

    from bantam.cli.fitting import FitBar
    from bantam.fit.whole import fit as whole_fit

    bar = FitBar(Console(stderr=as_json))
    try:
        return whole_fit(photographs, asked, out, bar, began)
    finally:
        bar.close()


def page_text(page: dict[str, Any]) -> str:
    """How good the student is, beside what it has to beat, what it costs, and where its files are."""
    from bantam.cli.screen import with_error

    limits = f"{page['bytes'] / 1e3:,.0f} kB, {page['macs'] / 1e6:,.1f} million MACs, {page['ms']:.1f} ms here"
    lines = {
        "accuracy": f"{with_error(page['accuracy'], page['standard_error'])} on {page['n']:,} validation photographs, "
        f"TTA {page['tta']} ({page['plain']:.3f} in one pass)",
        "largest class": f"{page['largest_class']:.3f} by always saying it",
    }
    for name, judged in page["teachers"].items():
        lines[name] = f"{with_error(judged['accuracy'], judged['standard_error'])} in one pass"
    lines["student"] = f"{page['student']}, {page['size']} px, {page['classes']} classes"
    lines["cost"] = f"{page['parameters']:,} of {page['budget']:,} parameters, {limits}"
    if device := page.get("device"):
        lines["on a device"] = f"{device['ram']:,} bytes of RAM, {device['flash']:,} of flash, beside image and program"
    for form, told in page["exports"].items():
        lines[form] = f"{told['file']}, {told['bytes']:,} bytes" if "file" in told else told["failed"]
    lines["report"] = page["report"]
    if page.get("predictions"):
        lines["predictions"] = f"{page['predictions']}, of the photographs without labels"
    return "\n".join(f"{name:<14} {text}" for name, text in lines.items())
