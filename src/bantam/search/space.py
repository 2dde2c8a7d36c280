"""What a search may change in a recipe: the student's family, its shape and input size, and how it is trained.

The ranges lie about what the recipe says, so a good recipe is the middle of its own search. Sizes and strengths of
augmentation have few values, because each pair of them is a view cache of its own, shared by all candidates that have
the same pair.
"""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from bantam.nets.students import STUDENTS
from bantam.objectives.hyperparameters import LARGEST, SMALLEST
from bantam.objectives.kd import KD
from bantam.recipes.keys import Range, range_of
from bantam.recipes.kinds.derived import Derived
from bantam.recipes.kinds.training import WEIGHT, Augment, Optimizer, Training
from bantam.recipes.recipe import Recipe

Params = Mapping[str, Any]

SIZES = (0.75, 1.0, 1.5)
"""Input sizes, as multiples of the recipe's."""

STRENGTHS = (0.5, 1.0, 1.5)
"""Strengths of the augmentation, as multiples of the recipe's."""

REACH = 4.0
"""By which factor the learning rate, the weight decay and the temperature may differ from the recipe's, either way."""

TEACHER_SHARES = (0.1, 1.0)
"""The share of the distillation loss in the sum of both weights, from and to."""

SHORT = 0.2
"""Epochs of the short training that ranks a candidate, as a share of the recipe's."""

SHORT_VIEWS = 4
"""Most views of the short training: the teacher is asked once about each, for all candidates."""


def refusal(recipe: Recipe) -> str:
    """Why there is no search about `recipe`: what would have to be taken out of it. Empty where there is one."""
    shipped = recipe.shipped
    if recipe.refit:
        return f'a search selects on validation; take out the refit "{recipe.refit.name}"'
    if isinstance(shipped, Derived):
        return f'a search trains fresh nets; take out "{shipped.name}", which changes another stage\'s net'
    if shipped.start:
        return f'a search trains fresh nets; take out start = "{shipped.start}" of "{shipped.name}"'
    if shipped.pretrained:
        return f'a search trains fresh nets; take out pretrained = "{shipped.pretrained}" of "{shipped.name}"'
    if shipped.switches:
        return "a search compares ordinary nets; take out widths and sizes"
    return ""


def space(base: Recipe) -> dict[str, BaseDistribution]:
    """The distributions that the candidates of a search about `base` are drawn from, by name."""
    stage = base.shipped
    sizes = sorted({stage.size, *(8 * round(factor * stage.size / 8) for factor in SIZES)})
    drawn: dict[str, BaseDistribution] = {
        "family": CategoricalDistribution(list(STUDENTS)),
        "size": CategoricalDistribution([size for size in sizes if 8 <= size <= 1024]),
        "augmentation": CategoricalDistribution(STRENGTHS),
    }
    # Drawn for every family, so that the space is one for all candidates; a candidate uses those of its own.
    for name, family in STUDENTS.items():
        for choice, values in family.choices.items():
            drawn[f"{name}.{choice}"] = CategoricalDistribution(values)
    # What the recipe sets to 0 is switched off, and has no neighbours on a logarithmic scale.
    for name, value in (("lr", stage.optimizer.lr), ("weight_decay", stage.optimizer.weight_decay)):
        if value / REACH > 0:
            drawn[name] = _about(value, range_of(Optimizer, name))
    if "kd" in stage.objectives:
        drawn["temperature"] = _about(_temperature(stage), Range(SMALLEST, LARGEST))
        scheduled = any(isinstance(table["weight"], list) for table in stage.objectives.values())
        if not scheduled and _weights(stage) > 0:
            drawn["teacher_share"] = FloatDistribution(*TEACHER_SHARES)
    return drawn


