"""What a `--set KEY=value` may have meant, where the recipe has no such key: the keys of the same name that it has."""

import dataclasses
import difflib
import typing
from collections.abc import Iterator, Sequence
from typing import Any

from bantam.recipes.kinds import STAGE_KINDS

MOST = 6
"""Keys that are named."""


def meant(values: dict[str, Any], parts: Sequence[str]) -> str:
    """`; did you mean "student.epochs"?` for the key `parts` of the parsed TOML `values`; empty where none is like it.

    A key is like it that ends in the same words, or in the same last word within what the first word names: a stage,
    or all stages of that kind.
    """
    if parts[0] == "stage" and len(parts) > 1:
        return meant(values, parts[1:])
    first, last = parts[0], parts[-1]
    known = list(settable(values))
    within = {stage["name"] for stage in stages(values) if first in (stage["name"], stage.get("kind"))}
    ways = (
        [name for name in known if name.split(".")[0] in within and name.split(".")[1:] == list(parts[1:])],
        [name for name in known if name.split(".")[0] in within and name.split(".")[-1] == last],
        [name for name in known if name.split(".")[0] in within - {first} and nearly(name.split(".")[-1], last)],
        [name for name in known if not within and name.split(".")[-len(parts) :] == list(parts)],
    )
    found = next((names for names in ways if names), [])[:MOST]
    if not found:
        return ""
    *others, one = (f'"{name}"' for name in found)
    return f"; did you mean {', '.join(others)}{' or ' if others else ''}{one}?"


def nearly(name: str, other: str) -> bool:
    """Whether the one is a slip of the other."""
    return bool(difflib.get_close_matches(name, [other], cutoff=0.8))


def stages(values: dict[str, Any]) -> list[dict[str, Any]]:
    """The tables of `values` that may be stages: those with a name."""
    listed = values.get("stage")
    tables = listed if isinstance(listed, list) else []
    return [one for one in tables if isinstance(one, dict) and isinstance(one.get("name"), str)]


def settable(values: dict[str, Any]) -> Iterator[str]:
    """Every key that `--set` can change in the recipe of `values`, outermost first."""
    from bantam.recipes.recipe import Recipe  # which itself reads with this file

    yield from sorted(keys_of(Recipe, ""), key=lambda name: name.count("."))
    for stage in stages(values):
        kind = stage.get("kind")
        if isinstance(kind, str) and kind in STAGE_KINDS:
            yield from sorted(keys_of(STAGE_KINDS[kind], f"{stage['name']}."), key=lambda name: name.count("."))
        objectives = stage.get("objectives")
        for objective, table in objectives.items() if isinstance(objectives, dict) else ():
            for key in table if isinstance(table, dict) else ():
                yield f"{stage['name']}.objectives.{objective}.{key}"


def keys_of(table: Any, before: str) -> Iterator[str]:
    """The dotted keys of the dataclass `table`, and of those within it."""
    types = typing.get_type_hints(table)
    for item in dataclasses.fields(table):
        if item.name in ("stage", "kind", "name", "objectives"):
            continue
        if dataclasses.is_dataclass(types[item.name]):
            yield from keys_of(types[item.name], f"{before}{item.name}.")
        else:
            yield f"{before}{item.name}"
