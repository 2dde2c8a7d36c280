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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tomli_w

from bantam.errors import BadRecipe
from bantam.toml import NAMES, describe, dotted, line_of, nearest, override, plain

REQUIRED: Any = object()


def key(sense: str, default: Any = REQUIRED) -> Any:
    """A recipe key: `sense` is the line that explains it in errors; without a default it must be given."""
    if default is REQUIRED:
        return field(metadata={"sense": sense})
    if isinstance(default, dict | type):
        return field(default_factory=dict if isinstance(default, dict) else default, metadata={"sense": sense})
    return field(default=default, metadata={"sense": sense})


def at_least(minimum: float, **values: float) -> None:
    for name, value in values.items():
        if value < minimum:
            raise ValueError(f"{name} = {value} must be at least {minimum}")


def within(low: float, high: float, **values: float) -> None:
    for name, value in values.items():
        if not low <= value <= high:
            raise ValueError(f"{name} = {value} must lie in {low}..{high}")


@dataclass(frozen=True, kw_only=True)
class Data:
    size: int = key("side of the stored images in pixels", 64)
    normalisation: Literal["imagenet", "training"] = key(
        "whose mean and standard deviation: ImageNet's, or the training split's", "imagenet"
    )

    def __post_init__(self) -> None:
        within(8, 1024, size=self.size)


@dataclass(frozen=True, kw_only=True)
class Augment:
    """What a training view may differ in; the fields of `bantam.data.augment.Augmentation`."""

    scale: tuple[float, float] = key(
        "area of the random resized crop, from and to, as a share of the image", (1.0, 1.0)
    )
    ratio: tuple[float, float] = key("width to height of the random crop, from and to", (0.75, 4 / 3))
    flip: float = key("probability of a horizontal flip", 0.5)
    vertical_flip: float = key("probability of a vertical flip", 0.0)
    rotation: float = key("largest rotation either way, in degrees", 0.0)
    brightness: float = key("brightness factor drawn from 1 - b to 1 + b", 0.0)
    contrast: float = key("contrast factor drawn from 1 - c to 1 + c", 0.0)
    saturation: float = key("saturation factor drawn from 1 - s to 1 + s", 0.0)
    hue: float = key("largest hue rotation either way, as a share of a turn", 0.0)
    erase: float = key("probability that a rectangle is erased", 0.0)
    mixup: float = key("probability that an image is blended with its partner", 0.0)
    cutmix: float = key("probability that a box of the partner is pasted", 0.0)
    mix_alpha: float = key("alpha of the Beta(alpha, alpha) distribution of the mixing ratio", 1.0)


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    name: Literal["adamw", "sgd"] = key("adamw, or sgd with Nesterov momentum", "adamw")
    lr: float = key("peak learning rate", 2e-3)
    weight_decay: float = key("decoupled for adamw; not applied to BatchNorm and biases", 0.05)
    momentum: float = key("momentum of sgd, beta1 of adamw", 0.9)
    warmup: float = key("share of all steps with a linear warm-up", 0.05)
    final_lr: float = key("learning rate at the end of the cosine, as a share of the peak", 0.0)
    clip: float = key("largest gradient norm; 0 switches clipping off", 10.0)

    def __post_init__(self) -> None:
        within(0, 1, momentum=self.momentum, warmup=self.warmup, final_lr=self.final_lr)
        at_least(0, lr=self.lr, weight_decay=self.weight_decay, clip=self.clip)


@dataclass(frozen=True, kw_only=True)
class GivenTeacher:
    """A stage that loads weights which somebody else trained."""

    name: str = key("the stage's name, by which later stages ask for it")
    kind: Literal["given_teacher"] = key("what the stage does", "given_teacher")
    architecture: str = key("the classifier that the weights belong to", "resnet18")
    checkpoint: str = key("the state_dict's file, relative to the data folder")
    size: int = key("side in pixels at which the teacher looks at a view")

    @property
    def teachers(self) -> list[str]:
        """None: its weights are given."""
        return []

    def __post_init__(self) -> None:
        within(8, 1024, size=self.size)


