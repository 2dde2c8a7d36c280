"""Single photographs get the answers that the cached split gets, and the model that ships is whole."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from bantam.data import cache
from bantam.data.folder import scan
from bantam.deliver.classify import classify_files, load_classifier
from bantam.deliver.graph_classifier import ranked
from bantam.errors import BadCheckpoint, BadData, BadImage
from bantam.measure.tta import TTA, logits_of_tta
from bantam.pipeline import run as pipeline
from bantam.recipes.recipe import parse
from bantam.runs.finished import FOOD11, open_run
from tiny_run import RECIPE, write_photographs

NAMES = (
    "Bread", "Dairy product", "Dessert", "Egg", "Fried food", "Meat", "Noodles-Pasta", "Rice", "Seafood", "Soup",
    "Vegetable-Fruit",
)  # fmt: skip


@pytest.fixture(scope="module")
def larger_photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs that are not square, in three formats, so that decoding has something to crop and to resize."""
    root = write_photographs(tmp_path_factory.mktemp("larger"), validation=9)
    for number, path in enumerate(sorted((root / "validation").iterdir())):
        suffix = (".jpg", ".png", ".webp")[number % 3]
        picture = Image.open(path).resize((300, 170 + 20 * number))
        path.unlink()
        picture.save(path.with_suffix(suffix), quality=90)
    return root


@pytest.mark.parametrize("stored", [32, 48])
def test_single_files_get_the_answers_of_the_cached_split(
    larger_photographs: Path, tmp_path: Path, stored: int
) -> None:
    pipeline.run(parse(RECIPE.replace("size = 32", f"size = {stored}", 1)), larger_photographs, tmp_path / "run")
    validation = cache.open_splits(larger_photographs, stored).validation
    classifier = load_classifier(open_run(tmp_path / "run"))
    paths = [record.path for record in scan(larger_photographs).validation]
    for views in TTA:
        asked = load_classifier(open_run(tmp_path / "run"), views)
        expected = logits_of_tta(classifier.net, validation, 32, classifier.shipped.normalisation, views).softmax(1)
        torch.testing.assert_close(classify_files(asked, paths), expected, atol=1e-6, rtol=1e-5)


def test_the_shipped_model_names_its_classes_and_answers_as_its_run_did(food11: Path) -> None:
    classifier = load_classifier(open_run(FOOD11))
    assert classifier.shipped.classes == NAMES
    records = scan(food11).validation[:: 4432 // 100]
    answers = classify_files(classifier, [record.path for record in records])
    right = sum(int(row.argmax()) == record.label for row, record in zip(answers, records, strict=True))
    assert right / len(records) == pytest.approx(0.755, abs=3 * 0.043)
    torch.testing.assert_close(answers.sum(1), torch.ones(len(records)))


def test_the_shipped_model_needs_no_data(tmp_path: Path) -> None:
    classifier = load_classifier(open_run(FOOD11))
    Image.new("RGB", (200, 120), (200, 40, 30)).save(tmp_path / "red.png")
    (row,) = classify_files(classifier, [tmp_path / "red.png"])
    best = ranked(row, classifier.shipped.classes)
    assert [name for name, _ in best] != sorted(name for name, _ in best)
    assert [value for _, value in best] == sorted((value for _, value in best), reverse=True)
    assert {name for name, _ in best} == set(NAMES)


def test_what_cannot_be_classified_says_so(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    classifier = load_classifier(open_run(FOOD11))
    with pytest.raises(BadImage, match=r"text\.jpg is not a JPEG"):
        classify_files(classifier, [tmp_path / "text.jpg"])
    with pytest.raises(BadData, match="holds no run"):
        load_classifier(open_run(tmp_path))


@pytest.mark.parametrize("metrics", ["", "{}", '{"validation": 3}'])
def test_a_run_with_broken_metrics_is_refused(tmp_path: Path, metrics: str) -> None:
    for name in ("recipe.toml", "student.json", "student_best.ckpt"):
        (tmp_path / name).write_bytes((FOOD11 / name).read_bytes())
    with pytest.raises(BadData, match=r"no metrics\.json"):
        load_classifier(open_run(tmp_path))
    (tmp_path / "metrics.json").write_text(metrics)
    with pytest.raises(BadData, match="run the recipe again"):
        load_classifier(open_run(tmp_path))
    (tmp_path / "student_best.ckpt").write_bytes(b"?")
    with pytest.raises(BadCheckpoint):
        load_classifier(open_run(tmp_path))
    assert json.loads((FOOD11 / "metrics.json").read_text())["parameters"]["unique"] == 59_774
