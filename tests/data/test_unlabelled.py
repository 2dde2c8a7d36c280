"""Images without a label: where they stand in the cache, and that none that measures can be among them."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bantam.data import images
from bantam.data.cache import open_splits
from bantam.data.splits import LabelledSplit, SemiLabelledSplit
from bantam.errors import BadData, BadImage, SplitLeak
from tiny_run import write_photographs

SIZE = 16


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_photographs(tmp_path / "data", training=12, validation=6, evaluation=4, unlabelled=5)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def entries(store: Path) -> list[str]:
    return sorted(path.name for path in store.iterdir() if path.name not in ("lock", "hashes"))


def test_they_come_after_the_training_split_in_one_mapped_array(root: Path, store: Path) -> None:
    splits = open_splits(root, SIZE, store, unlabelled=True)
    taught = splits.taught
    assert isinstance(taught, SemiLabelledSplit)
    assert isinstance(splits.training, LabelledSplit)
    assert (len(splits.training), len(taught), taught.unlabelled) == (12, 17, 5)
    assert taught.labels.tolist() == splits.training.labels.tolist() + [-1] * 5
    assert taught.ids == splits.training.ids + tuple(f"unlabelled/{number:04d}" for number in range(5))
    assert taught.images.data_ptr() == splits.training.images.data_ptr()
    for row, number in enumerate(range(5), start=12):
        expected = images.decode(root / "unlabelled" / f"{number:04d}.png", SIZE)
        assert np.array_equal(taught.images[row].numpy(), expected)
    assert torch.equal(splits.validation.images, open_splits(root, SIZE, store).validation.images)


def test_they_are_left_out_unless_asked_for(root: Path, store: Path) -> None:
    with_them = open_splits(root, SIZE, store, unlabelled=True)
    without = open_splits(root, SIZE, store)
    assert without.taught is without.training
    assert without.fingerprint != with_them.fingerprint
    before = len(entries(store))
    shutil.copy(root / "unlabelled" / "0000.png", root / "unlabelled" / "more.png")
    assert open_splits(root, SIZE, store).fingerprint == without.fingerprint
    assert len(entries(store)) == before
    assert open_splits(root, SIZE, store, unlabelled=True).fingerprint != with_them.fingerprint


@pytest.mark.parametrize(("split", "file"), [("evaluation", "0001.png"), ("validation", "1_1.png")])
@pytest.mark.parametrize("how", ["same bytes", "same pixels", "a link"])
def test_an_image_that_measures_is_refused_by_name(split: str, file: str, how: str, root: Path, store: Path) -> None:
    open_splits(root, SIZE, store, unlabelled=True)
    source, copy = root / split / file, root / "unlabelled" / "innocent.webp"
    if how == "same bytes":
        shutil.copy(source, copy)
    elif how == "a link":
        copy.symlink_to(source)
    else:
        with Image.open(source) as image:
            image.save(copy, lossless=True)
    before = entries(store)
    with pytest.raises(SplitLeak, match=rf"innocent\.webp is \S+{file}; remove them from unlabelled/") as raised:
        open_splits(root, SIZE, store, unlabelled=True)
    assert f"1 unlabelled image(s) are also in the {split} split" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert entries(store) == before
    assert open_splits(root, SIZE, store).evaluation is not None


@pytest.mark.parametrize("split", ["evaluation", "validation"])
def test_a_folder_that_measures_is_refused_under_any_name(split: str, root: Path, store: Path) -> None:
    shutil.rmtree(root / "unlabelled")
    (root / "unlabelled").symlink_to(root / split, target_is_directory=True)
    with pytest.raises(SplitLeak, match=f"also in the {split} split"):
        open_splits(root, SIZE, store, unlabelled=True)
    assert not store.exists() or entries(store) == []


def test_a_training_image_may_be_among_them(root: Path, store: Path) -> None:
    os.link(root / "training" / "0_0.png", root / "unlabelled" / "known.png")
    assert len(open_splits(root, SIZE, store, unlabelled=True).taught) == 18


def test_without_any_it_says_where_they_belong(root: Path, store: Path) -> None:
    (root / "unlabelled" / "0000.png").write_text("not an image")
    with pytest.raises(BadImage, match=r"unlabelled/0000\.png"):
        open_splits(root, SIZE, store, unlabelled=True)
    shutil.rmtree(root / "unlabelled")
    with pytest.raises(BadData, match=r"unlabelled holds no image; .*data\.unlabelled"):
        open_splits(root, SIZE, store, unlabelled=True)
