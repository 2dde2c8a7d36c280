"""The commands about what is handed in: `bantam package`, `bantam verify` and `bantam report`."""

from pathlib import Path
from typing import Annotated

import typer

from bantam.cli.options import (
    BudgetOption,
    DataOption,
    JsonOption,
    print_json,
)

RunArgument = Annotated[Path, typer.Argument(help="A finished run's folder.")]


def package(
    run: RunArgument,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.zip", help="Where to write; by default RUN/hw13.zip.")
    ] = None,
    notebook: Annotated[bool, typer.Option("--notebook", help="Write hw13.ipynb instead of hw13.py.")] = False,
    data: Annotated[
        Path | None, typer.Option("--data", help="Also verify it on these photographs, its own code run.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the code package: one readable file of torch, numpy and Pillow, the weights, and the submission."""
    from bantam.deliver.package.write import package as packaged
    from bantam.deliver.verify.verify import verify as verified

    made = packaged(run, out or run / "hw13.zip", notebook)
    verdict = None if data is None else verified(made.path, data, made.budget, run_code=True)
    if as_json:
        print_json({**made.to_json(), "verified": verdict and verdict.to_json()})
    else:
        typer.echo(f"{made.path}: {', '.join(made.names)}")
        typer.echo(f"the packaged code's net weighs {made.weight.counted:,} of {made.budget:,} parameters")
        typer.echo(verdict.text() if verdict else f"next: bantam verify {made.path} --data DIR --run-code")
    if verdict and not verdict.passed:
        raise typer.Exit(1)


def verify(
    package: Annotated[Path, typer.Argument(metavar="ZIP", help="A code package.")],
    data: DataOption,
    budget: BudgetOption = 60_000,
    run_code: Annotated[
        bool, typer.Option("--run-code", help="Run the package's own code, confined as far as the system can.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check a code package: files, weights, code, submission; with --run-code also the net and its answers."""
    from bantam.deliver.verify.verify import verify as verified

    verdict = verified(package, data, budget, run_code)
    if as_json:
        print_json(verdict.to_json())
    else:
        typer.echo(verdict.text())
    if not verdict.passed:
        raise typer.Exit(1)


def report(
    run: RunArgument,
    data: Annotated[
        Path | None, typer.Option("--data", help="The run's photographs: measures what its files do not hold yet.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE.html", help="Where to write; by default RUN/report/report.html."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write the report: the course's questions answered from the run, as one HTML file and as Markdown."""
    from bantam.deliver.report.report import report as reported
    from bantam.train.runlog import environment

    written = reported(
        run, out or run / "report" / "report.html", data, environment(), lambda line: typer.echo(line, err=True)
    )
    if as_json:
        print_json(written.to_json())
        return
    typer.echo(f"{written.html}\n{written.markdown}, with {len(written.plots)} plots beside it")
    for title in written.missing:
        typer.echo(f"missing in: {title}")
