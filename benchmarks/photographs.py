"""Generated photographs for the benchmarks: as an array on disk like the cache's, or as a folder of JPEG files."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bantam.data import cache
from bantam.data.splits import LabelledSplit

CLASSES = tuple(f"class {number}" for number in range(11))
CHUNK = 1000


def array_split(path: Path, count: int, size: int, *, sparse: bool = False) -> LabelledSplit:
    """`count` random images as an array on disk in the cache's own format, mapped as the cache maps its own.

    With `sparse` all pixels are 0 and the file takes no space.
    """
    header = cache._header(count, size)
    if not path.exists():
        block = np.random.default_rng(0).integers(0, 256, CHUNK * size * size * 3, dtype=np.uint8).tobytes()
        with open(path, "wb") as file:
            file.write(header)
            for start in range(0, 0 if sparse else count, CHUNK):
                file.write(block[: min(CHUNK, count - start) * size * size * 3])
            file.truncate(len(header) + count * size * size * 3)
    labels = torch.arange(count) % len(CLASSES)
    ids = tuple(map(str, range(count)))
    return LabelledSplit("training", cache._map(path, count, size), labels, ids, CLASSES)


def write_folder(root: Path, training: int, validation: int, size: int) -> Path:
    """A folder in the flat layout: blurred noise, of which JPEG makes files as large as a photograph's."""
    draw = np.random.default_rng(0)
    for split, count in (("training", training), ("validation", validation)):
        (root / split).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            coarse = Image.fromarray(draw.integers(0, 256, (size // 4, size // 4, 3), dtype=np.uint8))
            image = coarse.resize((size, size), Image.Resampling.BICUBIC)
            image.save(root / split / f"{number % len(CLASSES)}_{number}.jpg", quality=90)
    return root
