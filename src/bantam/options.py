"""What the commands share: options of the same name mean the same everywhere, and JSON is printed in one way."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from bantam.errors import BantamError


def above_zero(option: str) -> Callable[[str], int]:
    """The parser of an option that takes a whole number above 0."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = 0
        if number < 1:
            raise BantamError(f'{option} must be a whole number above 0, not "{text}"')
        return number

    return parse


BudgetOption = Annotated[
    int, typer.Option("--budget", parser=above_zero("--budget"), metavar="N", help="Most parameters.")
]
ClassesOption = Annotated[
    int, typer.Option("--classes", parser=above_zero("--classes"), metavar="N", help="Number of classes.")
]
SizeOption = Annotated[
    int, typer.Option("--size", parser=above_zero("--size"), metavar="N", help="Input size in pixels.")
]
RunArgument = Annotated[Path, typer.Argument(help="A finished run's folder.")]
DataOption = Annotated[Path, typer.Option("--data", help="Folder of photographs.")]
WidthOption = Annotated[
    float | None, typer.Option("--width", help="A width, 0..1, of a student that has several; by default the largest.")
]
SideOption = Annotated[
    int | None,
    typer.Option(
        "--size",
        parser=above_zero("--size"),
        metavar="N",
        help="An input size, pixels, of a student that has several; by default the largest.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Change a key: seed=1, data.size=96, STAGE.epochs=10.")
]


def print_json(value: Any) -> None:
    """Print a plain value as indented JSON."""
    typer.echo(json.dumps(value, indent=2))
