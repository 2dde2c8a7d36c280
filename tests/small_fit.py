"""A small fit: noisy pictures in bare class folders, a machine of known speed, and an end that is planned as short."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bantam.fit import planning, whole
from bantam.fit.asked import Asked
from bantam.fit.stopwatch import Speed

ASKED = Asked(120.0, parameters=5_000)
"""More than it needs on a busy machine: a schedule is stretched to so much and no further."""

FIT = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
import small_fit
from bantam.fit.whole import fit
from bantam.fit.watching import FitWatcher
small_fit.known_speed(setattr)
fit(Path(sys.argv[2]), small_fit.ASKED, Path(sys.argv[3]), FitWatcher())
"""
"""A fit in a process of its own: the folder of this file, photographs, run."""


def write_pictures(root: Path, classes: tuple[str, ...] = ("red", "green", "blue"), each: int = 20) -> Path:
    """Pictures of 40 x 36 pixels, told apart by their colour, in a folder for each class."""
    draw = np.random.default_rng(3)
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for image in range(each):
            colour = np.full(3, 60.0)
            colour[number % 3] = 200.0
            pixels = np.clip(colour + draw.normal(0, 60, (36, 40, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / name / f"{image}.png")
    return root


def known_speed(patch: object) -> None:
    """Have the stopwatch say, without its seconds, what a slow machine would: few epochs fill the time."""
    put = patch.setattr if isinstance(patch, pytest.MonkeyPatch) else setattr
    put(whole, "speed_of", lambda stage, *_: Speed(0.5 if stage.net == "largekernel" else 0.2, 0.05))
    put(planning, "FIXED", 0.2)
    put(whole, "FIXED", 0.2)
    put(planning, "LEAST", 0.2)
    put(whole, "LEAST", 0.2)
