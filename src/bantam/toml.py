"""TOML as people see it: the line where a key stands, and what a value is called."""

import re
from typing import Any

NAMES = {int: "a whole number", float: "a number", str: "a text in quotes", bool: "true or false"}


def describe(value: Any) -> str:
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
