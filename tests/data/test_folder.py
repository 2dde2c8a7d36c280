"""Both layouts, and every way in which a folder can be unusable. Names alone matter: the files are empty."""

from pathlib import Path

import pytest

from bantam.data.folder import FOOD_11, called, list_images, scan, shown_names
from bantam.data.layouts import LAYOUTS, Layout
from bantam.data.layouts.folders import SPLIT_FOLDERS, left_out
from bantam.data.layouts.layout import EXTENSIONS, Found, Notes
from bantam.errors import BadData


def plant(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


FLAT = ("training/0_0.jpg", "training/1_0.jpg", "validation/0_0.jpg", "validation/1_0.jpg")
CLASSES = ("train/egg/a.jpg", "train/soup/a.jpg", "val/egg/b.jpg", "val/soup/b.jpg")


def test_flat_layout(tmp_path: Path):
    names = ("training/1_1.JPG", "training/01_2.png", "evaluation/0001.webp", "evaluation/0000.jpeg")
    folder = scan(plant(tmp_path, *FLAT, *names))
    assert folder.layout == "flat"
    assert folder.classes == ("0", "1")
    assert [(r.id, r.label) for r in folder.training] == [("01_2", 1), ("0_0", 0), ("1_0", 1), ("1_1", 1)]
    assert [(r.id, r.label) for r in folder.evaluation] == [("0000", None), ("0001", None)]
    assert folder.training[0].path == tmp_path / "training" / "01_2.png"


def test_class_folders(tmp_path: Path):
    folder = scan(plant(tmp_path, *CLASSES, "test/x.jpg"))
    assert folder.layout == "classes"
    assert folder.classes == ("egg", "soup")
    assert [(r.id, r.label) for r in folder.training] == [("egg/a", 0), ("soup/a", 1)]
    assert [(r.id, r.label) for r in folder.validation] == [("egg/b", 0), ("soup/b", 1)]
    assert [(r.id, r.label) for r in folder.evaluation] == [("x", None)]


@pytest.mark.parametrize("training", SPLIT_FOLDERS["training"])
@pytest.mark.parametrize("validation", SPLIT_FOLDERS["validation"])
@pytest.mark.parametrize("evaluation", SPLIT_FOLDERS["evaluation"])
def test_every_name_of_a_split(tmp_path: Path, training: str, validation: str, evaluation: str):
    folder = scan(plant(tmp_path, f"{training}/0_0.jpg", f"{validation}/0_0.jpg", f"{evaluation}/0000.jpg"))
    assert (len(folder.training), len(folder.validation), len(folder.evaluation)) == (1, 1, 1)


def test_evaluation_may_be_absent(tmp_path: Path):
    assert scan(plant(tmp_path, *FLAT)).evaluation == ()


def test_evaluation_in_class_folders_has_no_labels(tmp_path: Path):
    folder = scan(plant(tmp_path, *CLASSES, "test/soup/x.jpg", "test/egg/y.jpg"))
    assert [(r.id, r.label) for r in folder.evaluation] == [("x", None), ("y", None)]


@pytest.mark.parametrize("labelled", [FLAT, CLASSES])
def test_images_without_a_label(tmp_path: Path, labelled: tuple[str, ...]):
    names = ("unlabelled/0_1.jpg", "unlabelled/x.png", "unlabelled/notes.txt", "unlabelled/more/y.jpg")
    listing = list_images(plant(tmp_path, *labelled, *names))
    assert [(r.id, r.label) for r in listing.folder.unlabelled] == [("unlabelled/0_1", None), ("unlabelled/x", None)]
    assert listing.ignored == (tmp_path / "unlabelled/more", tmp_path / "unlabelled/notes.txt")
    folders = plant(tmp_path / "other", *labelled, "unlabelled/a/x.jpg", "unlabelled/b/x.jpg")
    assert [r.id for r in scan(folders).unlabelled] == ["unlabelled/a/x", "unlabelled/b/x"]


def test_ids_stay_unique(tmp_path: Path):
    plant(tmp_path, *CLASSES, "train/egg/a.png", "test/egg/x.jpg", "test/soup/x.jpg")
    folder = scan(tmp_path)
    assert [r.id for r in folder.training] == ["egg/a.jpg", "egg/a.png", "soup/a.jpg"]
    assert [r.id for r in folder.evaluation] == ["egg/x", "soup/x"]


def test_numbered_class_folders_are_in_numerical_order(tmp_path: Path):
    for label in range(11):
        plant(tmp_path, f"train/{label}/a.jpg", f"val/{label}/a.jpg")
    folder = scan(tmp_path)
    assert folder.classes == tuple(str(label) for label in range(11))
    assert all(record.label == int(record.path.parent.name) for record in folder.training)


def test_class_names_from_a_file(tmp_path: Path):
    plant(tmp_path, *FLAT)
    (tmp_path / "classes.txt").write_text("Bread\nDairy product\n")
    assert scan(tmp_path).classes == ("Bread", "Dairy product")


@pytest.mark.parametrize("text", [b"Bread\n", b"Bread\nBread\n", b"\xff\xfe\n\n"])
def test_class_names_that_do_not_fit(tmp_path: Path, text: bytes):
    plant(tmp_path, *FLAT)
    (tmp_path / "classes.txt").write_bytes(text)
    with pytest.raises(BadData, match=r"classes\.txt"):
        scan(tmp_path)


def test_hidden_and_foreign_files_are_left_out(tmp_path: Path):
    names = (".DS_Store", "training/.0_9.jpg", "training/notes.txt", "training/more/0_1.jpg", "README.md")
    listing = list_images(plant(tmp_path, *FLAT, *names))
    assert listing.problems == ()
    assert len(listing.folder.training) == 2
    assert listing.ignored == (tmp_path / "training/more", tmp_path / "training/notes.txt")


@pytest.mark.parametrize("suffix", sorted(EXTENSIONS))
def test_every_suffix_in_every_case_is_an_image(tmp_path: Path, suffix: str):
    plant(tmp_path, *FLAT, f"training/0_7{suffix}", f"training/0_8{suffix.upper()}", f"training/0_9{suffix.title()}")
    listing = list_images(tmp_path)
    assert [record.id for record in listing.folder.training if record.id[-1] in "789"] == ["0_7", "0_8", "0_9"]
    assert listing.ignored == ()


def test_hidden_entries_are_listed_apart(tmp_path: Path):
    names = ("training/.DS_Store", "training/._0_1.jpg", "validation/.cache/0_0.jpg", "evaluation/.x", ".git/config")
    listing = list_images(plant(tmp_path, *FLAT, *names))
    assert listing.ignored == ()
    assert [str(path.relative_to(tmp_path)) for path in listing.hidden] == [
        "evaluation/.x", "training/.DS_Store", "training/._0_1.jpg", "validation/.cache",
    ]  # fmt: skip


def test_what_is_left_out_is_named_by_kind_with_an_example(tmp_path: Path):
    names = ("a.cr2", "b.CR2", "c.mp4", "Thumbs.db", "README", "more/0_1.jpg", ".DS_Store", "d.svg", "0_1.jpg.part")
    listing = list_images(plant(tmp_path, *FLAT, *(f"training/{name}" for name in names), "evaluation/z.cr2"))
    said = left_out((*listing.ignored, *listing.hidden), tmp_path)
    assert said == (
        "3 .cr2 (evaluation/z.cr2), 2 hidden (training/.DS_Store), 1 .mp4 (training/c.mp4), "
        "1 .part (training/0_1.jpg.part), 1 .svg (training/d.svg), "
        "1 in a nested folder (such as training/more/0_1.jpg), 1 without a suffix (training/README)"
    )


def test_a_split_without_images_says_what_is_there_instead(tmp_path: Path):
    plant(tmp_path, "training/0_0.jpg", "validation/0_0.dng", "validation/0_1.dng")
    with pytest.raises(BadData, match=r"holds no labelled image \(left out: 2 \.dng \(validation/0_0\.dng\)\); put"):
        scan(tmp_path)


# --- labels stay as they are, whatever is missing elsewhere

TWELVE = tuple(str(label) for label in range(12))
WORDS = ("Zucchini", "apple", "Bread", "10", "2", "éclair")


@pytest.mark.parametrize("classes", [TWELVE, WORDS], ids=["numbers beyond 9", "words"])
@pytest.mark.parametrize("missing", range(6))
@pytest.mark.parametrize("emptied", ["no folder", "an empty folder", "a folder of other files"])
def test_a_class_that_validation_lacks_moves_no_label(
    tmp_path: Path, classes: tuple[str, ...], missing: int, emptied: str
):
    for name in classes:
        plant(tmp_path, f"train/{name}/a.jpg", f"val/{name}/b.jpg", f"test/{name}/c.jpg")
    whole = scan(tmp_path)
    lacking = tmp_path / "val" / classes[missing]
    (lacking / "b.jpg").unlink()
    if emptied == "no folder":
        lacking.rmdir()
    elif emptied == "a folder of other files":
        (lacking / "b.cr2").touch()
    folder = scan(tmp_path)
    assert folder.classes == whole.classes
    assert len(folder.validation) == len(classes) - 1
    for records in (folder.training, folder.validation):
        assert all(folder.classes[record.label or 0] == record.path.parent.name for record in records)


@pytest.mark.parametrize("missing", [0, 1, 2, 9, 10, 11])
def test_a_number_that_validation_lacks_moves_no_label(tmp_path: Path, missing: int):
    plant(tmp_path, *(f"training/{label}_0.jpg" for label in TWELVE))
    plant(tmp_path, *(f"validation/{label}_0.jpg" for label in TWELVE if int(label) != missing))
    folder = scan(tmp_path)
    assert folder.classes == TWELVE
    assert {record.id: record.label for record in folder.validation} == {
        f"{label}_0": int(label) for label in TWELVE if int(label) != missing
    }


def test_a_class_that_training_lacks_is_an_error_in_both_layouts(tmp_path: Path):
    for name in TWELVE:
        plant(tmp_path, f"folders/train/{name}/a.jpg", f"folders/val/{name}/b.jpg")
        plant(tmp_path, f"flat/training/{name}_0.jpg", f"flat/validation/{name}_0.jpg")
    (tmp_path / "folders/train/10/a.jpg").unlink()
    (tmp_path / "flat/training/10_0.jpg").unlink()
    with pytest.raises(BadData, match="train has no image of class 10"):
        scan(tmp_path / "folders")
    (tmp_path / "folders/train/10").rmdir()
    with pytest.raises(BadData, match="b.jpg has the label 10, which no training image has"):
        scan(tmp_path / "folders")
    with pytest.raises(BadData, match="no image of class 10 although labels go up to 11"):
        scan(tmp_path / "flat")


# --- names of classes that are only numbered


def food(root: Path, classes: int = 11) -> Path:
    for label in range(classes):
        plant(root, f"training/{label}_0.jpg", f"training/{label}_1.jpg", f"validation/{label}_0.jpg")
    return plant(root, "evaluation/0000.jpg")


def test_food_11_is_shown_by_name_and_stays_numbered(tmp_path: Path):
    folder = scan(food(tmp_path))
    assert shown_names(folder) == FOOD_11
    assert len(set(FOOD_11)) == 11
    assert (FOOD_11[0], FOOD_11[6], FOOD_11[10]) == ("Bread", "Noodles-Pasta", "Vegetable-Fruit")
    assert folder.classes == TWELVE[:11]


def test_a_run_that_stored_numbers_is_shown_with_the_names_of_its_data():
    numbers = TWELVE[:11]
    assert called(numbers, FOOD_11) == FOOD_11
    assert called(("a", "b"), ("Bread", "Egg")) == ("a", "b")
    assert called(("0", "b"), ("Bread", "Egg")) == ("0", "b")
    assert called(numbers, ()) == called(numbers, FOOD_11[:3]) == numbers


def test_names_of_ones_own_come_first(tmp_path: Path):
    own = [f"class {label}" for label in range(11)]
    (food(tmp_path) / "classes.txt").write_text("\n".join(own))
    assert shown_names(scan(tmp_path)) == tuple(own)
    numbers = [str(label) for label in range(11)]
    (tmp_path / "classes.txt").write_text("\n".join(numbers))
    assert shown_names(scan(tmp_path)) == tuple(numbers)


@pytest.mark.parametrize("classes", [1, 10, 12])
def test_another_number_of_classes_is_not_food_11(tmp_path: Path, classes: int):
    folder = scan(food(tmp_path, classes))
    assert shown_names(folder) == folder.classes == TWELVE[:classes]


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("training", "train"),
        ("validation", "val"),
        ("evaluation", "test"),
        ("training/3_0.jpg", "training/3_cat.jpg"),
        ("training/3_0.jpg", "training/3_0.png"),
        ("validation/0_0.jpg", "validation/0_0 (1).jpg"),
        ("evaluation/0000.jpg", "evaluation/IMG_0000.jpg"),
    ],
)
def test_another_layout_is_not_food_11(tmp_path: Path, name: str, other: str):
    food(tmp_path)
    (tmp_path / name).rename(tmp_path / other)
    assert shown_names(scan(tmp_path)) == TWELVE[:11]


