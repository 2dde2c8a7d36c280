"""Recipes: one TOML file, typed and strict, that says everything a run does.

A recipe is a list of stages. An unknown key, a wrong type or a value out of range is a BadRecipe error with the
file's line, the key, the nearest valid key and what that key means. `dump` writes the resolved recipe, every default
included, so that a run folder holds all that made it.
"""

import dataclasses
import difflib
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tomli_w

from bantam.errors import BadRecipe
from bantam.recipes.kinds import (
    PARAMETERS,
    SHIPPED,
    STAGE_KINDS,
    VIEWS,
    Data,
    Derived,
    Exiting,
    GivenTeacher,
    Misfit,
    Pruning,
    Range,
    Refit,
    Stage,
    Table,
    Training,
    key,
)
from bantam.recipes.toml import (
    LARGEST,
    NAMES,
    Place,
    describe,
    dotted,
    line_of,
    nearest,
    override,
    plain,
    shown,
    tables,
    unsound,
)

RESERVED = {"con", "prn", "aux", "nul", *(f"{device}{number}" for device in ("com", "lpt") for number in range(10))}
"""Names that no folder has on Windows."""


@dataclass(frozen=True, kw_only=True)
class Recipe(Table):
    """What a run does, in full: its data, its budget and its stages. Wrong values raise Misfit."""

    name: str = key("the recipe's name")
    stage: tuple[Stage, ...] = key("the stages, in order: [[stage]] tables")
    seed: int = key("seed of the weights, the order and the views", 0, Range(0, 2**31 - 1))
    budget: int = key(
        "most parameters that the shipped nets may have together", 60_000, Range(1, PARAMETERS, bound=True)
    )
    data: Data = key("how images are stored and normalised", Data)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.stage:
            raise Misfit("stage", "stage is empty; a recipe needs at least one [[stage]]")
        for position, stage in enumerate(self.stage):
            self._check_name(position, stage.name)
            self._check_teachers(position, stage)
            if isinstance(stage, Training) and stage.start:
                self._check_start(position, stage)
            if isinstance(stage, Derived):
                self._check_derived(position, stage)
        if self.data.unlabelled and not any(stage.teachers for stage in self.stage):
            raise Misfit(
                ("data", "unlabelled"),
                "data.unlabelled = true, but no stage has a teacher, so nothing could be learned from images without a "
                "label; name a teacher in a stage's key `teacher`, or take data.unlabelled out",
            )
        if not any(stage.kind in SHIPPED for stage in self.stage):
            raise Misfit((), 'no stage has kind = "student", "prune" or "exits", so nothing would be shipped')
        refits = [stage for stage in self.stage if isinstance(stage, Refit)]
        if refits:
            self._check_refit(refits)

    def _check_name(self, position: int, name: str) -> None:
        """Refuse a name that another stage has, `--set` would misunderstand, or some system takes for no folder."""
        at = ("stage", position, "name")
        if not re.fullmatch(r"[a-z0-9_-]{1,64}", name):
            raise Misfit(at, f'stage name "{name}" may hold only a-z, 0-9, _ and -, 64 of them at most')
        if name in RESERVED or name in {item.name for item in dataclasses.fields(self)}:
            raise Misfit(at, f'no stage can be named "{name}": the name has another meaning; choose another one')
        if name in (earlier.name for earlier in self.stage[:position]):
            raise Misfit(at, f'two stages are named "{name}"')

    def _check_teachers(self, position: int, stage: Stage) -> None:
        names = [earlier.name for earlier in self.stage[:position]]
        at = ("stage", position, "teacher")
        for teacher in stage.teachers:
            if teacher not in names:
                raise Misfit(
                    at,
                    f'stage "{stage.name}" asks for the teacher "{teacher}", which no earlier stage is named'
                    + nearest(teacher, names),
                )
            if isinstance(self.stage[names.index(teacher)], Refit):
                raise Misfit(
                    at,
                    f'stage "{stage.name}": the refit "{teacher}" has trained on validation and cannot teach; '
                    "name the student that it repeats",
                )

    def _check_start(self, position: int, stage: Training) -> None:
        at = ("stage", position, "start")
        earlier = self.stage[:position]
        before = next((other for other in earlier if other.name == stage.start), None)
        if isinstance(before, GivenTeacher):
            self._check_goes_on(at, stage, before)
            return
        if not isinstance(before, Training) or isinstance(before, Derived):
            raise Misfit(
                at,
                f'stage "{stage.name}" starts from "{stage.start}", which is no earlier stage that has a net'
                + nearest(stage.start, [other.name for other in earlier]),
            )
        own, other = ((one.kind, one.net, one.shape, one.switches, one.budget) for one in (stage, before))
        # A classifier of any size may go on with larger views; a student's shape was fitted to its own.
        if own != other or (stage.kind != "teacher" and stage.size != before.size):
            raise Misfit(
                at,
                f'stage "{stage.name}" starts from "{stage.start}", whose kind, net, shape, size, widths '
                "or budget differs: both must be the same net",
            )

    def _check_goes_on(self, at: tuple[str | int, ...], stage: Training, given: GivenTeacher) -> None:
        """Refuse to train a given teacher on as another net, or on views normalised in another way than it knows."""
        if stage.kind != "teacher" or stage.net != given.architecture:
            raise Misfit(
                at,
                f'stage "{stage.name}" starts from the given teacher "{given.name}": it must have kind = "teacher" '
                f'and net = "{given.architecture}"',
            )
        if self.data.normalisation != "imagenet":
            raise Misfit(
                at,
                f'stage "{stage.name}" starts from the given teacher "{given.name}", which knows images as ImageNet '
                'normalises them: it needs data.normalisation = "imagenet"',
            )

    def _check_derived(self, position: int, stage: Derived) -> None:
        names = [earlier.name for earlier in self.stage[:position]]
        at = ("stage", position, "of")
        if stage.of not in names:
            raise Misfit(
                at,
                f'stage "{stage.name}" starts from "{stage.of}", which no earlier stage is named'
                + nearest(stage.of, names),
            )
        of = self.stage[names.index(stage.of)]
        if isinstance(of, Exiting):
            raise Misfit(at, f'stage "{stage.name}": "{stage.of}" has exits already; prune first, then give exits')
        if isinstance(of, Training) and of.switches:
            change = "give exits to" if isinstance(stage, Exiting) else "prune"
            raise Misfit(
                at, f'stage "{stage.name}" cannot {change} "{stage.of}", whose widths or sizes share their channels'
            )
        if isinstance(stage, Exiting) and of.kind not in ("student", "assistant", "prune"):
            raise Misfit(at, f'stage "{stage.name}": "{stage.of}" is no student; prune it first, then give exits')
        if isinstance(stage, Pruning) and stage.to_params > self.budget:
            raise Misfit(
                ("stage", position, "to_params"),
                f'stage "{stage.name}": to_params = {stage.to_params} is above the budget',
            )

    def _check_refit(self, refits: list[Refit]) -> None:
        first = refits[0]
        at = ("stage", self.stage.index(first), "of")
        if len(refits) > 1 or first is not self.stage[-1] or first.of != self.shipped.name:
            raise Misfit(
                at,
                f'the refit "{first.name}" must be the only one, the last stage, and of = "{self.shipped.name}": '
                "the student that is shipped",
            )
        if isinstance(self.shipped, Derived):
            raise Misfit(
                at,
                f'the refit "{first.name}" cannot repeat "{self.shipped.name}", '
                "whose start is a net that validation chose",
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
    """Turns nested TOML values into the dataclasses above; `source`, `text` and `settings` serve the error messages.

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
                self.fail((*path, name), f'unknown key "{dotted((*path, name))}"{nearest(name, fields)}{sense}')
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


def parse(text: str, source: str = "recipe", settings: Sequence[str] = ()) -> Recipe:
    """The recipe in TOML `text`, with `settings` ("key=value", dotted, a stage by its name) applied in their order.

    Raises BadRecipe with `source` and the line, or with the setting.
    """
    values = tables(text, source)
    applied = {override(values, setting): setting for setting in settings}
    parser = Parser(source, text, applied)
    if wrong := unsound(values):
        parser.fail(*wrong)
    return parser.table(Recipe, values, ())


def load(name: str, settings: Sequence[str] = ()) -> Recipe:
    """The recipe in file `name`, or the shipped recipe of that name. Raises BadRecipe."""
    path = Path(name)
    if path.suffix != ".toml":
        if name not in shipped():
            raise BadRecipe(f'no recipe is named "{name}"{nearest(name, shipped())} A file must end in .toml')
        path = shipped()[name]
    try:
        if path.exists() and not path.is_file():  # reading from a device or a pipe need not end
            raise BadRecipe(f"cannot read the recipe {path}: it is no file")
        with path.open("rb") as file:
            text = file.read(LARGEST + 1).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadRecipe(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise BadRecipe(
            f"cannot read the recipe {path}: {reason}; `bantam recipes list` shows the shipped ones"
        ) from error
    return parse(text.replace("\r\n", "\n"), str(path), settings)


def shipped() -> dict[str, Path]:
    """The recipes that come with Bantam, by name."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.toml"))}


def dump(recipe: Recipe) -> str:
    """The resolved recipe as TOML, every default written out; `parse` gives the same recipe back."""
    return tomli_w.dumps(plain(dataclasses.asdict(recipe)))
