"""The photographs of a run: a data folder at the size, and normalised in the way, that its recipe asks for."""

from pathlib import Path

from bantam.data import cache
from bantam.data.splits import IMAGENET, Normalisation, Splits, normalisation_of
from bantam.recipes.recipe import Recipe
from bantam.runs.watcher import Counter, Watcher


def open_data(recipe: Recipe, root: Path, watcher: Watcher, *, unlabelled: bool = True) -> Splits:
    """The splits of the folder `root` at the recipe's size, decoded now or earlier. Raises as `cache.open_splits`.

    Without `unlabelled` images that have no label stay out, even where the recipe learns from them.
    """
    progress = Counter(watcher, "decoding")
    unlabelled = unlabelled and recipe.data.unlabelled
    return cache.open_splits(root, recipe.data.size, progress=progress, unlabelled=unlabelled, say=watcher.say)


def normalisation(recipe: Recipe, splits: Splits) -> Normalisation:
    """What the recipe's students are trained with: the training images' own, or ImageNet's."""
    return normalisation_of(splits.training) if recipe.data.normalisation == "training" else IMAGENET
