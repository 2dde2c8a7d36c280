"""A small real run for many tests: the photographs, the recipe and its step."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bantam.data import cache
from bantam.data.splits import IMAGENET
from bantam.nets.students import describe
from bantam.pipeline import run as pipeline
from bantam.recipes.recipe import parse
from bantam.train.plan import Plan
from bantam.train.step import Step

RECIPE = """
name = "tiny"
budget = 5000
[data]
size = 32
[[stage]]
name = "student"
kind = "student"
net = "mobilenet_v1"
size = 32
epochs = 4
batch_size = 10
ema = 0.9
precision = "fp32"
[stage.augment]
scale = [0.6, 1.0]
cutmix = 0.5
[stage.optimizer]
lr = 5e-3
[stage.objectives.supervised]
weight = 1.0
"""

# Runs the pipeline with a checkpoint after every step, and kills itself before the step of the given number.
RUNS_AND_DIES = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from bantam.pipeline import run as pipeline
from bantam.recipes import recipe
from bantam.train import loop
from bantam.train.plan import Plan
from bantam.train.step import Step

text, root, out, at = sys.argv[1:]
if int(at):
    loop.SAVE_EVERY = 0.0
count, original = 0, Step.learn

def counted(*args):
    global count
    count += 1
    if count == int(at):
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args)

Step.learn = counted
pipeline.run(recipe.parse(text), Path(root), Path(out))
"""


def write_photographs(
    root: Path, training: int = 60, validation: int = 30, evaluation: int = 12, unlabelled: int = 0
) -> Path:
    """Noisy 32 px images of three classes, told apart by their colour, in the flat layout."""
    draw = np.random.default_rng(7)
    colours = np.array([[200, 60, 60], [60, 200, 60], [60, 60, 200]])
    counts = {"training": training, "validation": validation, "evaluation": evaluation, "unlabelled": unlabelled}
    for split, count in counts.items():
        if count:
            (root / split).mkdir(parents=True)
        for number in range(count):
            label = number % 3
            pixels = np.clip(colours[label] + draw.normal(0, 60, (32, 32, 3)), 0, 255).astype(np.uint8)
            name = f"{number:04d}.png" if split in ("evaluation", "unlabelled") else f"{label}_{number}.png"
            Image.fromarray(pixels).save(root / split / name)
    return root


def tiny_step(photographs: Path) -> Step:
    """The step of RECIPE's student, fresh and the same each time."""
    recipe = parse(RECIPE)
    splits = cache.open_splits(photographs, 32)
    torch.manual_seed(0)
    net = describe(recipe.shipped.net, recipe.budget, 3, 32).build().train()
    return Step(net, Plan(recipe.shipped, splits.training, IMAGENET, pipeline.goals_of(recipe.shipped)), 100)
