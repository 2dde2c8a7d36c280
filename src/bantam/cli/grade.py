"""The commands that judge a submission: `bantam grade` and `bantam leaderboard`."""

from pathlib import Path
from typing import Annotated

import typer

from bantam.cli.options import (
    JsonOption,
    print_json,
    whole,
)

RevealOption = Annotated[bool, typer.Option("--reveal", help="Show the private scores too: it cannot be unseen.")]


def grade(
    submission: Annotated[Path, typer.Argument(metavar="FILE", help="CSV with the header Id,Category.")],
    labels: Annotated[Path, typer.Option("--labels", metavar="FILE", help="CSV with Id,Category and perhaps Usage.")],
    baselines: Annotated[
        Path | None,
        typer.Option(
            "--baselines", metavar="FILE", help="TOML or CSV of names and thresholds instead of the course's."
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Enter it into the leaderboard beside the labels; its private score stays hidden."
        ),
    ] = None,
    per_day: Annotated[
        int,
        typer.Option(parser=whole("--per-day", 1, 10**6), metavar="N", help="With --name: submissions taken a day."),
    ] = 5,
    reveal: Annotated[bool, typer.Option("--reveal", help="With --name: show private scores too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Grade a submission: accuracy with standard error overall and for both halves, baselines passed, points."""
    if name is not None:
        enter(submission, labels, name, per_day, reveal, baselines, as_json)
        return
    from bantam.deliver.grade import grade as graded

    result = graded(submission, labels, baselines)
    if as_json:
        print_json(result.to_json())
    else:
        typer.echo(result.text())


def leaderboard(
    labels: Annotated[
        Path, typer.Argument(metavar="LABELS", help="The CSV of labels beside which the leaderboard is.")
    ],
    reveal: RevealOption = False,
    baselines: Annotated[
        Path | None,
        typer.Option(
            "--baselines", metavar="FILE", help="TOML or CSV of names and thresholds instead of the course's."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the history of submissions, best public score first, with baselines and what is within noise."""
    from bantam.deliver.grade import BASELINES, read_baselines
    from bantam.deliver.leaderboard import board_of, entries, standing, text

    thresholds = BASELINES if baselines is None else read_baselines(baselines)
    rows = standing(entries(board_of(labels)), thresholds, reveal=reveal)
    if as_json:
        print_json(rows)
    else:
        typer.echo(text(rows))


def enter(
    submission: Path, labels: Path, name: str, per_day: int, reveal: bool, baselines: Path | None, as_json: bool
) -> None:
    """Grade `submission`, enter it as `name`, and show its public score and where it stands."""
    from datetime import UTC, datetime

    from bantam.deliver.grade import BASELINES, mark, read_baselines
    from bantam.deliver.leaderboard import board_of, entries, standing, submit, text

    thresholds = BASELINES if baselines is None else read_baselines(baselines)
    board = board_of(labels)
    entered = submit(board, name, mark(submission, labels), datetime.now(UTC), per_day)
    rows = standing(entries(board), thresholds, reveal=reveal)
    mine = next(
        row for row in rows if (row.get("name"), row.get("at")) == (entered.entry.name, entered.entry.at.isoformat())
    )
    if as_json:
        print_json({**mine, "repeated": entered.repeated, "today": entered.today, "per_day": entered.per_day})
        return
    typer.echo(text(rows))
    if entered.repeated:
        typer.echo(
            f"these predictions were entered before, as {mine['name']}, at place {mine['place']}: nothing is new"
        )
    else:
        typer.echo(f"{name} is at place {mine['place']}; submission {entered.today} of {entered.per_day} today")
