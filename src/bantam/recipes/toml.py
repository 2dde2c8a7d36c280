"""TOML as people see it: what can be a recipe at all, where a key stands, the nearest name, `--set key=value`."""

import datetime
import difflib
import math
import re
import tomllib
import typing
from typing import Any

from bantam.errors import BadRecipe, cut
from bantam.recipes.meant import meant

Place = tuple[str | int, ...]
"""The keys and places in lists that lead to a value."""

NAMES = {int: "a whole number", float: "a number", str: "a text in quotes", bool: "true or false"}
OTHERS = {
    dict: "a table",
    list: "a list",
    datetime.datetime: "a date and time",
    datetime.date: "a date",
    datetime.time: "a time",
}

# Fifty stages with every key written out have two thirds of these characters. What is larger is no recipe, and what is
# long or deep makes a parser slow, or ends it.
LARGEST = 100_000
LONGEST_LINE = 1000
LONGEST_TEXT = 400
LONGEST_LIST = 50
DEEPEST = 8
DEEP_KEY = re.compile(rf"""[\s\[]*(?:\s*(?:"[^"]*"|'[^']*'|[\w-]+)\s*\.){{{DEEPEST}}}""")
LARGEST_NUMBER = 2**63 - 1


def tables(text: str, source: str) -> dict[str, Any]:
    """The values of the TOML `text`. Raises BadRecipe with `source` and the line."""
    if len(text) > LARGEST:
        raise BadRecipe(f"{source}: longer than {LARGEST:,} characters; that is no recipe")
    for number, line in enumerate(text.splitlines(), start=1):
        if len(line) > LONGEST_LINE:
            raise BadRecipe(f"{source}:{number}: a line of {len(line):,} characters; give at most {LONGEST_LINE:,}")
        if DEEP_KEY.match(line):
            raise BadRecipe(f"{source}:{number}: a key nested deeper than {DEEPEST} levels")
    try:
        return tomllib.loads(text)
    except ValueError as error:
        place = re.search(r"at line (\d+)", str(error))
        raise BadRecipe(f"{source}{f':{place[1]}' if place else ''}: not valid TOML: {error}") from error
    except RecursionError as error:
        raise BadRecipe(f"{source}: nested deeper than any recipe; give at most {DEEPEST} levels") from error


def unsound(values: dict[str, Any]) -> tuple[Place, str] | None:
    """The first key or value that no key of a recipe can be or have, and what is wrong with it."""
    waiting: list[tuple[Place, Any]] = [((), values)]
    while waiting:
        path, value = waiting.pop()
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        if items and len(path) >= DEEPEST:
            return path, f"{dotted(path)} is nested deeper than {DEEPEST} levels"
        if isinstance(value, list) and len(value) > LONGEST_LIST:
            return path, f"{dotted(path)} holds {len(value):,} values; give at most {LONGEST_LIST}"
        if isinstance(value, str) and not (len(value) <= LONGEST_TEXT and value.isprintable()):
            return path, f"{dotted(path)} must be one line of at most {LONGEST_TEXT} printable characters"
        if isinstance(value, float) and not math.isfinite(value):
            return path, f"{dotted(path)} = {value} must be a finite number"
        if isinstance(value, int) and abs(value) > LARGEST_NUMBER:
            return path, f"{dotted(path)} = {shown(value)} is too large a number"
        if isinstance(value, datetime.date | datetime.time):
            return path, f"{dotted(path)} cannot be {describe(value)}"
        if isinstance(value, dict):
            for name in value:
                if not (0 < len(name) <= LONGEST_TEXT and name.isprintable()):
                    return (*path, name), f"{dotted((*path, name))}: a key must be one line of printable characters"
        waiting += reversed([((*path, name), item) for name, item in items])
    return None


def shown(value: Any) -> str:
    """`value` as an error shows it: as Python writes it, and its beginning if it is long."""
    return cut(repr(value))


def describe(value: Any) -> str:
    """The kind of a TOML value and, where it is short, the value."""
    if type(value) in OTHERS:
        return OTHERS[type(value)]
    return f"{NAMES[type(value)]} ({shown(value)})"


