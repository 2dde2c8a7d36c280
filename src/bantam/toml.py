"""TOML as people see it: the line where a key stands, what a value is called, the nearest name, `--set key=value`."""

import difflib
import re
import tomllib
import typing
from typing import Any

from bantam.errors import BadRecipe

NAMES = {int: "a whole number", float: "a number", str: "a text in quotes", bool: "true or false"}


def describe(value: Any) -> str:
    """The kind of a TOML value and, where it is short, the value."""
    kind = {dict: "a table", list: "a list", **NAMES}.get(type(value), type(value).__name__)
    return kind if isinstance(value, dict | list) else f"{kind} ({value!r})"


def dotted(path: tuple[str | int, ...]) -> str:
    """`stage[1].optimizer.lr` for ("stage", 1, "optimizer", "lr")."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def line_of(text: str, path: tuple[str | int, ...]) -> int:
    """The line (from 1) in TOML `text` where the key at `path` stands, or its table; 0 if neither is found."""
    *table, name = path
    current: list[str | int] = []
    arrays: dict[str, int] = {}
    table_line = 0
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[\[\s*([\w.-]+)\s*\]\]", line):
            arrays[header[1]] = arrays.get(header[1], -1) + 1
            current = [header[1], arrays[header[1]]]
        elif header := re.match(r"\s*\[\s*([\w.-]+)\s*\]", line):
            parts: list[str | int] = list(header[1].split("."))
            current = [parts[0], arrays[str(parts[0])], *parts[1:]] if parts[0] in arrays else parts
        elif current == table and re.match(rf"\s*[\"']?{re.escape(str(name))}[\"']?\s*[=.]", line):
            return number
        if current == list(path):
            return number
        if current == table and table and not table_line:
            table_line = number
    return table_line


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


def override(values: dict[str, Any], setting: str) -> None:
    """Apply one `--set key=value` to the parsed TOML in place; the first part may be a stage's name."""
    name, equals, given = setting.partition("=")
    if not equals or not name.strip():
        raise BadRecipe(f"--set {setting}: must look like key=value, for example --set student.epochs=10")
    try:
        value = tomllib.loads(f"value = {given}")["value"]
    except tomllib.TOMLDecodeError:
        value = given.strip()
    parts = name.strip().split(".")
    stages = {stage.get("name"): stage for stage in values.get("stage", []) if isinstance(stage, dict)}
    table = values
    if len(parts) > 1 and parts[0] in stages:
        table = stages[parts.pop(0)]
    elif len(parts) > 1 and parts[0] not in values and parts[0] != "data":
        known = [*stages, *(item for item in values if item != "stage")]
        raise BadRecipe(f'--set {setting}: no stage or table is named "{parts[0]}"{nearest(parts[0], known)}')
    for part in parts[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise BadRecipe(f'--set {setting}: "{part}" is not a table')
    table[parts[-1]] = value
