"""The command line: the table of all verbs, and what a person sees of an error. Commands import what is heavy."""

import io
import os
import signal
import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from typing import Annotated, Any

import typer

from bantam.cli.command import Command, Group
from bantam.errors import BantamError
from bantam.tables import Table

GROUPS = {
    "data": "Check and prepare a folder of photographs.",
    "teacher": "Look at a teacher.",
    "recipes": "The recipes that come with Bantam.",
    "runs": "The runs in a folder.",
    "bench": "Measure training, and what finished students cost.",
}
"""The commands that have commands of their own."""

SECTIONS = {
    "Train": {
        "fit": "fit:fit",
        "demo": "fit:demo",
        "run": "train:run",
        "search": "train:search",
        "recipes list": "look:recipes_list",
        "recipes show": "look:recipes_show",
        "recipes copy": "look:recipes_copy",
    },
    "Look": {
        "data check": "look:data_check",
        "data prepare": "look:data_prepare",
        "teacher audit": "look:teacher_audit",
        "runs list": "look:runs_list",
        "summary": "look:summary",
        "students": "cost:students",
        "bench train": "train:bench_train",
        "bench cost": "cost:cost",
    },
    "Deliver": {
        "predict": "predict:predict",
        "serve": "deliver:serve",
        "handin": "deliver:handin",
        "report": "deliver:report",
        "export": "deliver:export",
        "package": "deliver:package",
        "verify": "deliver:verify",
        "grade": "grade:grade",
        "leaderboard": "grade:leaderboard",
    },
    "Compress": {
        "prune": "compress:prune",
        "bench pruning": "cost:pruning",
        "quantize": "compress:quantize",
    },
    "Study what an image needs": {
        "exits": "dynamic:exits",
        "views": "dynamic:views",
        "cascade": "dynamic:cascade",
        "slim": "dynamic:slim",
    },
}
"""Every command, by what people do, in the order in which `bantam --help` lists them."""

COMMANDS: Table[Callable[..., Any]] = Table(
    "bantam.cli", {name: place for section in SECTIONS.values() for name, place in section.items()}
)

INTERRUPTED = 130
"""Exit status after Ctrl-C."""

LACK_OF_MEMORY = (
    "failed to map segment", "allocate memory", "out of memory", "bad_alloc", "not enough memory",
    "can't start new thread", "thread resources",
)  # fmt: skip
"""What libraries, the system and torch say in the same case."""


def print_version(asked: bool) -> None:
    """Print the version of Bantam, and end."""
    if asked:
        from bantam.runs.environment import version

        typer.echo(f"bantam {version('bantam') or 'of a checkout that is not installed'}")
        raise typer.Exit


def options(
    _version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """The most accurate image classifier that fits a hard budget: 60,000 parameters by default."""


class Root(Group):
    """The command line as a whole."""

    def sections(self) -> dict[str, dict[str, Any]]:
        """Every command under what people do."""
        return {title: {name: self.named(name) for name in section} for title, section in SECTIONS.items()}

    def named(self, name: str) -> Any:
        """The command of this name."""
        command: Any = self
        for word in name.split():
            command = command.commands[word]
        return command

    def main(self, *words: Any, **further: Any) -> Any:
        """Begin, under one name however it was started."""
        return super().main(*words, **{**further, "prog_name": "bantam"})


def assembled() -> typer.Typer:
    """The command line of COMMANDS."""
    made = typer.Typer(
        name="bantam",
        cls=Root,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    made.callback()(options)
    groups = {"": made}
    for name, command in COMMANDS.items():
        group, _, verb = name.rpartition(" ")
        if group not in groups:
            groups[group] = typer.Typer(help=GROUPS[group], cls=Group)
            made.add_typer(groups[group], name=group)
        groups[group].command(verb, cls=Command)(command)
    return made


app = assembled()


TORCH_TAKES = 3_500_000_000
"""Bytes of addresses that importing torch takes: with fewer it fails, or ends the process without a word."""


class BeforeTorch(MetaPathFinder):
    """Asks before torch is imported whether this process may have the memory, and says what a person waits for."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        """Find nothing: others do. Raises MemoryError."""
        if fullname != "torch":
            return
        if sys.platform != "win32":
            import resource

            limit, _ = resource.getrlimit(resource.RLIMIT_AS)
            if limit != resource.RLIM_INFINITY and limit < TORCH_TAKES:
                raise MemoryError(f"this process may have {limit / 1e9:.1f} GB, torch takes {TORCH_TAKES / 1e9:.1f}")
        if sys.stderr.isatty() and os.environ.get("RANK", "0") == "0":  # of several processes one
            print("loading PyTorch ...", file=sys.stderr, flush=True)


def main() -> None:
    """Run the command line; an error that a user can cause is one line on stderr and exit status 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and (stream.encoding, stream.errors) != ("utf-8", "surrogateescape"):
            stream.reconfigure(errors="backslashreplace")  # a terminal may not know a letter of a file's name
    if not any(isinstance(finder, BeforeTorch) for finder in sys.meta_path):
        sys.meta_path.insert(0, BeforeTorch())
    try:
        app()
    except BantamError as error:
        print(f"bantam: {error}", file=sys.stderr)
        sys.exit(1)
    except SystemExit as ended:  # typer turns an interrupt into this
        if ended.code == INTERRUPTED:
            # Taking torch down takes a second or two, in which people press Ctrl-C again.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            print("bantam: stopped; run the same command again to go on", file=sys.stderr)
        raise
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if (lack := lack_of_memory(error)) is None:
            raise
        print(f"bantam: there is too little memory ({lack}); end other programs or raise the limit", file=sys.stderr)
        sys.exit(1)


def lack_of_memory(error: BaseException | None) -> str | None:
    """What `error`, or one behind it, says of memory that is not there; None where that is not the matter."""
    while error is not None:
        said = " ".join(str(error).split())
        if isinstance(error, MemoryError) or any(words in said for words in LACK_OF_MEMORY):
            return said[-160:] or "memory is exhausted"
        error = error.__cause__ or error.__context__
    return None


if __name__ == "__main__":
    main()
