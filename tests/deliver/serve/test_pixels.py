"""The page's own decoding, pixels.js, gives Pillow's bytes; the file itself runs, in node."""

import io
import json
import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bantam.data.images import decode_bytes, to_rgb
from bantam.deliver.serve.app import STATIC

SIZES = 200


def sizes() -> list[tuple[int, int, int]]:
    """Width, height and stored side: lying and standing, tiny, enlarged, reduced, and where the passes change."""
    draw = random.Random(0)
    found = [(67, 101, 64), (1, 1, 8), (1, 50, 8), (50, 1, 8), (64, 64, 64), (64, 90, 64), (91, 64, 64), (3, 400, 16)]
    while len(found) < SIZES:
        stored = draw.choice((8, 16, 31, 32, 64))
        width = draw.randint(1, 160)
        # Around the height from which Pillow begins with the other pass, and anywhere.
        height = draw.choice((max(1, 2 * width - stored + draw.randint(-1, 2)), draw.randint(1, 240)))
        found.append((width, height, stored))
    return found


def pictures(drawn: list[tuple[int, int, int]]) -> list[bytes]:
    """A PNG of each size, of noise, in which every rounding shows: colour, grey, palette, half transparent."""
    noise = np.random.default_rng(0)
    files = []
    for number, (width, height, _) in enumerate(drawn):
        channels = (3, 1, 1, 4)[number % 4]
        pixels = noise.integers(0, 256, (height, width, channels), dtype=np.uint8)
        image = Image.fromarray(pixels.squeeze(2) if channels == 1 else pixels)
        if number % 4 == 2:
            image.putpalette(noise.bytes(768))
        file = io.BytesIO()
        image.save(file, "PNG", compress_level=0)
        files.append(file.getvalue())
    return files


def test_every_size_has_pillows_bytes(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not here")
    drawn = sizes()
    files = pictures(drawn)
    names = [tmp_path / name for name in ("list.json", "pictures", "out")]
    names[0].write_text(json.dumps(drawn))
    names[1].write_bytes(b"".join(to_rgb(data, Path("x.png")).tobytes() for data in files))
    script = Path(__file__).with_name("squares.mjs")
    ended = subprocess.run([node, script, STATIC / "pixels.js", *names], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    seen = np.frombuffer(names[2].read_bytes(), np.uint8)
    at = differing = 0
    for (*_, stored), data in zip(drawn, files, strict=True):
        expected = decode_bytes(data, Path("x.png"), stored)
        differing += not np.array_equal(seen[at : at + expected.size].reshape(expected.shape), expected)
        at += expected.size
    assert at == len(seen)
    assert differing == 0
    landscape = sum(width > height for width, height, _ in drawn)
    other_way = sum(height - stored > 2 * max(0, width - stored) for width, height, stored in drawn)
    assert landscape > 20
    assert other_way > 50
