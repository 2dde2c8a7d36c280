"""The kinds of stages that a recipe may have, with their keys: types, defaults, ranges and what each key means."""

import itertools
from dataclasses import dataclass, field
from typing import Any, Literal

REQUIRED: Any = object()


def key(sense: str, default: Any = REQUIRED) -> Any:
    """A recipe key: `sense` is the line that explains it in errors; without a default it must be given."""
    if default is REQUIRED:
        return field(metadata={"sense": sense})
    if isinstance(default, dict | type):
        return field(default_factory=dict if isinstance(default, dict) else default, metadata={"sense": sense})
    return field(default=default, metadata={"sense": sense})


def at_least(minimum: float, **values: float) -> None:
    """Raises ValueError for a named value below `minimum`."""
    for name, value in values.items():
        if value < minimum:
            raise ValueError(f"{name} = {value} must be at least {minimum}")


def within(low: float, high: float, **values: float) -> None:
    """Raises ValueError for a named value outside `low`..`high`."""
    for name, value in values.items():
        if not low <= value <= high:
            raise ValueError(f"{name} = {value} must lie in {low}..{high}")


VIEWS = 64
"""Of a stage that has a teacher and does not say how many: in docs/performance.md 64 cost nothing, 8 did."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """The table [data]: how images are stored and normalised."""

    size: int = key("side of the stored images in pixels", 64)
    normalisation: Literal["imagenet", "training"] = key(
        "whose mean and standard deviation: ImageNet's, or the training split's", "imagenet"
    )
    unlabelled: bool = key("whether the images in unlabelled/ join the training of stages that have a teacher", False)

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
    """The table [stage.optimizer]: the optimizer and its schedule."""

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
    checkpoint: str = key(
        "the file of its weights, relative to the data folder; FILE#NAME where the file holds several"
    )
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
    kind: Literal["student", "teacher", "assistant", "prune", "exits"] = key(
        "student: held to the budget, shipped if it is the last; assistant: a student family at a budget of its own, "
        "which teaches; teacher: a classifier of any size"
    )
    net: str = key("a student family, or for a teacher the name of a torchvision or timm classifier")
    budget: int = key("most parameters of an assistant; the other kinds have none of their own", 0)
    shape: dict[str, Any] = key("what the family lets one choose besides its widths, such as kernel = 9", {})
    size: int = key("side of the training views in pixels: the net's input")
    widths: tuple[float, ...] = key("shares of a student's channels at which it also answers, such as [0.5, 1.0]", ())
    sizes: tuple[int, ...] = key("sides in pixels at which a student also answers, `size` among them", ())
    teacher: str = key("the earlier stage whose net teaches this one, or several joined by +; empty for none", "")
    teacher_mean: Literal["probabilities", "logits"] = key(
        "what several answers of the teacher are averaged as", "probabilities"
    )
    teacher_flip: bool = key("whether the teacher also looks at the view's mirror image, and averages", False)
    start: str = key("the earlier stage of the same net whose weights this one starts from; empty for fresh ones", "")
    peers: int = key("nets that train together and teach one another (objective dml); the best is kept", 1)
    epochs: int = key("passes over the training split")
    batch_size: int = key("images a step, even, over all processes", 64)
    views: int = key(
        f"views of each image before they repeat; 0 for a fresh view every epoch; left out with a teacher: {VIEWS}", 0
    )
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

    @property
    def switches(self) -> tuple[tuple[float, int], ...]:
        """Width and size of each way in which the student answers, the dearest first; none for an ordinary net."""
        pairs = itertools.product(self.widths or (1.0,), self.sizes or (self.size,))
        ordered = sorted(pairs, key=lambda pair: (pair[0] * pair[1], pair), reverse=True)
        return tuple(ordered) if len(ordered) > 1 else ()

    def __post_init__(self) -> None:
        within(8, 1024, size=self.size)
        for name, values, largest in (("widths", self.widths, 1.0), ("sizes", self.sizes, self.size)):
            if values and (max(values) != largest or min(values) <= 0 or len(set(values)) < len(values)):
                raise ValueError(f"{name} = {[*values]} must be different, above 0, and at most {largest}, one of them")
        if self.sizes:
            within(8, self.size, sizes=min(self.sizes))
        if self.switches and (self.kind != "student" or self.peers > 1):
            raise ValueError('widths and sizes are for one net of kind = "student", without peers')
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
        if self.start and (self.peers > 1 or self.kind in ("prune", "exits")):
            raise ValueError(
                f'start = "{self.start}" is not valid here: peers start anew, a pruning or exits from `of`'
            )
        if self.shape and self.kind not in ("student", "assistant"):
            raise ValueError(f'shape is not valid for kind = "{self.kind}": only student families have such choices')
        if (self.peers > 1) != ("dml" in self.objectives):
            raise ValueError(
                f"peers = {self.peers} is not valid: objectives.dml is for 2 peers or more, and they are for it"
            )
        if ("self_distillation" in self.objectives) != (self.kind == "exits"):
            raise ValueError(
                f'kind = "{self.kind}" is not valid: objectives.self_distillation is what teaches early exits'
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
class Derived(Training):
    """A stage that changes an earlier stage's net and trains it on."""

    net: str = key("left empty: the net is that of the stage `of`", "")
    of: str = key("the earlier stage whose net is changed")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.peers > 1:
            raise ValueError("peers must be 1: copies of one net have nothing to teach one another")
        if self.net:
            raise ValueError(
                f"net must be left out of a stage of kind {self.kind}: `of` names the stage whose net it is"
            )


@dataclass(frozen=True, kw_only=True)
class Pruning(Derived):
    """A stage that prunes an earlier stage's net to an exact budget, whole channels at a time, and trains the rest."""

    kind: Literal["prune"] = key("what the stage does", "prune")
    to_params: int = key("most parameters of what is left, by the larger count of the shipped form")
    importance: Literal["magnitude", "taylor", "bn_scale"] = key(
        "by what the least important channels are found", "taylor"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(1, to_params=self.to_params)


@dataclass(frozen=True, kw_only=True)
class Exiting(Derived):
    """A stage that gives an earlier stage's net early exits, and trains the whole of it on."""

    kind: Literal["exits"] = key("what the stage does", "exits")
    after: tuple[int, ...] = key("numbers of the net's stages, from 1 on, after which there is an exit")

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.objectives) == 1:
            raise ValueError(
                "objectives holds self_distillation alone; the net's end needs one too, such as supervised"
            )


Stage = GivenTeacher | Training | Refit
STAGE_KINDS: dict[str, type[GivenTeacher] | type[Training] | type[Refit]] = {
    "given_teacher": GivenTeacher,
    "student": Training,
    "assistant": Training,
    "teacher": Training,
    "refit": Refit,
    "prune": Pruning,
    "exits": Exiting,
}
SHIPPED = ("student", "prune", "exits")
"""The kinds of stages whose nets make the weight."""