@dataclass(frozen=True, kw_only=True)
class Training:
    """A stage that trains a student, held to the recipe's budget, an assistant, held to its own, or a teacher."""

    name: str = key("the stage's name, by which later stages ask for it")
    kind: Literal["student", "teacher", "assistant", "prune"] = key(
        "student: held to the budget, shipped if it is the last; assistant: a student family at a budget of its own, "
        "which teaches; teacher: a classifier of any size"
    )
    net: str = key("a student family, or for a teacher the name of a torchvision or timm classifier")
    budget: int = key("most parameters of an assistant; the other kinds have none of their own", 0)
    shape: dict[str, Any] = key("what the family lets one choose besides its widths, such as kernel = 9", {})
    size: int = key("side of the training views in pixels: the net's input")
    teacher: str = key("the earlier stage whose net teaches this one, or several joined by +; empty for none", "")
    teacher_mean: Literal["probabilities", "logits"] = key(
        "what several answers of the teacher are averaged as", "probabilities"
    )
    teacher_flip: bool = key("whether the teacher also looks at the view's mirror image, and averages", False)
    peers: int = key("nets that train together and teach one another (objective dml); the best is kept", 1)
    epochs: int = key("passes over the training split")
    batch_size: int = key("images a step, even, over all processes", 64)
    views: int = key("views of each image before they repeat; 0 for a fresh view every epoch", 0)
    ema: float = key("decay a step of the averaged weights that are evaluated and shipped; 0 for none", 0.998)
    precision: Literal["auto", "fp32", "bf16"] = key(
        "auto: this and the rest of the arithmetic as a probe of the net finds fastest; others: not probed", "auto"
    )
    augment: Augment = key("what the training views may differ in", Augment)
    optimizer: Optimizer = key("how the weights move", Optimizer)
    objectives: dict[str, dict[str, Any]] = key("one table for each objective: its weight and its own keys", {})

    @property
    def teachers(self) -> list[str]:
        """The names of the stages that teach this one; several are an ensemble."""
        return [name.strip() for name in self.teacher.split("+")] if self.teacher else []

    def __post_init__(self) -> None:
        within(8, 1024, size=self.size)
        at_least(1, epochs=self.epochs)
        at_least(2, batch_size=self.batch_size)
        at_least(0, views=self.views, budget=self.budget)
        at_least(1, peers=self.peers)
        within(0, 0.999999, ema=self.ema)
        if self.batch_size % 2:
            raise ValueError(f"batch_size = {self.batch_size} must be even: mixing partners stand side by side")
        if not self.objectives:
            raise ValueError("objectives is empty; add a table such as [stage.objectives.supervised] with weight = 1.0")
        for name, table in self.objectives.items():
            if not is_weight(table.get("weight")):
                raise ValueError(
                    f"objectives.{name} needs weight, a number of at least 0, or [from, to] for one that changes evenly"
                )
        if (self.kind == "assistant") != (self.budget > 0):
            raise ValueError(
                f'budget = {self.budget} is not valid for kind = "{self.kind}": an assistant needs a budget of its '
                "own, a student has the recipe's, a teacher has none"
            )
        if self.shape and self.kind not in ("student", "assistant"):
            raise ValueError(f'shape is not valid for kind = "{self.kind}": only student families have such choices')
        if (self.peers > 1) != ("dml" in self.objectives):
            raise ValueError(
                f"peers = {self.peers} is not valid: objectives.dml is for 2 peers or more, and they are for it"
            )


def is_weight(value: Any) -> bool:
    """Whether `value` is a weight of an objective: a number of at least 0, or [from, to]."""
    ends = value if isinstance(value, list | tuple) else [value, value]
    numbers = all(isinstance(end, int | float) and not isinstance(end, bool) for end in ends)
    return len(ends) == 2 and numbers and all(0 <= end < float("inf") for end in ends)


@dataclass(frozen=True, kw_only=True)
class Refit:
    """A stage that trains the shipped student once more, as it was chosen, on training and validation together."""

    name: str = key("the stage's name")
    kind: Literal["refit"] = key("what the stage does", "refit")
    of: str = key("the student stage that is repeated: the one that would be shipped")

    @property
    def teachers(self) -> list[str]:
        """None of its own: it has those of the stage it repeats."""
        return []


@dataclass(frozen=True, kw_only=True)
class Pruning(Training):
    """A stage that prunes an earlier stage's net to an exact budget, whole channels at a time, and trains the rest."""

    kind: Literal["student", "teacher", "prune"] = key("what the stage does", "prune")
    net: str = key("left empty: the net is that of the stage `of`", "")
    of: str = key("the earlier stage whose net is pruned")
    to_params: int = key("most parameters of what is left, by the larger count of the shipped form")
    importance: Literal["magnitude", "taylor", "bn_scale"] = key(
        "by what the least important channels are found", "taylor"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, to_params=self.to_params)
        if self.peers > 1:
            raise ValueError("peers must be 1: copies of one pruned net have nothing to teach one another")
        if self.kind != "prune" or self.net:
            raise ValueError("net must be left out of a stage of kind prune: `of` names the stage whose net is pruned")


Stage = GivenTeacher | Training | Refit
STAGE_KINDS: dict[str, type[GivenTeacher] | type[Training] | type[Refit]] = {
    "given_teacher": GivenTeacher,
    "student": Training,
    "assistant": Training,
    "teacher": Training,
    "refit": Refit,
    "prune": Pruning,
}
SHIPPED = ("student", "prune")
"""The kinds of stages whose nets make the weight."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
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
            if isinstance(stage, Pruning):
                if stage.of not in names[:position]:
                    raise ValueError(
                        f'stage "{stage.name}" prunes "{stage.of}", which no earlier stage is named'
                        + nearest(stage.of, names[:position])
                    )
                if stage.to_params > self.budget:
                    raise ValueError(f'stage "{stage.name}": to_params = {stage.to_params} is above the budget')
        if not any(stage.kind in SHIPPED for stage in self.stage):
            raise ValueError('no stage has kind = "student" or "prune", so nothing would be shipped')
        refits = [stage for stage in self.stage if isinstance(stage, Refit)]
        if refits and (len(refits) > 1 or refits[0] is not self.stage[-1] or refits[0].of != self.shipped.name):
            raise ValueError(
                f'the refit "{refits[0].name}" must be the only one, the last stage, and of = "{self.shipped.name}": '
                "the student that is shipped"
            )
        if refits and isinstance(self.shipped, Pruning):
            raise ValueError(
                f'the refit "{refits[0].name}" cannot repeat a pruning, whose start is a net that validation chose'
            )

    @property
    def shipped(self) -> Training:
        """The stage whose net is shipped: the last student, trained as such or pruned."""
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
