"""The command lines in README.md, CONTRIBUTING.md and docs/, as a test reads them."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from bantam.cli import main as cli

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

BLOCK = re.compile(r"^ {4,}(?:!|torchrun \S+ -m |!?timeout \S+ )?(bantam(?: .*)?)$", re.MULTILINE)
INLINE = re.compile(r"`(?:!|!?timeout \S+ |[\w./-]*bin/)?(bantam(?: [^`]*)?)`")
TABLE = re.compile(r"<!-- results: .*?<!-- end -->", re.DOTALL)
"""A table made from results/ has the commands of its time, with the paths of its machine."""


def commands() -> dict[str, list[str]]:
    """Every documented command line, without its comment, and the pages that it stands on."""
    found: dict[str, list[str]] = {}
    for page in PAGES:
        text = TABLE.sub("", page.read_text(encoding="utf-8"))
        for match in [*BLOCK.finditer(text), *INLINE.finditer(text)]:
            line = " ".join(re.split(r"\s+#\s", match[1])[0].split())
            found.setdefault(line, []).append(page.name)
    return found


def made_targets() -> set[str]:
    """Every `make TARGET` in the pages."""
    texts = (page.read_text(encoding="utf-8") for page in PAGES)
    found = (re.findall(r"(?:^ {4}|`|, )make ([a-z][a-z-]*)", text, re.MULTILINE) for text in texts)
    return {target for targets in found for target in targets}


def words_of(line: str) -> list[str]:
    """The words after `bantam`, with what is optional in [...] there, and without the dots of PHOTO..."""
    return [word.removesuffix("...") for word in shlex.split(re.sub(r"[\[\]]", "", line))[1:]]


def named_only(line: str) -> bool:
    """Whether a line only names a command, as text does: `bantam prune`."""
    words = words_of(line)
    _, rest = command_of(words)
    return not rest


def command_of(words: Sequence[str]) -> tuple[Any, list[str]]:
    """The command of the real command line that `words` begin with, and the words left. Raises KeyError for none."""
    command: Any = typer.main.get_command(cli.app)
    left = list(words)
    while left and hasattr(command, "commands") and not left[0].startswith("-"):
        command = command.commands[left.pop(0)]
    return command, left


def parse(line: str) -> None:
    """Parse a documented line with the real command's options, running nothing; C is a confidence.

    Raises what the parser raises.
    """
    command, left = command_of(words_of(line))
    if "--help" not in left:
        command.make_context(command.name, ["0.5" if word == "C" else word for word in left])