def test_eleven_class_folders_are_not_food_11(tmp_path: Path):
    for label in range(11):
        plant(tmp_path, f"training/{label}/0_0.jpg", f"validation/{label}/0_0.jpg")
    assert shown_names(scan(tmp_path)) == TWELVE[:11]


BAD = {
    "no training": (("validation/0_0.jpg",), "no training split"),
    "empty validation": ((*FLAT[:2], "validation/x.txt"), "validation holds no labelled image"),
    "a class without images": ((*FLAT, "training/3_0.jpg"), "no image of class 2 although labels go up to 3"),
    "a date for a label": ((*FLAT, "training/20260101_0.jpg"), "no image of class 2"),
    "an empty class folder": ((*CLASSES, "train/rice/x.txt"), "no image of class rice"),
    "no label": ((*FLAT, "training/egg.jpg"), "egg.jpg has no label in its name"),
    "only names without labels": (("training/a.jpg", "validation/b.jpg"), "a.jpg has no label"),
    "a label out of range": ((*FLAT, "validation/2_0.jpg"), "2_0.jpg has the label 2"),
    "an unknown class": ((*CLASSES, "val/rice/b.jpg"), "b.jpg has the label rice"),
    "a stray image": ((*CLASSES, "train/a.jpg"), "a.jpg lies beside the class folders"),
    "two training folders": ((*FLAT, "train/0_0.jpg"), "both train and training"),
}


