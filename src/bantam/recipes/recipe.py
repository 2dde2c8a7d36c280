"""Recipes: one TOML file, typed and strict, that says everything a run does.

A recipe is a list of stages. An unknown key, a wrong type or a value out of range is a BadRecipe error with the
file's line, the key, the nearest valid key and what that key means. `dump` writes the resolved recipe, every default
included, so that a run folder holds all that made it.
"""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tomli_w

from bantam.errors import BadRecipe
from bantam.recipes.keys import PARAMETERS, SIDE, Keys, Misfit, Range, key
from bantam.recipes.kinds import Stage, shipped_kinds
from bantam.recipes.kinds.given_teacher import GivenTeacher
from bantam.recipes.kinds.refit import Refit
from bantam.recipes.kinds.training import Training
from bantam.recipes.parser import Parser
from bantam.recipes.toml import LARGEST, nearest, override, plain, tables, unsound

RESERVED = {"con", "prn", "aux", "nul", *(f"{device}{number}" for device in ("com", "lpt") for number in range(10))}
"""Names that no folder has on Windows."""


@dataclass(frozen=True, kw_only=True)
class Data(Keys):
    """The table [data]: how images are stored and normalised."""

    size: int = key("side of the stored images in pixels", 64, SIDE)
    normalisation: Literal["imagenet", "training"] = key(
        "whose mean and standard deviation: ImageNet's, or the training split's", "imagenet"
    )
    unlabelled: bool = key("whether the images in unlabelled/ join the training of stages that have a teacher", False)


@dataclass(frozen=True, kw_only=True)
class Recipe(Keys):
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
        if self.data.unlabelled and not any(stage.teachers for stage in self.stage):
            raise Misfit(
                ("data", "unlabelled"),
                "data.unlabelled = true, but no stage has a teacher, so nothing could be learned from images without a "
                "label; name a teacher in a stage's key `teacher`, or take data.unlabelled out",
            )
        if not any(stage.ships(stage.kind) for stage in self.stage):
            *others, last = (f'"{kind}"' for kind in shipped_kinds())
            raise Misfit((), f"no stage has kind = {', '.join(others)} or {last}, so nothing would be shipped")
        for position, stage in enumerate(self.stage):
            try:
                stage.check(self, self.stage[:position])
            except Misfit as error:
                raise Misfit(("stage", position, *error.path), str(error)) from error

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
            if why := self.stage[names.index(teacher)].cannot_teach:
                raise Misfit(at, f'stage "{stage.name}": {why}')

    @property
    def shipped(self) -> Training:
        """The stage whose net is shipped: the last student, trained as such, pruned or given exits."""
        return [stage for stage in self.stage if isinstance(stage, Training) and stage.ships(stage.kind)][-1]

    @property
    def given(self) -> tuple[GivenTeacher, ...]:
        """The given teachers, the shipped student's own first, then the later ones; each file of weights once."""
        stages = [stage for stage in reversed(self.stage) if isinstance(stage, GivenTeacher)]
        stages.sort(key=lambda stage: stage.name not in self.shipped.teachers)
        first: dict[str, GivenTeacher] = {}
        for stage in stages:
            first.setdefault(stage.checkpoint, stage)
        return tuple(first.values())

    @property
    def refit(self) -> Refit | None:
        """The stage that trains the shipped student on training and validation, if there is one."""
        last = self.stage[-1]
        return last if isinstance(last, Refit) else None


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
