"""Validation that is split off: stratified, the same every time, near duplicates on one side, and what is left out."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bantam.data import splitting
from bantam.data.cache import open_splits
from bantam.data.splits import Splits
from bantam.errors import BadData, BadImage
from damage import flipped

SIZE = 16


def picture(seed: int, side: int = 48) -> Image.Image:
    """A smooth picture like no other of another seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def save(path: Path, image: Image.Image, **how: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **how)  # pyright: ignore[reportArgumentType]
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Class folders without splits: 10 of a, 5 of b, 2 of c."""
    seed = 0
    for name, count in (("a", 10), ("b", 5), ("c", 2)):
        for n in range(count):
            save(tmp_path / "photos" / name / f"{n}.png", picture(seed := seed + 1))
    return tmp_path / "photos"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def counts(ids: tuple[str, ...]) -> dict[str, int]:
    return dict(Counter(id.split("/")[0] for id in ids))


def sides(splits: Splits) -> tuple[set[str], set[str]]:
    return set(splits.training.ids), set(splits.validation.ids)


def left_out(splits: Splits) -> list[tuple[str, str, str, str]]:
    assert splits.division is not None
    return [(one.split, one.id, one.why, one.same_as) for one in splits.division.left_out]


def test_a_fifth_of_each_class_and_at_least_one_measure(root: Path, store: Path):
    splits = open_splits(root, SIZE, store)
    assert counts(splits.training.ids) == {"a": 8, "b": 4, "c": 1}
    assert counts(splits.validation.ids) == {"a": 2, "b": 1, "c": 1}
    assert splits.classes == ("a", "b", "c")
    assert splits.evaluation is None
    for split in (splits.training, splits.validation):
        assert [splits.classes[label] for label in split.labels.tolist()] == [id[0] for id in split.ids]


def test_of_very_many_no_more_measure_than_measuring_needs(
    root: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(splitting, "MOST", 3)  # of 17, where a fifth would be 2 + 1 + 1
    splits = open_splits(root, SIZE, store)
    assert counts(splits.validation.ids) == {"a": 2, "b": 1, "c": 1}
    assert splits.division is not None
    assert splits.division.share == 3 / 17
    monkeypatch.setattr(splitting, "MOST", 2)
    assert counts(open_splits(root, SIZE, store).validation.ids) == {"a": 1, "b": 1, "c": 1}


def test_it_is_the_same_at_every_size_in_every_cache_under_every_name(root: Path, store: Path, tmp_path: Path):
    splits = open_splits(root, SIZE, store)
    assert sides(open_splits(root, SIZE + 8, tmp_path / "other", workers=1)) == sides(splits)
    shutil.move(root, tmp_path / "elsewhere")
    assert open_splits(tmp_path / "elsewhere", SIZE, store).fingerprint == splits.fingerprint
    # Whose turn it is is drawn from what a file holds.
    first = splits.validation.ids[0]
    (tmp_path / "elsewhere" / f"{first}.png").rename(tmp_path / "elsewhere" / "a" / "zzz.png")
    renamed = open_splits(tmp_path / "elsewhere", SIZE, store)
    assert set(renamed.validation.ids) == set(splits.validation.ids) - {first} | {"a/zzz"}


def test_another_seed_is_another_split_and_another_fingerprint(
    root: Path, store: Path, monkeypatch: pytest.MonkeyPatch
):
    splits = open_splits(root, SIZE, store)
    monkeypatch.setattr(splitting, "SEED", 1)
    other = open_splits(root, SIZE, store)
    assert sides(other) != sides(splits)
    assert other.fingerprint != splits.fingerprint


def test_near_duplicates_stay_on_one_side(root: Path, store: Path):
    for number in range(1, 9):
        image = Image.open(root / f"a/{number}.png")
        save(root / f"a/{number}-small.jpg", image.resize((30, 30)), quality=60)
    splits = open_splits(root, SIZE, store)
    assert splits.division is not None
    assert sorted(splits.division.groups) == [(f"a/{n}", f"a/{n}-small") for n in range(1, 9)]
    for side in sides(splits):
        assert all((f"a/{n}" in side) == (f"a/{n}-small" in side) for n in range(1, 9))
    assert counts(splits.validation.ids)["a"] == 4
    assert splits.division.left_out == ()
    assert "8 groups of near duplicates" in splits.remarks[0]


def test_a_class_of_one_large_group_and_others_measures_by_the_others(root: Path, store: Path):
    for n in range(2, 6):
        save(root / f"c/again{n}.png", Image.open(root / "c/0.png").resize((30 + n, 30 + n)))
    splits = open_splits(root, SIZE, store)
    assert {id for id in splits.validation.ids if id[0] == "c"} == {"c/1"}
    assert splits.division is not None
    assert splits.division.parted == ()


def test_a_class_of_one_group_alone_is_parted_and_that_is_said(root: Path, store: Path):
    save(root / "c/1.png", Image.open(root / "c/0.png").resize((40, 40)))
    splits = open_splits(root, SIZE, store)
    assert counts(splits.validation.ids)["c"] == counts(splits.training.ids)["c"] == 1
    assert splits.division is not None
    assert splits.division.parted == (("c/0", "c/1"),)
    assert any(line.startswith("warning: a class has only near duplicates") for line in splits.remarks)


def test_doubles_are_left_out_of_training_by_their_pixels(root: Path, store: Path):
    shutil.copy(root / "a/1.png", root / "a/copy.png")
    save(root / "b/other.webp", Image.open(root / "b/2.png"), lossless=True)
    splits = open_splits(root, SIZE, store)
    assert left_out(splits) == [
        ("training", "a/copy", "double", "a/1"),
        ("training", "b/other", "double", "b/2"),
    ]
    assert not {"a/copy", "b/other"} & set.union(*sides(splits))
    assert splits.division is not None
    assert splits.division.groups == (), "what is left of a double is near nothing"
    assert splits.remarks[-1] == "2 photographs left out, 2 double: a/copy (as a/1), b/other (as b/2)"


def test_the_same_photograph_in_two_classes_is_in_none(root: Path, store: Path):
    shutil.copy(root / "a/1.png", root / "b/wrong.png")
    splits = open_splits(root, SIZE, store)
    assert left_out(splits) == [
        ("training", "a/1", "in two classes", "b/wrong"),
        ("training", "b/wrong", "in two classes", "a/1"),
    ]
    assert not {"a/1", "b/wrong"} & set.union(*sides(splits))


def test_evaluation_images_do_not_train_and_do_not_measure(root: Path, store: Path):
    """Their class folders are not labels, and their copies are left out."""
    save(root / "Test/b/x.png", picture(300))
    shutil.copy(root / "a/3.png", root / "Test/b/y.png")
    splits = open_splits(root, SIZE, store)
    assert splits.evaluation is not None
    assert splits.evaluation.ids == ("x", "y")
    assert left_out(splits) == [("training", "a/3", "in evaluation", "y")]
    assert splits.leaks == ()
    assert splits.classes == ("a", "b", "c")


def test_copies_among_images_without_a_label_are_left_out(root: Path, store: Path):
    shutil.copy(root / "a/1.png", root / "a/0.png")
    for name, source in (("again", "a/1"), ("graded", "test/x"), ("own", None)):
        save(root / f"test/{'x'}.png", picture(300))
        image = Image.open(root / f"{source}.png") if source else picture(400)
        save(root / f"unlabelled/{name}.png", image)
    splits = open_splits(root, SIZE, store, unlabelled=True)
    assert [id for id in splits.taught.ids if id.startswith("unlabelled")] == ["unlabelled/own"]
    assert ("unlabelled", "unlabelled/graded", "in evaluation", "x") in left_out(splits)
    assert sides(open_splits(root, SIZE, store)) == sides(splits)


def test_it_is_written_down_and_read_back(root: Path, store: Path, monkeypatch: pytest.MonkeyPatch):
    splits = open_splits(root, SIZE, store)
    (memo,) = (store / "divisions").iterdir()
    told = json.loads(memo.read_text())
    assert (told["seed"], told["share"]) == (splitting.SEED, splitting.SHARE)
    assert told["training"] == list(splits.training.ids)
    assert told["validation"] == list(splits.validation.ids)
    asked: list[int] = []
    look = splitting.likeness.look
    monkeypatch.setattr(splitting.likeness, "look", lambda path: (asked.append(1), look(path))[1])
    assert open_splits(root, SIZE, store).division == splits.division
    assert asked == []
    memo.write_bytes(flipped(memo.read_bytes(), 100))
    assert open_splits(root, SIZE, store).division == splits.division
    assert len(asked) == 17


def test_too_little_left_of_a_class(root: Path, store: Path):
    shutil.copy(root / "c/0.png", root / "c/1.png")
    with pytest.raises(
        BadData, match=r"1 usable photographs of class c, 1 left out \(c/1 is double, as c/0\).*add some"
    ):
        open_splits(root, SIZE, store)


def test_a_damaged_photograph_is_named(root: Path, store: Path):
    (root / "a/2.png").write_bytes(b"no picture")
    with pytest.raises(BadImage, match=r"a/2\.png is not a"):
        open_splits(root, SIZE, store)


def test_a_folder_with_validation_is_taken_as_it_is(root: Path, store: Path, tmp_path: Path):
    """Copies and leaks included: finished runs on it stay what they are."""
    for name in "abc":
        for split in ("train", "val"):
            shutil.copytree(root / name, tmp_path / "prepared" / split / name)
    splits = open_splits(tmp_path / "prepared", SIZE, store)
    assert splits.division is None
    assert splits.remarks == ()
    assert splits.overlap == splits.training.ids
    assert splits.training.ids == splits.validation.ids
    assert len(splits.training) == 17
    assert not (store / "divisions").exists()


def test_a_class_that_nothing_measures_is_said(root: Path, store: Path, tmp_path: Path):
    for name in "abc":
        shutil.copytree(root / name, tmp_path / "prepared" / "train" / name)
    (tmp_path / "prepared" / "val" / "b").mkdir(parents=True)
    shutil.move(tmp_path / "prepared" / "train" / "b" / "0.png", tmp_path / "prepared" / "val" / "b")
    splits = open_splits(tmp_path / "prepared", SIZE, store)
    assert splits.remarks == (
        "warning: no validation image is of class a, c: how good a student is there, nothing says",
    )


def test_what_is_left_out_of_such_a_folder_is_said_too(root: Path, store: Path, tmp_path: Path):
    for name in "abc":
        shutil.copytree(root / name, tmp_path / "prepared" / "train" / name)
        (tmp_path / "prepared" / "val" / name).mkdir(parents=True)
        shutil.move(tmp_path / "prepared" / "train" / name / "0.png", tmp_path / "prepared" / "val" / name)
    shutil.copytree(root / "a", tmp_path / "prepared" / "vall" / "a")
    (tmp_path / "prepared" / "train" / "a" / "x.cr2").touch()
    splits = open_splits(tmp_path / "prepared", SIZE, store)
    assert splits.remarks == (
        "left out: 10 in a folder that is no split (such as vall/a/0.png), 1 .cr2 (train/a/x.cr2)",
        f"{tmp_path / 'prepared' / 'vall'} is left out; if these are the validation images, call it validation",
    )
    assert splits.overlap == ()


@pytest.mark.parametrize(
    ("kind", "fingerprint"),
    [("flat", "87250bd413ea1ee63be88aef06a80a51"), ("classes", "7a4e0382d5e3c2587c2445b6d720d1dd")],
)
def test_prepared_folders_keep_the_fingerprint_of_earlier_versions(
    tmp_path: Path, store: Path, kind: str, fingerprint: str
):
    """So their caches and their runs stay valid."""
    number = 0 if kind == "flat" else 10
    for split, count in (("training", 5), ("validation", 3), ("evaluation", 2)):
        for n in range(count):
            number += 1
            name = f"{n % 2}_{n}.bmp" if kind == "flat" else f"{'ab'[n % 2]}/{n}.bmp"
            colour = (number * 5 % 256, number * 7 % 256, number * 11 % 256)
            save(tmp_path / kind / split / name, Image.new("RGB", (9, 8), colour))
    assert open_splits(tmp_path / kind, 8, store).fingerprint == fingerprint
