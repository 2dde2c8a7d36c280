"""The kinds of stages that train a net of their own: `student`, `assistant` and `teacher`."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from bantam.recipes.keys import FINITE, PARAMETERS, PRETRAINED, SHARE, SIDE, SMALLEST, Keys, Misfit, Range, key
from bantam.recipes.kinds.given_teacher import GivenTeacher
from bantam.recipes.kinds.stage import Stage
from bantam.recipes.toml import nearest

if TYPE_CHECKING:
    from bantam.recipes.recipe import Recipe

EPOCHS = 10_000
"""Most of one training: what changes from step to step is made for all of them before the first."""

SWITCHES = 16
"""Most ways in which one net answers: each has BatchNorms of its own."""

WEIGHT = Range(0, 1e6, bound=True)
"""Of an objective in the loss."""

VIEWS = 64
"""Of a stage that has a teacher and does not say how many: in docs/performance.md 64 cost nothing, 8 did."""


@dataclass(frozen=True, kw_only=True)
class Augment(Keys):
    """What a training view may differ in; the fields and ranges of `bantam.data.augment.Augmentation`."""

    scale: tuple[float, float] = key(
        "area of the random resized crop, from and to, as a share of the image", (1.0, 1.0), SHARE
    )
    ratio: tuple[float, float] = key("width to height of the random crop, from and to", (0.75, 4 / 3), Range(0, 1e3))
    flip: float = key("probability of a horizontal flip", 0.5, SHARE)
    vertical_flip: float = key("probability of a vertical flip", 0.0, SHARE)
    rotation: float = key("largest rotation either way, in degrees", 0.0, Range(0, 180))
    brightness: float = key("brightness factor drawn from 1 - b to 1 + b", 0.0, Range(0, 1e3))
    contrast: float = key("contrast factor drawn from 1 - c to 1 + c", 0.0, Range(0, 1e3))
    saturation: float = key("saturation factor drawn from 1 - s to 1 + s", 0.0, Range(0, 1e3))
    hue: float = key("largest hue rotation either way, as a share of a turn", 0.0, Range(0, 0.5))
    erase: float = key("probability that a rectangle is erased", 0.0, SHARE)
    mixup: float = key("probability that an image is blended with its partner", 0.0, SHARE)
    cutmix: float = key("probability that a box of the partner is pasted", 0.0, SHARE)
    mix_alpha: float = key("alpha of the Beta(alpha, alpha) distribution of the mixing ratio", 1.0, Range(0.01, 1e3))

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, (low, high) in (("scale", self.scale), ("ratio", self.ratio)):
            if not 0 < low <= high:
                raise Misfit(name, f"{name} = {[low, high]} must be [from, to], with 0 < from <= to")
        if self.mixup + self.cutmix > 1:
            raise Misfit(
                "cutmix",
                f"mixup = {self.mixup} and cutmix = {self.cutmix} must not exceed 1 together: "
                "an image is mixed in one way only",
            )


@dataclass(frozen=True, kw_only=True)
class Optimizer(Keys):
    """The table [stage.optimizer]: the optimizer and its schedule."""

    name: Literal["adamw", "sgd"] = key("adamw, or sgd with Nesterov momentum", "adamw")
    lr: float = key("peak learning rate", 2e-3, Range(0, FINITE, bound=True))
    weight_decay: float = key(
        "decoupled for adamw; not applied to BatchNorm and biases", 0.05, Range(0, FINITE, bound=True)
    )
    momentum: float = key("momentum of sgd, beta1 of adamw", 0.9, Range(0, 0.9999))
    warmup: float = key("share of all steps with a linear warm-up", 0.05, SHARE)
    final_lr: float = key("learning rate at the end of the cosine, as a share of the peak", 0.0, SHARE)
    clip: float = key("largest gradient norm; 0 switches clipping off", 10.0, Range(0, FINITE, bound=True))


@dataclass(frozen=True, kw_only=True)
class Training(Stage):
    """A stage that trains a student, held to the recipe's budget, an assistant, held to its own, or a teacher."""

    kind: str = key(
        "student: held to the budget, shipped if it is the last; assistant: a student family at a budget of its own, "
        "which teaches; teacher: a classifier of any size"
    )
    net: str = key("a student family, or for a teacher the name of a torchvision or timm classifier")
    budget: int = key(
        "most parameters of an assistant; the other kinds have none of their own", 0, Range(0, PARAMETERS, bound=True)
    )
    shape: dict[str, Any] = key("what the family lets one choose besides its widths, such as kernel = 9", {})
    size: int = key("side of the training views in pixels: the net's input", range=SIDE)
    widths: tuple[float, ...] = key(
        "shares of a student's channels at which it also answers, such as [0.5, 1.0]", (), SHARE
    )
    sizes: tuple[int, ...] = key("sides in pixels at which a student also answers, `size` among them", (), SIDE)
    teacher: str = key("the earlier stage whose net teaches this one, or several joined by +; empty for none", "")
    teacher_mean: Literal["probabilities", "logits"] = key(
        "what several answers of the teacher are averaged as", "probabilities"
    )
    teacher_flip: bool = key("whether the teacher also looks at the view's mirror image, and averages", False)
    start: str = key(
        "the earlier stage, or given teacher, of the same net whose weights this one starts from; empty for fresh ones",
        "",
    )
    pretrained: str = key(
        f"the model that comes with Bantam whose weights, as far as they fit, it starts from: {', '.join(PRETRAINED)}; "
        "empty for none",
        "",
    )
    peers: int = key(
        "nets that train together and teach one another (objective dml); the best is kept", 1, Range(1, 32, bound=True)
    )
    epochs: int = key("passes over the training split", range=Range(1, EPOCHS, bound=True))
    batch_size: int = key("images a step, even, over all processes", 64, Range(2, 65_536, bound=True))
    views: int = key(
        f"views of each image before they repeat; 0 for a fresh view every epoch; left out with a teacher: {VIEWS}",
        0,
        Range(0, EPOCHS, bound=True),
    )
    ema: float = key(
        "decay a step of the averaged weights that are evaluated and shipped; 0 for none", 0.998, Range(0, 0.999999)
    )
    precision: Literal["auto", "fp32", "bf16"] = key(
        "auto: bf16 on a GPU, and where the processor has it and the net is dense enough to gain by it", "auto"
    )
    augment: Augment = key("what the training views may differ in", Augment)
    optimizer: Optimizer = key("how the weights move", Optimizer)
    objectives: dict[str, dict[str, Any]] = key("one table for each objective: its weight and its own keys", {})

    own_net: ClassVar[bool] = True
    """Whether its keys say which net it is; otherwise it is what became of an earlier stage's."""

    has_exits: ClassVar[bool] = False
    """Whether its net has early exits."""

    @classmethod
    def ships(cls, kind: str) -> bool:
        """Students are shipped; assistants and teachers teach."""
        return kind == "student"

    @property
    def teachers(self) -> list[str]:
        """The names of the stages that teach this one; several are an ensemble."""
        return [name.strip() for name in self.teacher.split("+")] if self.teacher else []

    @property
    def cannot_teach(self) -> str:
        """Nothing is against it."""
        return ""

    @property
    def switches(self) -> tuple[tuple[float, int], ...]:
        """Width and size of each way in which the student answers, the dearest first; none for an ordinary net."""
        pairs = itertools.product(self.widths or (1.0,), self.sizes or (self.size,))
        ordered = sorted(pairs, key=lambda pair: (pair[0] * pair[1], pair), reverse=True)
        return tuple(ordered) if len(ordered) > 1 else ()

    @property
    def of_family(self) -> bool:
        """Whether its net is a student family's largest within its limit, not a teacher's or an earlier one."""
        return self.own_net and self.kind != "teacher"

    def limit(self, budget: int) -> int:
        """The most parameters of its net, in a recipe of `budget` parameters; a teacher has no limit."""
        return self.budget or budget

    def __post_init__(self) -> None:
        if self.sizes:
            Range(SMALLEST, self.size).check(sizes=min(self.sizes))
        super().__post_init__()
        for name, values, largest in (("widths", self.widths, 1.0), ("sizes", self.sizes, self.size)):
            if values and (max(values) != largest or min(values) <= 0 or len(set(values)) < len(values)):
                raise Misfit(
                    name, f"{name} = {[*values]} must be different, above 0, and at most {largest}, one of them"
                )
        ways = max(1, len(self.widths)) * max(1, len(self.sizes))
        if ways > SWITCHES:
            raise Misfit("widths", f"widths and sizes make {ways} nets of one; take at most {SWITCHES} pairs")
        if self.switches and (self.kind != "student" or self.peers > 1):
            raise Misfit("widths", 'widths and sizes are for one net of kind = "student", without peers')
        if self.batch_size % 2:
            raise Misfit(
                "batch_size", f"batch_size = {self.batch_size} must be even: mixing partners stand side by side"
            )
        if not self.objectives:
            raise Misfit(
                "objectives", "objectives is empty; add a table such as [stage.objectives.supervised] with weight = 1.0"
            )
        for name, table in self.objectives.items():
            if not is_weight(table.get("weight")):
                raise Misfit(
                    ("objectives", name, "weight"),
                    f"objectives.{name} needs weight, a number of at least 0 and at most {WEIGHT.most:g}, "
                    "or [from, to] for one that changes evenly",
                )
        if (self.kind == "assistant") != (self.budget > 0):
            raise Misfit(
                "budget",
                f'budget = {self.budget} is not valid for kind = "{self.kind}": an assistant needs a budget of its '
                "own, a student has the recipe's, a teacher has none",
            )
        if self.start and (self.peers > 1 or not self.own_net):
            raise Misfit(
                "start", f'start = "{self.start}" is not valid here: peers start anew, a pruning or exits from `of`'
            )
        if self.pretrained and (self.start or self.switches or self.peers > 1 or not self.of_family):
            raise Misfit(
                "pretrained",
                f'pretrained = "{self.pretrained}" is not valid here: it is for one student of one width and '
                "size that starts from no earlier stage",
            )
        if self.pretrained and PRETRAINED.get(self.pretrained) != self.net:
            raise Misfit(
                "pretrained",
                f'pretrained = "{self.pretrained}" is not valid for net = "{self.net}"; there are '
                + ", ".join(f'"{name}", a {family}' for name, family in PRETRAINED.items()),
            )
        if self.shape and not self.of_family:
            raise Misfit(
                "shape", f'shape is not valid for kind = "{self.kind}": only student families have such choices'
            )
        if (self.peers > 1) != ("dml" in self.objectives):
            raise Misfit(
                "peers",
                f"peers = {self.peers} is not valid: objectives.dml is for 2 peers or more, and they are for it",
            )
        if ("self_distillation" in self.objectives) != self.has_exits:
            raise Misfit(
                "kind", f'kind = "{self.kind}" is not valid: objectives.self_distillation is what teaches early exits'
            )

    def check(self, recipe: "Recipe", earlier: Sequence[Stage]) -> None:
        """What it starts from is the same net."""
        if not self.start:
            return
        before = next((other for other in earlier if other.name == self.start), None)
        if isinstance(before, GivenTeacher):
            self._check_goes_on(recipe, before)
            return
        if not isinstance(before, Training) or not before.own_net:
            raise Misfit(
                "start",
                f'stage "{self.name}" starts from "{self.start}", which is no earlier stage that has a net'
                + nearest(self.start, [other.name for other in earlier]),
            )
        own, other = ((one.kind, one.net, one.shape, one.switches, one.budget) for one in (self, before))
        if own != other:  # it may go on with larger views; `pipeline.run` looks whether its shape stays the same
            raise Misfit(
                "start",
                f'stage "{self.name}" starts from "{self.start}", whose kind, net, shape, widths '
                "or budget differs: both must be the same net",
            )

    def _check_goes_on(self, recipe: "Recipe", given: GivenTeacher) -> None:
        """Refuse to train a given teacher on as another net, or on views normalised in another way than it knows."""
        if self.kind != "teacher" or self.net != given.architecture:
            raise Misfit(
                "start",
                f'stage "{self.name}" starts from the given teacher "{given.name}": it must have kind = "teacher" '
                f'and net = "{given.architecture}"',
            )
        if recipe.data.normalisation != "imagenet":
            raise Misfit(
                "start",
                f'stage "{self.name}" starts from the given teacher "{given.name}", which knows images as ImageNet '
                'normalises them: it needs data.normalisation = "imagenet"',
            )


def is_weight(value: Any) -> bool:
    """Whether `value` is a weight of an objective: a number within WEIGHT, or [from, to]."""
    ends = value if isinstance(value, list | tuple) else [value, value]
    numbers = all(isinstance(end, int | float) and not isinstance(end, bool) for end in ends)
    return len(ends) == 2 and numbers and all(WEIGHT.least <= end <= WEIGHT.most for end in ends)
