"""The command lines that Bantam's own code says: in messages, in reports, after a command, on the page, in recipes."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from documented import ROOT

SOURCE = ROOT / "src" / "bantam"

STANDS_FOR_A_VALUE = "5"
"""What an f-string fills in: as a path, a name or a number."""

TICKED = re.compile(r"`(bantam [^`]*)`")
BARE = re.compile(r"(?<![\w./`-])bantam (?=[a-z])[^`;<\n]*")
"""A command that stands in a text without its ticks, so that no test would find it."""

DOCUMENTS_COMMANDS = re.compile(r"^# command +(bantam .*)$", re.MULTILINE)


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """Every text in a source file that is no docstring, with its line; what f-strings fill in is STANDS_FOR_A_VALUE."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    silent = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings, of attributes too
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if id(node) in silent and isinstance(node, ast.Constant):
            continue
        if isinstance(node, ast.JoinedStr):
            parts = (str(one.value) if isinstance(one, ast.Constant) else STANDS_FOR_A_VALUE for one in node.values)
            yield node.lineno, "".join(parts)
            waiting += [one for one in node.values if isinstance(one, ast.FormattedValue)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
        else:
            waiting += ast.iter_child_nodes(node)


def hints() -> dict[str, list[str]]:
    """Every command line that the code says in ticks, and after "# command" in a recipe; and where."""
    found: dict[str, list[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        for line, text in texts(path):
            for said in [*TICKED.findall(text), *DOCUMENTS_COMMANDS.findall(text)]:
                found.setdefault(said, []).append(f"{path.relative_to(ROOT)}:{line}")
    for path in sorted((SOURCE / "recipes").glob("*.toml")):
        for said in DOCUMENTS_COMMANDS.findall(path.read_text(encoding="utf-8")):
            for one in re.split(r", then (?=bantam )", said):
                found.setdefault(re.sub(r" chooses .*", "", one), []).append(str(path.relative_to(ROOT)))
    return found


def without_ticks() -> list[str]:
    """Where a text says a command that is not in ticks."""
    found = [(path, line, text) for path in sorted(SOURCE.rglob("*.py")) for line, text in texts(path)]
    left = ((path, line, TICKED.sub("", DOCUMENTS_COMMANDS.sub("", text))) for path, line, text in found)
    return [f"{path.relative_to(ROOT)}:{line}: {said}" for path, line, text in left for said in BARE.findall(text)]
