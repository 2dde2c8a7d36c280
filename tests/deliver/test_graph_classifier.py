"""A photograph's class by the ONNX graph: the same as in PyTorch, and the graph that ships is that of the weights."""

import contextlib
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from bantam.cli import main as cli
from bantam.data.images import decode
from bantam.deliver.classify import classify_files, load_classifier
from bantam.deliver.export.forms import about, portable
from bantam.deliver.export.session import onnx_session
from bantam.deliver.graph_classifier import GraphClassifier, graph_classifier, ranked
from bantam.errors import BadData, BadImage, BadRunFile, NotFinite
from bantam.measure.tta import TTA
from bantam.runs import runfolder
from bantam.runs.finished import FOOD11, load_shipped, open_run
from bantam.runs.student_graph import GRAPH


def by_graph(run: Path, stored: int, tta: str | None = None) -> GraphClassifier:
    found = graph_classifier(open_run(run), tta)
    assert found is not None
    return replace(found, stored=stored)


@pytest.fixture
def food(tmp_path: Path) -> Path:
    """A copy of the food model that a test may change."""
    return Path(shutil.copytree(FOOD11, tmp_path / "food"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files of several sizes, shapes and formats."""
    place = tmp_path_factory.mktemp("pictures")
    noise = np.random.default_rng(0)
    paths = []
    for number, size in enumerate(((64, 64), (200, 130), (31, 47), (300, 300), (90, 410), (1, 1))):
        paths.append(place / f"{number}{('.png', '.jpg', '.webp')[number % 3]}")
        coarse = Image.fromarray(noise.integers(0, 256, (6, 6, 3), np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).save(paths[-1])
    return paths


def test_the_graph_that_ships_computes_what_the_weights_compute() -> None:
    net, shipped = load_shipped(FOOD11)
    session = onnx_session((FOOD11 / GRAPH).read_bytes())
    images = torch.rand(24, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    images = torch.cat([images, torch.zeros(1, 3, 64, 64), torch.ones(1, 3, 64, 64)])
    with torch.inference_mode():
        expected = portable(net, shipped)(images)
    (seen,), (said,) = session.get_inputs(), session.get_outputs()
    logits = session.run([said.name], {seen.name: images.numpy()})[0]
    np.testing.assert_allclose(np.asarray(logits), expected.numpy(), rtol=1e-5, atol=2e-5)
    told = session.get_modelmeta().custom_metadata_map
    assert {name: told[name] for name in about(shipped, "float32")} == about(shipped, "float32")


@pytest.mark.parametrize("stored", [64, 96, 50])
def test_every_tta_gives_the_probabilities_of_pytorch(pictures: list[Path], stored: int) -> None:
    for tta in TTA:
        expected = classify_files(replace(load_classifier(open_run(FOOD11), tta), stored=stored), pictures).numpy()
        answers = np.stack([by_graph(FOOD11, stored, tta).classify(path) for path in pictures])
        np.testing.assert_allclose(answers, expected, rtol=0, atol=1e-5)
        assert (answers.argmax(1) == expected.argmax(1)).all()
    assert by_graph(FOOD11, stored).tta == load_classifier(open_run(FOOD11)).tta == "crops"


def test_real_photographs_get_the_answers_of_pytorch(food11: Path) -> None:
    paths = sorted((food11 / "evaluation").iterdir())[::200]
    assert len(paths) > 10
    expected = classify_files(load_classifier(open_run(FOOD11)), paths).numpy()
    classifier = by_graph(FOOD11, 64)
    answers = np.stack([classifier.classify(path) for path in paths])
    np.testing.assert_allclose(answers, expected, rtol=0, atol=1e-5)
    assert (answers.argmax(1) == expected.argmax(1)).all()


def test_what_a_person_reads_is_what_pytorch_says(
    food: Path, pictures: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same lines to the letter, whoever answers; --json the same numbers but for rounding."""

    def said(*words: object) -> str:
        monkeypatch.setattr(
            sys, "argv", ["bantam", "predict", *map(str, pictures), "--run", str(food), *map(str, words)]
        )
        with contextlib.suppress(SystemExit):
            cli.main()
        return capsys.readouterr().out

    lines, numbers = said(), json.loads(said("--json"))
    (food / GRAPH).unlink()  # the weights answer then
    assert said() == lines
    in_pytorch = json.loads(said("--json"))
    for path, answer in numbers.items():
        assert list(answer) == list(in_pytorch[path])
        assert list(answer.values()) == pytest.approx(list(in_pytorch[path].values()), abs=1e-5)


def test_what_cannot_be_answered_says_so(food: Path, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(BadImage, match=r"text\.jpg is not a JPEG"):
        by_graph(food, 64).classify(tmp_path / "text.jpg")
    with pytest.raises(BadData, match="--views is one of plain, flip"):
        graph_classifier(open_run(food), "none")
    (food / "metrics.json").unlink()
    with pytest.raises(BadData, match="not finished"):
        graph_classifier(open_run(food))


@pytest.mark.parametrize("labels", [None, [], ["Bread"], ["Bread"] * 12, [3] * 11, "elevennames"])
def test_labels_that_do_not_fit_the_graph_are_one_line(food: Path, labels: object) -> None:
    runfolder.write(food / runfolder.STUDENT, {**runfolder.student(food), "labels": labels})
    with pytest.raises(BadRunFile, match=r"student\.json does not name 11 classes"):
        graph_classifier(open_run(food))


def test_answers_that_are_not_finite_are_none(food: Path, pictures: list[Path]) -> None:
    model = onnx.load_from_string((food / GRAPH).read_bytes())
    bias = next(item for item in model.graph.initializer if item.name == "net.head.bias")
    broken = np.array(onnx.numpy_helper.to_array(bias))
    broken[3] = np.nan
    bias.CopyFrom(onnx.numpy_helper.from_array(broken, bias.name))
    session = onnx_session(model.SerializeToString())
    with pytest.raises(NotFinite, match="answers to 1 of 1 images are not finite"):
        GraphClassifier(session, ("",) * 11, 64, "crops").probabilities(decode(pictures[0], 64))


def test_of_equally_probable_classes_the_first_stands_first() -> None:
    assert ranked([0.2, 0.5, 0.2, 0.1], ("a", "b", "c", "d")) == [("b", 0.5), ("a", 0.2), ("c", 0.2), ("d", 0.1)]
    assert ranked(torch.tensor([0.25, 0.75]), ("a", "b")) == [("b", 0.75), ("a", 0.25)]
