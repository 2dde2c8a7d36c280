"""The commands about cost: `bantam students`, `bantam bench cost` and `bantam bench pruning`."""

from pathlib import Path
from typing import Annotated

import typer

from bantam.cli.options import (
    ActivationMemoryOption,
    BoardOption,
    BudgetOption,
    BytesOption,
    ClassesOption,
    FlashOption,
    JsonOption,
    MacsOption,
    RamOption,
    RunArgument,
    RunDataOption,
    SizeOption,
    next_step,
    number,
    print_json,
    whole,
)

TOURNAMENT = Path("results") / "benchmarks" / "families.json"
"""What benchmarks/families.py writes, from the root of a checkout."""


def students(
    budget: BudgetOption = 60_000,
    size: SizeOption = 64,
    classes: ClassesOption = 11,
    macs: MacsOption = None,
    activation_memory: ActivationMemoryOption = None,
    file_bytes: BytesOption = None,
    ram: RamOption = None,
    flash: FlashOption = None,
    board: BoardOption = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE.svg", help="Also draw the tournament's accuracies against MACs."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show every family's largest student within the limits: parameters, MACs, memory, latency on one CPU thread."""
    if plot is not None:
        from bantam.measure.plots import plot_accuracy_against_macs, require_svg, tournament_rows

        require_svg(plot)
        plot_accuracy_against_macs(tournament_rows(TOURNAMENT), plot)

    from dataclasses import asdict

    from bantam.cli.screen import cost_text
    from bantam.measure.cost import Fitted, families
    from bantam.nets.device.boards import room
    from bantam.nets.limits import Limits

    limits = Limits(budget, macs, activation_memory, file_bytes, *room(board, ram, flash, size))
    found = families(limits, classes, size)
    if as_json:
        rows = {name: row.to_json() if isinstance(row, Fitted) else {"reason": str(row)} for name, row in found.items()}
        print_json({"limits": asdict(limits), "classes": classes, "size": size, "threads": 1, "families": rows})
    else:
        typer.echo(cost_text({name: row.cost if isinstance(row, Fitted) else str(row) for name, row in found.items()}))
        if plot is not None:
            typer.echo(f"plot: {plot}")
        if fitting := [name for name, row in found.items() if isinstance(row, Fitted)]:
            words = ["bantam", "summary", fitting[0], "--budget", budget, "--classes", classes, "--size", size]
            typer.echo(next_step(*words, why="its layers, as those of every family"))


def cost(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs.")],
    as_json: JsonOption = False,
) -> None:
    """Show what finished runs' students cost, side by side, and how fast each form of theirs is on this machine."""
    from bantam.cli.screen import cost_text
    from bantam.deliver.export.speeds import form_speeds, speeds_text
    from bantam.runs.finished import open_run
    from bantam.studies.cost import run_costs

    found = run_costs([open_run(run) for run in runs])
    speeds = {run: form_speeds(run) for run in found}
    if as_json:
        forms = {run: {"forms": [speed.to_json() for speed in speeds[run]]} for run in found}
        print_json({str(run): {**row.to_json(), **forms[run]} for run, row in found.items()})
        return
    typer.echo(
        cost_text(
            {str(run): row.cost for run, row in found.items()},
            {str(run): row.validation for run, row in found.items()},
        )
    )
    typer.echo("one image, one thread, one pass: the accuracy is that without flip, which would take a second pass")
    for run in found:
        if run.refit_of is not None:
            typer.echo(
                f"{run} was refitted on validation too: its accuracy is that of the stage before, {run.refit_of}"
            )
    for run, measured in speeds.items():
        typer.echo(f"\n{run}, one thread, all in turns, median and quartiles\n{speeds_text(measured)}")


def pruning(
    run: RunArgument,
    data: RunDataOption = None,
    ratio: Annotated[
        float,
        typer.Option(
            parser=number("--ratio", 0.01, 0.99), metavar="SHARE", help="Share of the parameters that pruning removes."
        ),
    ] = 0.8,
    rounds: Annotated[
        int,
        typer.Option(parser=whole("--rounds", 2, 10_000), metavar="N", help="Turns of each version; quartiles need 2."),
    ] = 15,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FILE.json",
            help="File to write; the report reads the default.",
            show_default="RUN/pruning/pruning_speed.json",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show whether pruning makes a run's given teacher and student faster: masked, stored sparse, fewer channels."""
    from rich.console import Console

    from bantam.cli.screen import Bar
    from bantam.runs.finished import open_run
    from bantam.studies.pruning_speed import nets_of, pruning_speed, text

    opened = open_run(run)
    where = out or opened.pruning_speed
    root = opened.photographs(data)
    result = pruning_speed(nets_of(opened, root), root, ratio, rounds, where, Bar(Console(stderr=True)))
    if as_json:
        print_json(result)
        return
    typer.echo(f"{text(result)}\n{where}\n{next_step('bantam', 'report', run, '--data', root)}")
