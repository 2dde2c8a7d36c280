"""The examples beside an exported ONNX run as they are written, and say what Bantam says of a photograph in one look.

That in JavaScript needs node, and the packages that `make browser` fetches; it is skipped without them.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bantam.data import images
from bantam.data.folder import FOOD_11
from bantam.deliver.export.example import named, texts
from bantam.deliver.export.forms import Material, export
from bantam.deliver.export.session import onnx_session
from bantam.deliver.graph_classifier import GraphClassifier
from bantam.runs.finished import FOOD11, open_run
from bantam.runs.watcher import Watcher

PACKAGES = Path(__file__).parents[3] / "build" / "browser" / "node_modules"


def photographs(folder: Path) -> list[Path]:
    """Lying, standing on its side by EXIF, half transparent, grey."""
    noise = np.random.default_rng(3).integers(0, 256, (24, 18, 3), dtype=np.uint8)
    scene = Image.fromarray(noise).resize((480, 360), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6
    scene.save(folder / "lying.jpg", quality=95)
    scene.crop((0, 0, 200, 330)).save(folder / "turned.jpg", quality=95, exif=exif)
    clear = scene.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(scene.size))
    clear.save(folder / "clear.png")
    scene.convert("L").save(folder / "grey.png")
    return [folder / name for name in ("lying.jpg", "turned.jpg", "clear.png", "grey.png")]


def said(command: list[str], photo: Path) -> dict[str, float]:
    ended = subprocess.run([*command, str(photo)], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr[-1500:]
    rows = [line.rsplit(" ", 1) for line in ended.stdout.splitlines()]
    return {name: float(share.removesuffix("%")) for name, share in rows}


@pytest.fixture(params=[64, 96], ids=["stored as it is seen", "stored larger"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, GraphClassifier]:
    """The food model's graph under a name with a blank in it, and who answers by it in Bantam."""
    path = tmp_path / "my student.onnx"
    shutil.copy(FOOD11 / "student.onnx", path)
    for file, text in texts(path, FOOD_11, request.param, 64).items():
        file.write_text(text, encoding="utf-8")
    return path, GraphClassifier(onnx_session(path.read_bytes()), FOOD_11, request.param, "plain")


@pytest.mark.parametrize("language", ["python", "javascript"])
def test_an_example_gives_bantams_answer(place: tuple[Path, GraphClassifier], language: str, tmp_path: Path) -> None:
    path, classifier = place
    python, javascript = named(path)
    command = [sys.executable, "-I", str(python)]
    if language == "javascript":
        lacking = [name for name in ("sharp", "onnxruntime-web") if not (PACKAGES / name).is_dir()]
        if shutil.which("node") is None or lacking:
            pytest.skip("node, or its packages sharp and onnxruntime-web, are not here: make browser")
        (tmp_path / "node_modules").symlink_to(PACKAGES, target_is_directory=True)
        command = ["node", str(javascript)]
    for photo in photographs(tmp_path):
        expected = classifier.probabilities(images.decode(photo, classifier.stored))
        answer = said(command, photo)
        assert len(answer) == 3
        for name, share in answer.items():
            assert share == pytest.approx(
                100 * expected[FOOD_11.index(name)], abs=3.0 if language == "javascript" else 0.5
            ), photo.name
        assert next(iter(answer)) == FOOD_11[int(expected.argmax())]


def test_examples_are_short_and_lie_beside_every_onnx(own_run: Path, photographs: Path, tmp_path: Path) -> None:
    run = open_run(own_run)
    net, shipped = run.whole_way()
    material = Material(run, net, shipped, run.open_data(photographs, Watcher()))
    (tmp_path / "student.py").write_text("mine")
    export(material, "onnx", tmp_path / "student.onnx")
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {
        "student.onnx", "student-example.py", "student-example.mjs", "student.py",
    }  # fmt: skip
    assert (tmp_path / "student.py").read_text() == "mine"
    for path in named(tmp_path / "student.onnx"):
        lines = [line for line in path.read_text().splitlines() if line.strip() and "import" not in line]
        assert len(lines) <= 13, "ten lines, but for imports, the heading and the ends of blocks"
    photo = next((photographs / "validation").iterdir())
    expected = GraphClassifier(onnx_session((tmp_path / "student.onnx").read_bytes()), shipped.classes, 32, "plain")
    shares = expected.probabilities(images.decode(photo, 32))
    answer = said([sys.executable, "-I", str(tmp_path / "student-example.py")], photo)
    assert answer == pytest.approx({name: 100 * float(shares[k]) for k, name in enumerate(shipped.classes)}, abs=0.06)


def test_names_of_classes_are_quoted(tmp_path: Path) -> None:
    names = ['crème "brûlée"', "it's\\n", "</b>"]
    python, javascript = (text for text in texts(tmp_path / "a.onnx", names, 64, 48).values())
    assert json.dumps(names, ensure_ascii=False) in javascript
    found: dict[str, list[str]] = {}
    exec(next(line for line in python.splitlines() if line.startswith("CLASSES")), found)
    assert found["CLASSES"] == names