@pytest.mark.parametrize(("names", "message"), BAD.values(), ids=BAD)
def test_bad_folders(tmp_path: Path, names: tuple[str, ...], message: str):
    plant(tmp_path, *names)
    with pytest.raises(BadData, match=message) as caught:
        scan(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_and_empty_root(tmp_path: Path):
    with pytest.raises(BadData, match="does not exist"):
        scan(tmp_path / "nowhere")
    with pytest.raises(BadData, match="is empty"):
        scan(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(BadData, match="not a directory"):
        scan(tmp_path / "file")


def test_listing_goes_on_after_a_problem(tmp_path: Path):
    listing = list_images(plant(tmp_path, *FLAT, "training/egg.jpg", "validation/7_0.jpg"))
    assert len(listing.problems) == 2
    assert len(listing.folder.training) == 2
    with pytest.raises(BadData, match="1 more"):
        scan(tmp_path)


def test_food_11(food_11: Path):
    folder = scan(food_11)
    assert (len(folder.training), len(folder.validation), len(folder.evaluation)) == (9993, 4432, 2218)
    assert folder.classes == tuple(str(label) for label in range(11))
    assert [record.id for record in folder.evaluation] == [f"{n:04d}" for n in range(2218)]
    assert shown_names(folder) == FOOD_11


class Anywhere(Layout):
    """What is listed is what the test says."""

    def __init__(self, *names: str) -> None:
        self.listed = names

    def recognises(self, root: Path) -> bool:
        return (root / "anywhere").exists()

    def find(self, root: Path, notes: Notes) -> Found:
        pairs = [(root / name, "a") for name in self.listed]
        return Found(pairs, pairs[:1], [], [])

    def keys(self, root: Path, found: Found, notes: Notes) -> tuple[str, ...]:
        return ("a",)


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (["x/1.jpg", "y/2.jpg"], ["1", "2"]),
        (["x/1.jpg", "y/1.jpg"], ["x/1", "y/1"]),
        (["x/1.jpg", "x/1.png"], ["x/1.jpg", "x/1.png"]),
        (["p/x/1.jpg", "q/x/1.jpg"], ["p/x/1.jpg", "q/x/1.jpg"]),
        (["x/1.jpg", "x/1.jpg"], ["x/1.jpg", "x/1.jpg"]),  # listed twice: `data check` says so
    ],
)
def test_another_layout_is_asked_in_its_turn_and_its_images_have_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], ids: list[str]
):
    plant(tmp_path, "training/0_0.jpg", "validation/0_0.jpg")
    entries = {"anywhere": "this test's", **LAYOUTS.entries}
    monkeypatch.setattr(LAYOUTS, "entries", entries)
    monkeypatch.setitem(LAYOUTS.found, "anywhere", Anywhere(*names))
    assert scan(tmp_path).layout == "flat"
    plant(tmp_path, "anywhere")
    folder = scan(tmp_path)
    assert (folder.layout, folder.classes) == ("anywhere", ("a",))
    assert [record.id for record in folder.training] == ids
