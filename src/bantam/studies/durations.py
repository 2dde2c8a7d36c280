"""How long work on a recipe's nets takes on this machine: a few passes are timed, then passes are counted."""

import time

import torch
from torch import nn

from bantam.nets.students import describe
from bantam.nets.teachers import build_teacher
from bantam.recipes.kinds.derived import Derived
from bantam.recipes.kinds.given_teacher import GivenTeacher
from bantam.recipes.kinds.training import Training
from bantam.recipes.recipe import Recipe

TRIED = 16
"""Images of the pass that is timed."""

LEARNING = 4
"""Passes that a step of training takes as long as: forward, backward twice as long, the views and the optimizer."""


class Paces(dict[str, float]):
    """Seconds that a pass takes for one image, by stage."""

    def training(self, stage: Training, images: int, epochs: int) -> float:
        """Seconds of `epochs` of `stage` over `images`; a teacher is asked once about each view."""
        views = min(stage.views or epochs, epochs)
        asked = sum(self.get(name, 0.0) for name in stage.teachers)
        return images * (LEARNING * epochs * self.get(stage.name, 0.0) + views * asked)


@torch.inference_mode()
def paces(recipe: Recipe, classes: int) -> Paces:
    """Time the net of each stage of `recipe`, in the form that trains; what became of a net takes as long as it."""
    found = Paces()
    with torch.random.fork_rng(devices=[]):
        for stage in recipe.stage:
            if isinstance(stage, Derived):
                found[stage.name] = found.get(stage.of, 0.0)
            elif isinstance(stage, GivenTeacher):
                found[stage.name] = pace(build_teacher(stage.architecture, classes), stage.size)
            elif isinstance(stage, Training) and stage.kind == "teacher":
                found[stage.name] = pace(build_teacher(stage.net, classes), stage.size)
            elif isinstance(stage, Training):
                limit = stage.limit(recipe.budget)
                net = describe(stage.net, limit, classes, stage.size, stage.shape, stage.switches).build()
                found[stage.name] = pace(net, stage.size)
    return found


def pace(net: nn.Module, size: int) -> float:
    """Seconds a pass of `net` takes for one of several images of `size` x `size` pixels, after a first pass."""
    images = torch.rand(TRIED, 3, size, size).to(memory_format=torch.channels_last)
    net = net.eval().to(memory_format=torch.channels_last)
    net(images)
    start = time.perf_counter()
    net(images)
    return (time.perf_counter() - start) / TRIED


def told(seconds: float) -> str:
    """A duration as people say it: `under a minute`, `about 12 min`, `about 1.5 h`."""
    minutes = seconds / 60
    if minutes < 1:
        return "under a minute"
    return f"about {minutes:.0f} min" if minutes < 90 else f"about {minutes / 60:.1f} h"
