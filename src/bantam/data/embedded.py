"""A small real data set that needs no download: scikit-learn's 1,797 handwritten digits.

It is written as an image folder, so that the demonstration takes the path that a user's own data takes.
"""

import csv
import random
from pathlib import Path

import numpy as np
from PIL import Image

from bantam.files import explained, writing

TRAINING, VALIDATION = 1000, 400
SIZE = 32

_LABELS = "labels.csv"


def write_digits(root: Path) -> Path:
    """Write the digits as 32 x 32 PNG files in the flat layout, and return the path of `root`/labels.csv.

    About 1,000 images are for training, 400 for validation and the rest for evaluation, drawn within each
    class by a fixed seed. labels.csv (Id,Category,Usage) holds the evaluation labels, half of them Public
    and half Private, for grading alone. It is written last: where it stands the folder is whole, and nothing
    is written again. Raises CannotWrite.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 (its test part).
    """
    labels_csv = root / _LABELS
    if labels_csv.exists():
        return labels_csv
    from sklearn.datasets import load_digits  # Slow to import, and needed once in a demo's life.

    digits, labels = load_digits(return_X_y=True)
    grey = np.rint(digits.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)  # [N, 8, 8], from 0..16
    split = _split(labels.tolist())

    for name in ("training", "validation"):
        for n, index in enumerate(split[name]):
            _write(root / name / f"{labels[index]}_{n}.png", grey[index])
    for n, index in enumerate(split["evaluation"]):
        _write(root / "evaluation" / f"{n:04d}.png", grey[index])
    with writing(labels_csv) as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("Id", "Category", "Usage"))
        for n, index in enumerate(split["evaluation"]):
            rows.writerow((f"{n:04d}", labels[index], ("Public", "Private")[n % 2]))
    return labels_csv


def _split(labels: list[int]) -> dict[str, list[int]]:
    """Indices of each split: the same share of every class, in random order."""
    # Python promises the same random() for the same seed in every version; shuffles carry no such promise.
    generator = random.Random(0)
    order = sorted(range(len(labels)), key=lambda _: generator.random())
    split: dict[str, list[int]] = {"training": [], "validation": [], "evaluation": []}
    for label in sorted(set(labels)):
        members = [index for index in order if labels[index] == label]
        first = round(len(members) * TRAINING / len(labels))
        second = round(len(members) * (TRAINING + VALIDATION) / len(labels))
        split["training"] += members[:first]
        split["validation"] += members[first:second]
        split["evaluation"] += members[second:]
    place = {index: position for position, index in enumerate(order)}
    # By class the evaluation ids would give the labels away.
    split["evaluation"].sort(key=place.__getitem__)
    return split


def _write(path: Path, grey: np.ndarray) -> None:
    image = Image.fromarray(grey).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
