"""How a command stands in help, how a mistake in its words is said, and what is looked for before it begins."""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup
from typer.exceptions import TyperException

from bantam.cli.options import require_data, require_file, require_other, require_path, require_run
from bantam.errors import BantamError, cut

REQUIRED: dict[str, Callable[[Path], object]] = {
    "run": require_run,
    "runs": require_run,
    "reuse": require_run,
    "data": require_data,
    "photographs": require_data,
    "package": require_file,
    "labels": require_file,
    "baselines": require_file,
    "submission": require_file,
}
"""What parameters of these names must be: looked for before a command imports what is heavy."""


WRITTEN = ("out", "probabilities")
"""Parameters of these names are files or folders that a command writes."""

WORDED = re.compile(r"\[default: \((.*?)\)([];])")
"""A default that is told in words, which typer puts in parentheses."""


class Command(TyperCommand):
    """A command whose help is whole, whose mistakes are one line, and whose paths are there before it begins."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The arguments by the names that the docs have for them."""
        return [
            "[OPTIONS]",
            *(shown(one) if one.required else f"[{shown(one)}]" for one in self.params if is_argument(one)),
        ]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments and options, each with its value's name and its whole text."""
        records = [(one, one.get_help_record(ctx)) for one in self.get_params(ctx)]
        arguments = [(shown(one), record[1]) for one, record in records if record and is_argument(one)]
        options = [record for one, record in records if record and not is_argument(one)]
        for title, rows in (("Arguments", arguments), ("Options", options)):
            if rows:
                with formatter.section(title):
                    formatter.write_dl([(name, WORDED.sub(r"[default: \1\2", text)) for name, text in rows])

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **further: Any) -> Any:
        """Read the words. Raises BantamError for what they are not."""
        try:
            return super().make_context(info_name, args, parent, **further)
        except TyperException as error:
            raise BantamError(mistake(error, f"{parent.command_path if parent else 'bantam'} {info_name}")) from error

    def invoke(self, ctx: Any) -> Any:
        """Look for what the words name, and begin. Raises BadData."""
        named = [
            (name, path)
            for name, value in ctx.params.items()
            for path in (value if isinstance(value, list | tuple) else [value])
            if isinstance(path, Path)
        ]
        for name, path in named:
            require_path(path)
            if name in REQUIRED:
                REQUIRED[name](path)
        for name, path in named:
            if name in WRITTEN:
                require_other(path, [other for its, other in named if its not in WRITTEN])
        return super().invoke(ctx)


class Group(TyperGroup):
    """Commands that have a first word in common."""

    def sections(self) -> Mapping[str, Mapping[str, Any]]:
        """The commands under the titles below which help lists them."""
        return {"Commands": self.commands}

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """What each command does, whole."""
        sections = self.sections()
        width = max(len(name) for commands in sections.values() for name in commands)
        for title, commands in sections.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), command.help or "") for name, command in commands.items()])

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Without any words, show help."""
        if not args:
            typer.echo(ctx.get_help())
            raise typer.Exit
        return super().parse_args(ctx, args)

    def make_context(self, *words: Any, **further: Any) -> Any:
        """Read the options before the command. Raises BantamError for others."""
        try:
            return super().make_context(*words, **further)
        except TyperException as error:
            raise BantamError(mistake(error)) from error

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command. Raises BantamError, with those that were meant, where there is none of the name."""
        if args[0] in self.commands or args[0].startswith("-"):
            return super().resolve_command(ctx, args)
        names = {name: f"`{ctx.command_path} {name}`" for name in self.commands}
        for group, command in self.commands.items():
            if isinstance(command, Group):
                names |= {name: f"`{ctx.command_path} {group} {name}`" for name in command.commands}
        raise BantamError(
            f'there is no command "{cut(" ".join([*ctx.command_path.split()[1:], args[0]]))}"'
            f"{meant(args[0], names)}; `{ctx.command_path} --help` lists them"
        )


def is_argument(parameter: Any) -> bool:
    """Whether a parameter stands without an option's name before it."""
    return isinstance(parameter, TyperArgument)


def shown(argument: Any) -> str:
    """What help calls an argument, and that there may be several."""
    name = argument.metavar or argument.name.upper()
    return f"{name}..." if argument.nargs != 1 and "..." not in name else name


def meant(given: str, names: Mapping[str, str]) -> str:
    """The question whether one of `names`, called as its value says, was meant; empty where none is near."""
    near = difflib.get_close_matches(given, names, n=1)
    return f"; did you mean {names[near[0]]}" if near else ""


def mistake(error: TyperException, command: str = "bantam") -> str:
    """What is wrong with the words of `command`, and where to read on."""
    ctx, parameter = getattr(error, "ctx", None), getattr(error, "param", None)
    where = ctx.command_path if ctx else command  # an option without its value is noticed where there is no context yet
    usage = f"`{where} --help` says what there is"
    if hasattr(error, "possibilities"):  # no such option
        name, parameters = str(getattr(error, "option_name", "")), ctx.command.params if ctx else []
        argument = next((one for one in parameters if is_argument(one) and one.name == name.lstrip("-")), None)
        if argument:
            return f"{where} takes {shown(argument)} without {name} before it; {usage}"
        return f"{where} has no option {cut(name)}{meant(name, {one: one for one in options_of(parameters)})}; {usage}"
    if parameter is not None and not error.message:  # it is missing
        name = shown(parameter) if is_argument(parameter) else f"{parameter.opts[0]} {parameter.metavar}"
        return f"{where} needs {name}: {str(parameter.help).rstrip('.')}; {usage}"
    text = " ".join(error.format_message().split()).rstrip(".")
    return f"{where}: {text[:1].lower()}{text[1:]}; {usage}"


def options_of(parameters: Iterable[Any]) -> list[str]:
    """The names of the options among `parameters`."""
    return [name for one in parameters if not is_argument(one) for name in one.opts]
