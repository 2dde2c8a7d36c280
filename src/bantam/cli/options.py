"""What the commands share: options of the same name mean the same everywhere, and JSON is printed in one way."""

import json
import re
import shlex
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bantam.errors import BadData, BantamError, cut
from bantam.recipes.keys import LARGEST, PARAMETERS
from bantam.recipes.toml import nearest

if TYPE_CHECKING:
    from bantam.runs.finished import FinishedRun
    from bantam.runs.watcher import Watcher


def whole(option: str, least: int, most: int) -> Callable[[str], int]:
    """The parser of an option that takes a whole number in least..most."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:  # of thousands of digits, too
            number = least - 1
        if number < least:
            wanted = "above 0" if least == 1 else f"of at least {least}"
            raise BantamError(f'{option} must be a whole number {wanted}, not "{cut(text)}"')
        if number > most:
            raise BantamError(f'{option} must be at most {most:,}, not "{cut(text)}"')
        return number

    return parse


def number(option: str, least: float, most: float) -> Callable[[str], float]:
    """The parser of an option that takes a number in least..most."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise BantamError(f'{option} must be a number, not "{cut(text)}"') from None
        if not least <= value <= most:
            raise BantamError(f"{option} = {cut(text)} must lie in {least:g}..{most:g}")
        return value

    return parse


LETTERS = 60
"""Most of a name."""


def line(option: str) -> Callable[[str], str]:
    """The parser of an option that takes a few words."""

    def parse(text: str) -> str:
        words = text.strip()
        if not words or len(words) > LETTERS or not words.isprintable():
            raise BantamError(f'{option} must be one line of at most {LETTERS} letters, not "{cut(text)}"')
        return words

    return parse


def one_of(option: str, names: Iterable[str]) -> Callable[[str], str]:
    """The parser of an option that takes one of `names`."""
    known = tuple(names)

    def parse(text: str) -> str:
        if text not in known:
            raise BantamError(f'{option} takes no "{cut(text)}"{nearest(text, known)}; it takes {", ".join(known)}')
        return text

    return parse


def memory(option: str) -> Callable[[str], int]:
    """The parser of an option that takes bytes: 65536, 64k or 1M, where k is 1,024 as makers of chips count."""

    def parse(text: str) -> int:
        found = re.fullmatch(r"(\d{1,15})\s*([kKmM]?)(?:i?[bB])?", text.strip(), re.ASCII)
        bytes_ = int(found[1]) * {"": 1, "k": 1024, "m": 1024**2}[found[2].lower()] if found else 0
        if bytes_ < 1:
            raise BantamError(f'{option} must be a number of bytes such as 65536, 64k or 1M, not "{cut(text)}"')
        return bytes_

    return parse


RamOption = Annotated[
    int | None,
    typer.Option(
        "--ram", parser=memory("--ram"), metavar="BYTES", help="Most RAM on a small device, as --to c plans it: 64k."
    ),
]
FlashOption = Annotated[
    int | None,
    typer.Option(
        "--flash", parser=memory("--flash"), metavar="BYTES", help="Most flash there, for weights and code: 128k, 1M."
    ),
]
BoardOption = Annotated[
    str | None, typer.Option("--board", metavar="NAME", help="The room of a board instead: nucleo-f446re, ...")
]
BudgetOption = Annotated[
    int, typer.Option("--budget", parser=whole("--budget", 1, PARAMETERS), metavar="N", help="Most parameters.")
]
LARGEST_COST = 10**15
"""Of a limit: more than any machine computes or holds for one image."""

