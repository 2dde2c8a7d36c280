"""The digits as a folder: whole, balanced, the same every time."""

import csv
import hashlib
import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from bantam.data import embedded
from bantam.data.check import check
from bantam.data.folder import scan


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return embedded.write_digits(tmp_path_factory.mktemp("digits") / "data")


def test_it_is_a_good_folder(digits: Path):
    folder = scan(digits.parent)
    sizes = len(folder.training), len(folder.validation), len(folder.evaluation)
    assert sizes == (1000, 401, 396)
    assert folder.classes == tuple("0123456789")
    assert [record.id for record in folder.evaluation] == [f"{n:04d}" for n in range(396)]
    for records in (folder.training, folder.validation):
        per_class = Counter(record.label for record in records).values()
        assert max(per_class) - min(per_class) <= 5
    report = check(digits.parent)
    assert report.unsafe == ()
    assert report.sizes["training"]["max"] == (32, 32)


def test_labels_csv(digits: Path):
    with open(digits, newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["Id", "Category", "Usage"]
    assert [row["Id"] for row in rows] == [f"{n:04d}" for n in range(396)]
    assert Counter(row["Usage"] for row in rows) == {"Public": 198, "Private": 198}
    # Not sorted by class: the order of the ids must not give the labels away.
    categories = [int(row["Category"]) for row in rows]
    assert sum(a != b for a, b in itertools.pairwise(categories)) > 300


def test_every_digit_is_there_once_with_its_own_label(digits: Path):
    with open(digits, newline="") as file:
        categories = {row["Id"]: int(row["Category"]) for row in csv.DictReader(file)}

    def digest(image: Image.Image, label: int | None) -> str:
        return hashlib.sha256(image.tobytes() + bytes([label or 0])).hexdigest()

    originals, labels = load_digits(return_X_y=True)
    grey = np.rint(originals.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    bicubic = Image.Resampling.BICUBIC
    expected = Counter(
        digest(Image.fromarray(image).resize((32, 32), bicubic), int(label))
        for image, label in zip(grey, labels, strict=True)
    )
    folder = scan(digits.parent)
    written: Counter[str] = Counter()
    for record in (*folder.training, *folder.validation, *folder.evaluation):
        with Image.open(record.path) as image:
            written[digest(image, categories[record.id] if record.label is None else record.label)] += 1
    assert written == expected


def test_it_is_the_same_everywhere_and_resumes(digits: Path, tmp_path: Path):
    again = tmp_path / "again"
    (again / "training").mkdir(parents=True)
    (again / "training" / "0_0.png").write_bytes(b"half a file of a killed process")
    assert embedded.write_digits(again).read_bytes() == digits.read_bytes()
    for path in sorted(digits.parent.rglob("*.png")):
        assert (again / path.relative_to(digits.parent)).read_bytes() == path.read_bytes()
    # A golden value: another split would make earlier results of the demonstration incomparable.
    assert hashlib.sha256(digits.read_bytes()).hexdigest()[:16] == "66338eae3540cb7f"


def test_a_whole_folder_is_left_alone(digits: Path):
    before = (digits.parent / "evaluation" / "0000.png").stat().st_mtime_ns
    assert embedded.write_digits(digits.parent) == digits
    assert (digits.parent / "evaluation" / "0000.png").stat().st_mtime_ns == before