def standing(base: Recipe) -> dict[str, Any]:
    """The point of the space at which the recipe itself stands."""
    stage = base.shipped
    values = {
        "family": stage.net,
        "size": stage.size,
        "augmentation": 1.0,
        "lr": stage.optimizer.lr,
        "weight_decay": stage.optimizer.weight_decay,
    }
    for name, family in STUDENTS.items():
        chosen = stage.shape if name == stage.net else {}
        values |= {f"{name}.{choice}": chosen.get(choice, usual[0]) for choice, usual in family.choices.items()}
    drawn = space(base)
    if "temperature" in drawn:
        values["temperature"] = _temperature(stage)
    if "teacher_share" in drawn:
        share = float(stage.objectives["kd"]["weight"]) / _weights(stage)
        values["teacher_share"] = min(max(share, TEACHER_SHARES[0]), TEACHER_SHARES[1])
    return {name: value for name, value in values.items() if name in drawn}


def candidate(base: Recipe, params: Params) -> Recipe:
    """The recipe `base` with its shipped student at the point `params` of the space."""
    stage = base.shipped
    optimizer = replace(stage.optimizer, **{name: params[name] for name in ("lr", "weight_decay") if name in params})
    objectives = {name: dict(table) for name, table in stage.objectives.items()}
    if "temperature" in params:
        objectives["kd"]["temperature"] = params["temperature"]
    if "teacher_share" in params:
        total = _weights(stage)
        objectives["kd"]["weight"] = total * params["teacher_share"]
        objectives.setdefault("supervised", {})["weight"] = total * (1 - params["teacher_share"])
    changed = replace(
        stage,
        net=params["family"],
        shape={
            choice: params[f"{params['family']}.{choice}"]
            for choice, (usual, *_) in STUDENTS[params["family"]].choices.items()
            if params[f"{params['family']}.{choice}"] != usual
        },
        size=params["size"],
        augment=strengthened(stage.augment, params["augmentation"]),
        optimizer=optimizer,
        objectives=objectives,
    )
    stages = tuple(changed if one is stage else one for one in base.stage)
    return replace(base, name=f"{base.name}-search", stage=stages)


def shortened(recipe: Recipe) -> Recipe:
    """`recipe` with the short training that ranks its student: few epochs, on few views."""
    stage = recipe.shipped
    epochs = min(stage.epochs, max(3, round(SHORT * stage.epochs)))
    views = min(stage.views or SHORT_VIEWS, SHORT_VIEWS, epochs) if stage.teacher else stage.views
    changed = replace(stage, epochs=epochs, views=views)
    return replace(recipe, stage=tuple(changed if one is stage else one for one in recipe.stage))


def strengthened(augment: Augment, factor: float) -> Augment:
    """`augment` with everything that changes an image, but flips, `factor` times as strong, within what is valid."""
    if factor == 1:
        return augment
    low, high = augment.scale
    smallest = min(max(1 - factor * (1 - low), 0.08), high)
    values = {field.name: getattr(augment, field.name) for field in fields(augment)}
    for name in ("rotation", "brightness", "contrast", "saturation", "hue", "erase", "mixup", "cutmix"):
        values[name] = factor * values[name]
        if name not in ("mixup", "cutmix"):
            values[name] = min(values[name], range_of(Augment, name).most)
    # An image is mixed in one way at most; a little less than 1, because the quotients are rounded.
    mixed = values["mixup"] + values["cutmix"]
    if mixed > 1:
        values["mixup"], values["cutmix"] = (values[name] * (1 - 1e-9) / mixed for name in ("mixup", "cutmix"))
    return Augment(**{**values, "scale": (smallest, high)})


def _about(value: float, valid: Range) -> FloatDistribution:
    """REACH either way of `value`, within what is valid."""
    return FloatDistribution(max(value / REACH, valid.least), min(value * REACH, valid.most), log=True)


def _temperature(stage: Training) -> float:
    return float(stage.objectives["kd"].get("temperature", KD().temperature))


def _weights(stage: Training) -> float:
    names = [name for name in ("kd", "supervised") if name in stage.objectives]
    return min(sum(float(stage.objectives[name]["weight"]) for name in names), WEIGHT.most)
