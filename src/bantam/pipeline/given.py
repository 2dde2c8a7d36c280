"""What a run rests on besides its photographs, looked at before a folder is made: teachers."""

from pathlib import Path

import torch

from bantam.errors import BadCheckpoint
from bantam.nets.teachers import build_teacher, load_teacher
from bantam.nets.weights import file_and_name
from bantam.recipes import recipe as recipes
from bantam.recipes.kinds.given_teacher import GivenTeacher
from bantam.recipes.kinds.training import Training
from bantam.recipes.recipe import Recipe


def require_there(recipe: Recipe, root: Path) -> None:
    """Raises BadCheckpoint, in words of what to do, where a given teacher of `recipe` has no file in `root`."""
    for stage in recipe.stage:
        if not isinstance(stage, GivenTeacher):
            continue
        file, _ = file_and_name(root / stage.checkpoint)
        if not file.exists():
            raise BadCheckpoint(
                f'{file} is not there, the weights of the teacher that the recipe "{recipe.name}" learns from (stage '
                f'"{stage.name}", {stage.architecture}); put it there, or take a recipe that needs none '
                f"({', '.join(self_sufficient())}); `bantam recipes show demo` shows how a stage of kind teacher "
                "trains one of your own"
            )


def require_fit(recipe: Recipe, root: Path, classes: int) -> None:
    """Read every given teacher of `recipe`, and build every one that is to be trained, for so many classes.

    Raises BadCheckpoint for weights that do not load or fit, BadRecipe for an architecture that nobody knows.
    """
    with torch.random.fork_rng(devices=[]):
        for stage in recipe.stage:
            if isinstance(stage, GivenTeacher):
                load_teacher(root / stage.checkpoint, stage.architecture, classes)
            elif isinstance(stage, Training) and stage.kind == "teacher":
                build_teacher(stage.net, classes)


def self_sufficient() -> list[str]:
    """The names of those shipped recipes that need nothing but photographs."""
    loaded = {name: recipes.load(name) for name in recipes.shipped()}
    return [name for name, one in loaded.items() if not any(isinstance(stage, GivenTeacher) for stage in one.stage)]