def dotted(path: Place) -> str:
    """`stage[1].optimizer.lr` for ("stage", 1, "optimizer", "lr")."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def line_of(text: str, path: Place) -> int:
    """The line (from 1) in TOML `text` where the value at `path` stands, or else what holds it; 0 if nothing does."""
    # Texts over several lines are no keys; their lines stay, empty.
    text = re.sub(r"(\"{3}|'{3}).*?\1", lambda found: "\n" * found[0].count("\n"), text, flags=re.DOTALL)
    lines = text.splitlines()
    while path:
        if number := _line_of(lines, path):
            return number
        path = path[:-1]
    return 0


def _line_of(lines: list[str], path: Place) -> int:
    *table, name = path
    current: list[str | int] = []
    arrays: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if header := re.match(r"\s*\[\[\s*([\w.-]+)\s*\]\]", line):
            arrays[header[1]] = arrays.get(header[1], -1) + 1
            current = [header[1], arrays[header[1]]]
        elif header := re.match(r"\s*\[\s*([\w.-]+)\s*\]", line):
            parts: list[str | int] = list(header[1].split("."))
            current = [parts[0], arrays[str(parts[0])], *parts[1:]] if parts[0] in arrays else parts
        elif current == table and re.match(rf"\s*[\"']?{re.escape(str(name))}[\"']?\s*[=.]", line):
            return number
        if current[: len(path)] == list(path):
            return number
    return 0


def plain(value: Any) -> Any:
    """`value` with tuples as lists, as TOML has no tuples."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, tuple | list) else value


def nearest(name: str, valid: typing.Iterable[str]) -> str:
    """`; did you mean "x"?` for the valid name that is nearest to `name`, or the list of valid names."""
    valid = list(valid)
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    if close:
        return f'; did you mean "{close[0]}"?'
    return f"; valid are {', '.join(sorted(valid))}" if valid else ""


def override(values: dict[str, Any], setting: str) -> Place:
    """Apply one `--set key=value` to the parsed TOML in place, and give the path of what it has set.

    The first part of the key may be a stage's name. The value is TOML; what is no TOML and does not begin like a text,
    a list or a table is a text without its quotes. Raises BadRecipe.
    """
    shortened = cut(setting)
    if len(setting) > LONGEST_LINE or not setting.isprintable():
        raise BadRecipe(f"--set {shortened}: must be one line of at most {LONGEST_LINE:,} printable characters")
    name, equals, given = (part.strip() for part in setting.partition("="))
    parts = [part.strip() for part in name.split(".")]
    if not equals or not all(re.fullmatch(r"[A-Za-z0-9_-]+", part) for part in parts):
        raise BadRecipe(f"--set {shortened}: must look like key=value, for example --set student.epochs=10")
    if not given:
        raise BadRecipe(f'--set {shortened}: has no value; an empty text is {name}=""')
    value = _value_of(given, shortened)
    listed: Any = values.get("stage")
    stages: dict[str, tuple[int, dict[str, Any]]] = {
        stage["name"]: (number, stage)
        for number, stage in enumerate(listed if isinstance(listed, list) else ())
        if isinstance(stage, dict) and isinstance(stage.get("name"), str)
    }
    table: dict[str, Any] = values
    place: Place = tuple(parts)
    if len(parts) > 1 and parts[0] in stages:
        number, table = stages[parts.pop(0)]
        place = ("stage", number, *parts)
    elif len(parts) > 1 and (parts[0] == "stage" or parts[0] not in {*values, "data"}):
        known = [*stages, *(item for item in values if item != "stage")]
        hint = meant(values, parts) or nearest(parts[0], known)
        raise BadRecipe(f'--set {shortened}: no stage or table is named "{parts[0]}"{hint}')
    for part in parts[:-1]:
        nested = table.setdefault(part, {})
        if not isinstance(nested, dict):
            raise BadRecipe(f'--set {shortened}: "{part}" is not a table')
        table = nested
    table[parts[-1]] = value
    return place


def _value_of(given: str, setting: str) -> Any:
    """The TOML value that the whole of `given` is; or `given` as a text."""
    try:
        # Alone and in a list: a comment would end the one, and a bracket too many the other.
        alone, (listed, *others) = (tomllib.loads(f"value = {text}")["value"] for text in (given, f"[{given}]"))
        if not others and repr(alone) == repr(listed):
            return alone
    except (ValueError, RecursionError):
        pass
    if given[0] in "\"'[{":
        raise BadRecipe(f"--set {setting}: the value is not valid TOML; a text needs no quotes")
    return given