MacsOption = Annotated[
    int | None,
    typer.Option(
        "--macs", parser=whole("--macs", 1, LARGEST_COST), metavar="N", help="Most multiply-accumulates for one image."
    ),
]
ActivationMemoryOption = Annotated[
    int | None,
    typer.Option(
        "--activation-memory",
        parser=whole("--activation-memory", 1, LARGEST_COST),
        metavar="BYTES",
        help="Most bytes of activations for one image.",
    ),
]
BytesOption = Annotated[
    int | None,
    typer.Option("--bytes", parser=whole("--bytes", 1, LARGEST_COST), metavar="BYTES", help="Largest file of weights."),
]
ClassesOption = Annotated[
    int, typer.Option("--classes", parser=whole("--classes", 1, 100_000), metavar="N", help="Number of classes.")
]
SizeOption = Annotated[
    int, typer.Option("--size", parser=whole("--size", 1, LARGEST), metavar="N", help="Input size in pixels.")
]
ImagesOption = Annotated[
    int,
    typer.Option(
        "--images", parser=whole("--images", 0, 10**9), metavar="N", help="Images of a split, drawn evenly; 0 for all."
    ),
]
RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A finished run's folder.")]
RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped recipe's name, or a .toml file.")]
PHOTOGRAPHS = "Folder of photographs, .zip or .tar of one, or table of files and labels."
DataArgument = Annotated[Path, typer.Argument(metavar="DIR", help=PHOTOGRAPHS)]
DataOption = Annotated[Path, typer.Option("--data", metavar="DIR", help=PHOTOGRAPHS)]
RunDataOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="The run's photographs.", show_default="where it remembers them"),
]
NamesOption = Annotated[
    Path | None,
    typer.Option(
        "--classes",
        metavar="FILE",
        help="Names of the classes, one a line.",
        show_default="classes.txt of run or data",
    ),
]
WidthOption = Annotated[
    float | None,
    typer.Option(
        "--width",
        parser=number("--width", 0, 1),
        metavar="SHARE",
        help="A width, 0..1, of a student that has several.",
        show_default="the largest",
    ),
]
SideOption = Annotated[
    int | None,
    typer.Option(
        "--size",
        parser=whole("--size", 1, LARGEST),
        metavar="N",
        help="An input size, pixels, of a student that has several.",
        show_default="the largest",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program to read.")]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", help="Say also how it is computed: precision, threads, what was timed.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key: seed=1, data.size=96, STAGE.epochs=10."),
]


def require_run(folder: Path) -> None:
    """Raise BadData where `folder` is no run's; one that has lost a file is one still."""
    from bantam.runs import runfolder

    if not folder.is_dir():
        raise BadData(f"there is no run {folder}; check the path, or `bantam runs list FOLDER` shows those in a folder")
    if not any((folder / name).exists() for name in (runfolder.STUDENT, runfolder.RESULT)):
        runfolder.recipe(folder)


def require_path(path: Path) -> None:
    """Raise BadData where the system cannot even be asked what is at `path`: it is too long, or not ours to see."""
    try:
        path.exists()
    except OSError as error:
        raise BadData(f"{cut(str(path))} cannot be looked at: {error.strerror or error}; give another path") from error


def require_other(out: Path, read: Iterable[Path]) -> None:
    """Raise BadData where what is to be written to `out` would take the place of a file that is `read`."""
    if out.is_file() and any(path.is_file() and path.samefile(out) for path in read):
        raise BadData(f"{out} is read here, and what is written there would take its place; choose another --out")


def require_data(root: Path) -> None:
    """Raise BadData where there is nothing at `root`."""
    if not root.exists():
        raise BadData(f"{root} does not exist; give the folder that holds the photographs")


def require_file(path: Path) -> None:
    """Raise BadData where `path` is no file."""
    if not path.is_file():
        raise BadData(f"there is no file {path}; check the path")


def next_step(*words: object, why: str = "") -> str:
    """The line that says which command comes next, as a shell takes it, and what it does."""
    return f"next: {shlex.join(map(str, words))}{why and f'  # {why}'}"


def print_study(
    folder: Path,
    data: Path | None,
    study: Callable[["FinishedRun", Path, "Watcher"], dict[str, Any]],
    text: Callable[[dict[str, Any]], str],
    as_json: bool,
) -> None:
    """Do `study` on the run in `folder` and its photographs, and print what it gives: as JSON or as its `text`.

    Its progress is on stderr. Without `data` the photographs are those that the run remembers.
    """
    from rich.console import Console

    from bantam.cli.screen import Bar
    from bantam.runs.finished import open_run

    opened = open_run(folder)
    result = study(opened, opened.photographs(data), Bar(Console(stderr=True)))
    typer.echo(text(result)) if not as_json else print_json(result)
    remark_refit(opened, as_json)


def remark_refit(run: "FinishedRun", as_json: bool) -> None:
    """Say where accuracies on validation flatter what `run` ships."""
    if run.refit_of is not None:
        typer.echo("what ships has trained on validation too (a refit): accuracies there flatter it", err=as_json)


def print_json(value: Any) -> None:
    """Print a plain value as indented JSON."""
    typer.echo(json.dumps(value, indent=2))
