"""What `check` must find, and that it goes on after each finding."""

import json
import shutil
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import ExifTags, Image

from bantam.data.check import Copy, check
from bantam.errors import BadData


def noise(path: Path, seed: int, width: int = 12, height: int = 9) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(autouse=True)
def store(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own."""
    monkeypatch.setenv("BANTAM_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """3 + 2 training, 1 + 1 validation and 2 evaluation images, all different."""
    names = ("training/0_0", "training/0_1", "training/0_2", "training/1_0", "training/1_1")
    names += ("validation/0_0", "validation/1_0", "evaluation/0000", "evaluation/0001")
    for seed, name in enumerate(names):
        noise(tmp_path / f"{name}.png", seed)
    return tmp_path


def test_a_good_folder(root: Path):
    steps: list[tuple[int, int]] = []
    report = check(root, progress=lambda done, total: steps.append((done, total)))
    assert report.unsafe == report.warnings == report.duplicates == ()
    assert report.counts == {"training": {"0": 3, "1": 2}, "validation": {"0": 1, "1": 1}}
    assert report.evaluation == 2
    assert report.layout == "flat"
    assert report.ignored == 0
    assert report.unreadable == {}
    assert steps[-1] == (9, 9)


def test_an_archive_is_called_as_it_was_given(root: Path, tmp_path_factory: pytest.TempPathFactory):
    archive = Path(shutil.make_archive(str(tmp_path_factory.mktemp("given") / "mine"), "zip", root))
    report = check(archive)
    assert report.text().splitlines()[0] == f"{archive}: 2 classes, flat layout"
    assert report.to_json()["root"] == str(archive)


def test_sizes(root: Path):
    noise(root / "training/1_2.png", 100, width=20, height=5)
    noise(root / "training/1_3.png", 101, width=30, height=50)
    sizes = check(root).sizes
    assert sizes["training"] == {"min": (12, 5), "median": (12, 9), "max": (30, 50)}
    assert sizes["evaluation"] == {"min": (12, 9), "median": (12, 9), "max": (12, 9)}


@pytest.mark.parametrize("split", ["training", "validation", "evaluation"])
def test_unreadable_files(root: Path, split: str):
    (root / split / "0_9.png").write_text("not an image")
    report = check(root)
    assert list(report.unreadable) == [f"{split}/0_9.png"]
    assert "is not a JPEG" in report.unreadable[f"{split}/0_9.png"]
    assert len(report.unsafe) == 1
    assert report.unsafe[0].startswith("1 unreadable file, ")


@pytest.mark.parametrize(
    ("copied", "place", "message"),
    [
        ("training/0_1.png", "evaluation/0002.png", "1 training image also in the evaluation split, 0_1"),
        ("validation/1_0.png", "evaluation/0002.png", "1 validation image also in the evaluation split, 1_0"),
        ("training/0_1.png", "validation/0_9.png", "1 training image also in the validation split, 0_1"),
    ],
)
def test_an_image_in_two_splits_is_unsafe(root: Path, copied: str, place: str, message: str):
    shutil.copy(root / copied, root / place)
    report = check(root)
    assert len(report.unsafe) == 1
    assert report.unsafe[0].startswith(message)
    assert len(report.duplicates) == 1


def test_images_without_a_label_are_counted_and_leaks_among_them_found(root: Path):
    for number in range(4):
        noise(root / f"unlabelled/{number}.png", 200 + number)
    shutil.copy(root / "training/0_0.png", root / "unlabelled/again.png")
    good = check(root)
    assert (good.unlabelled, good.unsafe) == (5, ())
    assert any(line.split() == ["unlabelled", "5"] for line in good.text().splitlines())
    assert good.to_json()["unlabelled"] == 5
    shutil.copy(root / "validation/0_0.png", root / "unlabelled/seen.png")
    with Image.open(root / "evaluation/0001.png") as image:
        image.save(root / "unlabelled/graded.webp", lossless=True)
    found = check(root).unsafe
    assert len(found) == 2
    assert found[0].startswith("1 unlabelled image also in the evaluation split, unlabelled/graded; remove")
    assert found[1].startswith("1 unlabelled image also in the validation split, unlabelled/seen; remove")


def test_duplicates_are_found_by_their_pixels(root: Path):
    """Another format, and a stored picture that EXIF data turns, show the same image."""
    with Image.open(root / "training/1_0.png") as image:
        image.save(root / "training/1_7.webp", lossless=True)
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 3
        image.transpose(Image.Transpose.ROTATE_180).save(root / "training/1_8.png", exif=exif)
    report = check(root)
    assert report.duplicates == (tuple(Copy("training", id, 1) for id in ("1_0", "1_7", "1_8")),)
    assert report.unsafe == ()
    assert report.warnings == ("1 image more than once in the training split, 1_0 = 1_7 = 1_8",)


def test_equal_bytes_in_another_shape_are_no_duplicate(root: Path):
    Image.new("RGB", (8, 4), "red").save(root / "training/0_8.png")
    Image.new("RGB", (4, 8), "red").save(root / "training/0_9.png")
    assert check(root).duplicates == ()


def test_two_labels_are_a_warning(root: Path):
    shutil.copy(root / "training/0_0.png", root / "training/1_9.png")
    report = check(root)
    assert report.unsafe == ()
    assert any(
        warning.startswith("one image has two labels: training 0_0 is 0, training 1_9 is 1")
        for warning in report.warnings
    )


def test_a_class_without_validation_images_is_unsafe(root: Path):
    (root / "validation/1_0.png").unlink()
    report = check(root)
    assert report.counts["validation"] == {"0": 1, "1": 0}
    assert report.unsafe == ("class 1 has no validation image; add some",)


def test_left_out_files_are_counted(root: Path):
    (root / "training/notes.txt").touch()
    (root / "evaluation/more").mkdir()
    report = check(root)
    assert report.ignored == 2
    assert report.unsafe == ()
    assert report.warnings == (
        "2 entries left out, no images or too deep: 1 .txt (training/notes.txt), 1 folder (evaluation/more)",
    )
    (root / "training/.DS_Store").touch()
    assert check(root).ignored == 2
    assert check(root).warnings[0].endswith("1 hidden (training/.DS_Store)")


def test_photographs_of_every_format_are_read(root: Path):
    pillow_heif.register_heif_opener()
    for number, kind in enumerate(("BMP", "GIF", "TIFF", "AVIF", "HEIF")):
        with Image.open(noise(root.parent / "any.png", 300 + number)) as image:
            image.save(root / f"training/1_{10 + number}.{'heic' if kind == 'HEIF' else kind.lower()}", kind)
    report = check(root)
    assert report.unsafe == report.warnings == ()
    assert report.counts["training"] == {"0": 3, "1": 7}


def test_what_the_decoder_remarks_is_a_row_and_not_on_the_screen(root: Path, capfd: pytest.CaptureFixture[str]):
    flawed = b"Exif\0\0II*\0\xff\xff\xff\xff broken"
    for number in range(5):
        with Image.open(noise(root.parent / "any.png", 400 + number)) as image:
            image.save(root / f"training/0_{10 + number}.jpg", exif=flawed)
    report = check(root, workers=3)
    sentence = "Corrupt EXIF data. Expecting to read 2 bytes but only got 0"
    assert report.remarks == {f"training/0_{n}.jpg": (sentence,) for n in range(10, 15)}
    assert report.unsafe == ()
    assert report.warnings == (
        f'5 files read although the decoder remarked "{sentence}": '
        "such as training/0_10.jpg, training/0_11.jpg, training/0_12.jpg",
    )
    assert report.warnings[0] in report.text()
    assert report.to_json()["remarks"]["training/0_10.jpg"] == [sentence]
    assert capfd.readouterr() == ("", "")


def test_it_goes_on_after_problems_of_the_layout(root: Path):
    noise(root / "training/egg.png", 50)
    noise(root / "training/5_0.png", 51)
    noise(root / "validation/9_0.png", 52)
    (root / "training/0_0.png").write_bytes(b"")
    report = check(root)
    assert report.counts["training"] == {"0": 3, "1": 2, "(no class)": 1}
    for part in ("egg.png has no label", "no image of class 2", "the label 9", "1 unreadable file"):
        assert sum(part in sentence for sentence in report.unsafe) == 1


def test_without_validation_it_is_split_off(root: Path):
    shutil.rmtree(root / "validation")
    report = check(root)
    assert report.unsafe == ()
    assert report.counts == {"training": {"0": 2, "1": 1}, "validation": {"0": 1, "1": 1}}
    assert "validation is split off: 2 of 5 photographs, 0 groups" in report.text()


def test_what_is_left_out_of_a_folder_that_is_divided_here_is_listed_and_safe(root: Path):
    shutil.rmtree(root / "validation")
    shutil.copy(root / "training/0_0.png", root / "training/0_5.png")
    shutil.copy(root / "training/0_1.png", root / "evaluation/0002.png")
    noise(root / "training/1_5.png", 77)
    shutil.copy(root / "training/1_5.png", root / "training/0_6.png")
    report = check(root)
    assert report.unsafe == report.warnings == report.duplicates == ()
    assert report.division is not None
    listed = [line for line in report.text().splitlines() if line.startswith("left out")]
    assert listed == [
        "left out: training 0_1, in evaluation, as 0002",
        "left out: training 0_5, double, as 0_0",
        "left out: training 0_6, in two classes, as 1_5",
        "left out: training 1_5, in two classes, as 0_6",
    ]
    assert report.counts == {"training": {"0": 1, "1": 1}, "validation": {"0": 1, "1": 1}}
    value = report.to_json()
    assert json.loads(json.dumps(value, allow_nan=False)) == json.loads(json.dumps(value))
    assert [one["id"] for one in value["division"]["left_out"]] == ["0_1", "0_5", "0_6", "1_5"]


def test_a_class_of_which_too_little_is_left_is_unsafe_and_a_damaged_file_too(root: Path):
    shutil.rmtree(root / "validation")
    shutil.copy(root / "training/1_0.png", root / "evaluation/0002.png")
    (root / "training/0_0.png").write_bytes(b"x")
    found = check(root).unsafe
    assert len(found) == 3
    assert "has 1 usable photographs of class 1, 1 left out (1_0 is in evaluation, as 0002)" in found[0]
    assert found[1].startswith("1 unreadable file, training/0_0.png")


def test_nothing_to_look_at(tmp_path: Path):
    with pytest.raises(BadData, match="is empty"):
        check(tmp_path)
    with pytest.raises(BadData, match="does not exist"):
        check(tmp_path / "nowhere")


def test_json(root: Path):
    shutil.copy(root / "training/0_1.png", root / "evaluation/0002.png")
    (root / "training/0_0.png").write_bytes(b"")
    report = check(root)
    value = report.to_json()
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    assert value["counts"]["training"] == {"0": 3, "1": 2}
    assert value["sizes"]["training"]["median"] == [12, 9]
    assert value["unsafe"] == list(report.unsafe)
    assert value["duplicates"] == [
        [{"split": "training", "id": "0_1", "label": 0}, {"split": "evaluation", "id": "0002", "label": None}]
    ]


@pytest.mark.slow
def test_food_11(food_11: Path):
    """The stand-in for Food-11 has three images in training and validation, found by an independent count."""
    report = check(food_11)
    assert sum(report.counts["training"].values()) == 9993
    assert report.evaluation == 2218
    assert report.unreadable == {}
    assert len(report.unsafe) == 1
    assert report.unsafe[0].startswith("3 training images also in the validation split")


def test_one_class_alone_is_unsafe(root: Path):
    for path in (*root.glob("*/1_*.png"),):
        path.unlink()
    assert check(root).unsafe == (f"{root} has one class, and a classifier needs two; add photographs of another",)
