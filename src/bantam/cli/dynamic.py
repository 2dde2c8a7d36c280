"""The commands about computing only as much as an image needs: `bantam exits`, `views`, `cascade` and `slim`."""

from typing import Annotated

import typer

from bantam.cli.options import (
    LARGEST_COST,
    JsonOption,
    RunArgument,
    RunDataOption,
    number,
    print_study,
    whole,
)

DropOption = Annotated[
    float,
    typer.Option(
        parser=number("--drop", 0, 1),
        metavar="SHARE",
        help="Most accuracy, 0..1, that the saving may cost on validation.",
    ),
]
ConfidenceOption = Annotated[
    float | None,
    typer.Option(
        parser=number("--confidence", 0, 1),
        metavar="SHARE",
        help="Measure this threshold, 0..1, instead of choosing one.",
    ),
]
MeanMacsOption = Annotated[
    int | None,
    typer.Option(
        "--macs",
        parser=whole("--macs", 1, LARGEST_COST),
        metavar="N",
        help="Instead of --drop: most multiply-accumulates of an image, in the mean.",
    ),
]


def exits(
    run: RunArgument,
    data: RunDataOption = None,
    drop: DropOption = 0.003,
    macs: MeanMacsOption = None,
    confidence: ConfidenceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a student's early exits, accuracy against mean MACs, and choose the threshold that `serve` uses."""
    from bantam.studies.exits import exits as measured
    from bantam.studies.exits import text

    print_study(run, data, lambda opened, root, bar: measured(opened, root, drop, macs, confidence, bar), text, as_json)


def views(
    run: RunArgument,
    data: RunDataOption = None,
    most: Annotated[
        str | None,
        typer.Option(
            "--views", metavar="NAME", help="The whole way: flip, zoom or crops.", show_default="the run's own choice"
        ),
    ] = None,
    drop: DropOption = 0.003,
    macs: MeanMacsOption = None,
    confidence: ConfidenceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take further TTA crops only when unsure: accuracy against mean MACs, and a threshold for predict."""
    from bantam.studies.exits import text
    from bantam.studies.tta import tta as measured

    print_study(
        run,
        data,
        lambda opened, root, bar: measured(opened, root, most, drop, macs, confidence, bar),
        text,
        as_json,
    )


def cascade(
    run: RunArgument,
    data: RunDataOption = None,
    drop: DropOption = 0.003,
    confidence: ConfidenceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Try a low resolution first and the full one only when unsure: accuracy against mean MACs."""
    from bantam.studies.cascade import cascade as measured
    from bantam.studies.cascade import text

    print_study(run, data, lambda opened, root, bar: measured(opened, root, drop, confidence, bar), text, as_json)


def slim(
    run: RunArgument,
    data: RunDataOption = None,
    drop: DropOption = 0.003,
    confidence: ConfidenceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the widths and sizes of one student, alone and first in a cascade: accuracy against mean MACs."""
    from bantam.studies.cascade import text
    from bantam.studies.slim import slim as measured

    print_study(run, data, lambda opened, root, bar: measured(opened, root, drop, confidence, bar), text, as_json)
