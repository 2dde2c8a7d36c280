"""TOML values into the typed tables of a recipe: what does not fit is named with its line, key and nearest name."""

import dataclasses
import difflib
import typing
from collections.abc import Mapping
from typing import Any, Literal

from bantam.errors import BadRecipe
from bantam.recipes.keys import Misfit
from bantam.recipes.kinds import STAGE_KINDS, Stage
from bantam.recipes.kinds.training import VIEWS, Training
from bantam.recipes.meant import meant
from bantam.recipes.toml import NAMES, Place, describe, dotted, line_of, nearest, shown, tables


class Parser:
    """Turns nested TOML values into a recipe's dataclasses; `source`, `text` and `settings` serve the error messages.

    `settings` are those that were applied, each by the path of the key that it set.
    """

    def __init__(self, source: str, text: str, settings: Mapping[Place, str]) -> None:
        self.source, self.text, self.settings = source, text, settings

    def fail(self, path: Place, message: str) -> typing.NoReturn:
        for length in range(len(path), 0, -1):
            if path[:length] in self.settings:
                raise BadRecipe(f"--set {self.settings[path[:length]]}: {message}")
        line = line_of(self.text, path)
        raise BadRecipe(f"{self.source}{f':{line}' if line else ''}: {message}")

    def meant(self, path: Place) -> str:
        """What the setting that has set the key at `path` may have meant; empty where none has."""
        setting = self.settings.get(path)
        return meant(tables(self.text, self.source), setting.partition("=")[0].strip().split(".")) if setting else ""

    def table(self, kind: type[Any], values: Any, path: Place) -> Any:
        """An instance of the dataclass `kind` from the TOML table `values` that stands at `path`."""
        if not isinstance(values, dict):
            self.fail(path, f"{dotted(path)} must be a table, not {describe(values)}")
        fields = {item.name: item for item in dataclasses.fields(kind)}
        types = typing.get_type_hints(kind)
        for name in values:
            if name not in fields:
                close = difflib.get_close_matches(name, fields, n=1, cutoff=0.4)
                sense = f" ({close[0]}: {fields[close[0]].metadata['sense']})" if close else ""
                hint = self.meant((*path, name)) or f"{nearest(name, fields)}{sense}"
                self.fail((*path, name), f'unknown key "{dotted((*path, name))}"{hint}')
        given = {name: self.value(types[name], value, (*path, name)) for name, value in values.items()}
        for name, item in fields.items():
            if name not in given and item.default is item.default_factory is dataclasses.MISSING:
                self.fail(path, f'missing key "{dotted((*path, name))}" ({item.metadata["sense"]})')
        try:
            return kind(**given)
        except Misfit as error:
            self.fail((*path, *error.path), f"{dotted(path)}{': ' if path else ''}{error}")

    def value(self, wanted: Any, value: Any, path: Place) -> Any:
        if wanted == tuple[Stage, ...]:
            return tuple(self.stage(item, (*path, number)) for number, item in enumerate(self.items(value, path)))
        if dataclasses.is_dataclass(wanted):
            return self.table(typing.cast(type, wanted), value, path)
        origin = typing.get_origin(wanted)
        if origin is Literal:
            choices = typing.get_args(wanted)
            if value not in choices:
                hint = nearest(value, choices) if isinstance(value, str) else f"; valid are {', '.join(choices)}"
                self.fail(path, f"{dotted(path)} = {shown(value)} is not valid{hint}")
            return value
        if origin is tuple:
            kinds = typing.get_args(wanted)
            items = self.items(value, path)
            kinds = kinds[:1] * len(items) if kinds[-1] is Ellipsis else kinds
            if len(items) != len(kinds):
                self.fail(path, f"{dotted(path)} must hold {len(kinds)} numbers, not {len(items)}")
            return tuple(self.value(item_kind, item, path) for item_kind, item in zip(kinds, items, strict=True))
        if origin is dict:
            of_tables = typing.get_args(wanted)[1] is not Any
            if not isinstance(value, dict):
                self.fail(path, f"{dotted(path)} must be a table, not {describe(value)}")
            if of_tables and not all(isinstance(item, dict) for item in value.values()):
                self.fail(path, f"{dotted(path)} must hold one table for each objective")
            return value
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if type(value) is not wanted:
            self.fail(path, f"{dotted(path)} must be {NAMES[wanted]}, not {describe(value)}")
        return value

    def items(self, value: Any, path: Place) -> list[Any]:
        if not isinstance(value, list):
            self.fail(path, f"{dotted(path)} must be a list, not {describe(value)}")
        return value

    def stage(self, values: Any, path: Place) -> Stage:
        kind = values.get("kind") if isinstance(values, dict) else None
        if not isinstance(kind, str) or kind not in STAGE_KINDS:
            said = f"kind = {shown(kind)} is not valid" if kind is not None else 'missing key "kind"'
            self.fail((*path, "kind"), f"{dotted(path)}: {said}{nearest(str(kind), STAGE_KINDS)}")
        if issubclass(STAGE_KINDS[kind], Training) and values.get("teacher"):
            values = {"views": VIEWS, **values}  # so the teacher is asked once about each
        return self.table(STAGE_KINDS[kind], values, path)
