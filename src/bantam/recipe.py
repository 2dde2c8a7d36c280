"""Recipes: one TOML file, typed and strict, that says everything a run does.

A recipe is a list of stages. An unknown key, a wrong type or a value out of range is a BadRecipe error with the
file's line, the key, the nearest valid key and what that key means. `dump` writes the resolved recipe, every default
included, so that a run folder holds all that made it.
"""

import dataclasses
import difflib
import re
import tomllib
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tomli_w

from bantam.errors import BadRecipe
from bantam.recipe_stages import (
    SHIPPED,
    STAGE_KINDS,
    VIEWS,
    Data,
    Derived,
    Exiting,
    Pruning,
    Refit,
    Stage,
    Training,
    at_least,
    key,
    within,
)
from bantam.toml import NAMES, describe, dotted, line_of, nearest, override, plain


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a run does, in full: its data, its budget and its stages. Wrong values raise ValueError."""

    name: str = key("the recipe's name")
    stage: tuple[Stage, ...] = key("the stages, in order: [[stage]] tables")
    seed: int = key("seed of the weights, the order and the views", 0)
    budget: int = key("most parameters that the shipped nets may have together", 60_000)
    data: Data = key("how images are stored and normalised", Data)

    def __post_init__(self) -> None:
        at_least(1, budget=self.budget)
        within(0, 2**31 - 1, seed=self.seed)
        names = [stage.name for stage in self.stage]
        if not names:
            raise ValueError("stage is empty; a recipe needs at least one [[stage]]")
        for position, stage in enumerate(self.stage):
            if not re.fullmatch(r"[a-z0-9_-]+", stage.name):
                raise ValueError(f'stage name "{stage.name}" may hold only a-z, 0-9, _ and -')
            if stage.name in names[:position]:
                raise ValueError(f'two stages are named "{stage.name}"')
            for teacher in stage.teachers:
                if teacher not in names[:position]:
                    raise ValueError(
                        f'stage "{stage.name}" asks for the teacher "{teacher}", which no earlier stage is named'
                        + nearest(teacher, names[:position])
                    )
                if any(isinstance(earlier, Refit) and earlier.name == teacher for earlier in self.stage):
                    raise ValueError(
                        f'stage "{stage.name}": the refit "{teacher}" has trained on validation and cannot teach; '
                        "name the student that it repeats"
                    )
            if isinstance(stage, Training) and stage.start:
                before = next((other for other in self.stage[:position] if other.name == stage.start), None)
                if not isinstance(before, Training) or isinstance(before, Derived):
                    raise ValueError(
                        f'stage "{stage.name}" starts from "{stage.start}", which is no earlier stage that trains a net'
                        + nearest(stage.start, names[:position])
                    )
                own, other = (
                    (one.kind, one.net, one.shape, one.size, one.switches, one.budget) for one in (stage, before)
                )
                if own != other:
                    raise ValueError(
                        f'stage "{stage.name}" starts from "{stage.start}", whose kind, net, shape, size, widths '
                        "or budget differs: both must be the same net"
                    )
            if isinstance(stage, Derived):
                if stage.of not in names[:position]:
                    raise ValueError(
                        f'stage "{stage.name}" starts from "{stage.of}", which no earlier stage is named'
                        + nearest(stage.of, names[:position])
                    )
                of = self.stage[names.index(stage.of)]
                if isinstance(of, Exiting):
                    raise ValueError(
                        f'stage "{stage.name}": "{stage.of}" has exits already; prune first, then give exits'
                    )
                if isinstance(of, Training) and of.switches:
                    change = "give exits to" if isinstance(stage, Exiting) else "prune"
                    raise ValueError(
                        f'stage "{stage.name}" cannot {change} "{stage.of}", whose widths or sizes share their channels'
                    )
                if isinstance(stage, Exiting) and of.kind not in ("student", "assistant", "prune"):
                    raise ValueError(
                        f'stage "{stage.name}": "{stage.of}" is no student; prune it first, then give exits'
                    )
            if isinstance(stage, Pruning) and stage.to_params > self.budget:
                raise ValueError(f'stage "{stage.name}": to_params = {stage.to_params} is above the budget')
        if self.data.unlabelled and not any(stage.teachers for stage in self.stage):
            raise ValueError(
                "data.unlabelled = true, but no stage has a teacher, so nothing could be learned from images without a "
                "label; name a teacher in a stage's key `teacher`, or take data.unlabelled out"
            )
        if not any(stage.kind in SHIPPED for stage in self.stage):
            raise ValueError('no stage has kind = "student", "prune" or "exits", so nothing would be shipped')
        refits = [stage for stage in self.stage if isinstance(stage, Refit)]
        if refits and (len(refits) > 1 or refits[0] is not self.stage[-1] or refits[0].of != self.shipped.name):
            raise ValueError(
                f'the refit "{refits[0].name}" must be the only one, the last stage, and of = "{self.shipped.name}": '
                "the student that is shipped"
            )
        if refits and isinstance(self.shipped, Derived):
            raise ValueError(
                f'the refit "{refits[0].name}" cannot repeat "{self.shipped.name}", '
                "whose start is a net that validation chose"
            )

    @property
    def shipped(self) -> Training:
        """The stage whose net is shipped: the last student, trained as such, pruned or given exits."""
        return [stage for stage in self.stage if isinstance(stage, Training) and stage.kind in SHIPPED][-1]

    @property
    def refit(self) -> Refit | None:
        """The stage that trains the shipped student on training and validation, if there is one."""
        last = self.stage[-1]
        return last if isinstance(last, Refit) else None


class Parser:
    """Turns nested TOML values into the dataclasses above; `source` and `text` serve the error messages."""

    def __init__(self, source: str, text: str) -> None:
        self.source, self.text = source, text

    def fail(self, path: tuple[str | int, ...], message: str) -> typing.NoReturn:
        line = line_of(self.text, path) if path else 0
        raise BadRecipe(f"{self.source}{f':{line}' if line else ''}: {message}")

    def table(self, kind: type[Any], values: Any, path: tuple[str | int, ...]) -> Any:
        """An instance of the dataclass `kind` from the TOML table `values` that stands at `path`."""
        if not isinstance(values, dict):
            self.fail(path, f"{dotted(path)} must be a table, not {describe(values)}")
        fields = {item.name: item for item in dataclasses.fields(kind)}
        types = typing.get_type_hints(kind)
        for name in values:
            if name not in fields:
                close = difflib.get_close_matches(name, fields, n=1, cutoff=0.4)
                sense = f" ({close[0]}: {fields[close[0]].metadata['sense']})" if close else ""
                self.fail((*path, name), f'unknown key "{dotted((*path, name))}"{nearest(name, fields)}{sense}')
        given = {name: self.value(types[name], value, (*path, name)) for name, value in values.items()}
        for name, item in fields.items():
            if name not in given and item.default is item.default_factory is dataclasses.MISSING:
                self.fail(path, f'missing key "{dotted((*path, name))}" ({item.metadata["sense"]})')
        try:
            return kind(**given)
        except ValueError as error:
            named = next((name for name in given if str(error).startswith(name)), None)
            self.fail((*path, named) if named else path, f"{dotted(path)}{': ' if path else ''}{error}")

    def value(self, wanted: Any, value: Any, path: tuple[str | int, ...]) -> Any:
        if wanted == tuple[Stage, ...]:
            return tuple(self.stage(item, ("stage", number)) for number, item in enumerate(self.items(value, path)))
        if dataclasses.is_dataclass(wanted):
            return self.table(typing.cast(type, wanted), value, path)
        origin = typing.get_origin(wanted)
        if origin is Literal:
            choices = typing.get_args(wanted)
            if value not in choices:
                hint = nearest(value, choices) if isinstance(value, str) else f"; valid are {', '.join(choices)}"
                self.fail(path, f"{dotted(path)} = {value!r} is not valid{hint}")
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

    def items(self, value: Any, path: tuple[str | int, ...]) -> list[Any]:
        if not isinstance(value, list):
            self.fail(path, f"{dotted(path)} must be a list, not {describe(value)}")
        return value

    def stage(self, values: Any, path: tuple[str | int, ...]) -> Stage:
        kind = values.get("kind") if isinstance(values, dict) else None
        if not isinstance(kind, str) or kind not in STAGE_KINDS:
            said = f'kind = "{kind}" is not valid' if kind is not None else 'missing key "kind"'
            self.fail((*path, "kind"), f"{dotted(path)}: {said}{nearest(str(kind), STAGE_KINDS)}")
        if issubclass(STAGE_KINDS[kind], Training) and values.get("teacher"):
            values = {"views": VIEWS, **values}  # so the teacher is asked once about each
        return self.table(STAGE_KINDS[kind], values, path)


def parse(text: str, source: str = "recipe", settings: typing.Sequence[str] = ()) -> Recipe:
    """The recipe in TOML `text`, with `settings` ("key=value", dotted, a stage by its name) applied.

    Raises BadRecipe with `source` and the line.
    """
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadRecipe(f"{source}: not valid TOML: {error}") from error
    for setting in settings:
        override(values, setting)
    return Parser(source, text).table(Recipe, values, ())


def load(name: str, settings: typing.Sequence[str] = ()) -> Recipe:
    """The recipe in file `name`, or the shipped recipe of that name. Raises BadRecipe."""
    path = Path(name)
    if path.suffix != ".toml":
        if name not in shipped():
            raise BadRecipe(f'no recipe is named "{name}"{nearest(name, shipped())} A file must end in .toml')
        path = shipped()[name]
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadRecipe(
            f"cannot read the recipe {path}: {error}; `bantam recipes list` shows the shipped ones"
        ) from error
    return parse(text, str(path), settings)


def shipped() -> dict[str, Path]:
    """The recipes that come with Bantam, by name."""
    return {path.stem: path for path in sorted((Path(__file__).parent / "recipes").glob("*.toml"))}


def dump(recipe: Recipe) -> str:
    """The resolved recipe as TOML, every default written out; `parse` gives the same recipe back."""
    return tomli_w.dumps(plain(dataclasses.asdict(recipe)))
