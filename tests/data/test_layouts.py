"""What people have: folders without splits, names in any capitals, useless nesting, tables. The files are empty."""

import os
from pathlib import Path

import pytest

from bantam.data.folder import Folder, list_images, remarks_on, scan
from bantam.data.layouts.folders import without_wrapper
from bantam.errors import BadData


def plant(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def shown(folder: Folder) -> dict[str, list[str]]:
    """The images of each split as path=class, below the root."""

    def of(records) -> list[str]:
        names = (None if r.label is None else folder.classes[r.label] for r in records)
        return sorted(
            r.path.relative_to(folder.root).as_posix() + (f"={name}" if name is not None else "")
            for r, name in zip(records, names, strict=True)
        )

    return {name: of(records) for name, records in folder.splits(unlabelled=True).items() if records}


BARE = ("cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/2.jpg")
BARE_SHOWN = ["cat/1.jpg=cat", "cat/2.jpg=cat", "dog/1.jpg=dog", "dog/2.jpg=dog"]


def test_class_folders_alone(tmp_path: Path):
    folder = scan(plant(tmp_path, *BARE))
    assert (folder.layout, folder.divided, folder.classes) == ("bare", False, ("cat", "dog"))
    assert shown(folder) == {"training": BARE_SHOWN}
    assert [record.id for record in folder.training] == ["cat/1", "cat/2", "dog/1", "dog/2"]


def test_numbered_class_folders_are_in_numerical_order(tmp_path: Path):
    plant(tmp_path, *(f"{label}/{n}.jpg" for label in range(12) for n in range(2)))
    assert scan(tmp_path).classes == tuple(map(str, range(12)))


@pytest.mark.parametrize("evaluation", ["test", "Test", "TEST", "evaluation", "Evaluation"])
def test_evaluation_beside_class_folders_has_no_labels(tmp_path: Path, evaluation: str):
    folder = scan(plant(tmp_path, *BARE, f"{evaluation}/cat/9.jpg", "Unlabelled/x.jpg"))
    assert folder.classes == ("cat", "dog")
    assert shown(folder) == {
        "training": BARE_SHOWN, "evaluation": [f"{evaluation}/cat/9.jpg"], "unlabelled": ["Unlabelled/x.jpg"],
    }  # fmt: skip


@pytest.mark.parametrize("training", ["train", "Training", "TRAIN"])
@pytest.mark.parametrize("validation", ["val", "Valid", "VALIDATION"])
def test_splits_in_any_capitals(tmp_path: Path, training: str, validation: str):
    folder = scan(plant(tmp_path, *(f"{training}/{name}" for name in BARE), f"{validation}/cat/3.jpg"))
    assert (folder.layout, folder.divided) == ("classes", True)
    assert shown(folder)["validation"] == [f"{validation}/cat/3.jpg=cat"]
    assert len(folder.training) == 4


@pytest.mark.parametrize("training", ["train", "Training"])
def test_training_alone_is_to_be_divided(tmp_path: Path, training: str):
    folder = scan(plant(tmp_path, *(f"{training}/{name}" for name in BARE), "test/cat/9.jpg"))
    assert (folder.layout, folder.divided, len(folder.training), len(folder.evaluation)) == ("classes", False, 4, 1)


@pytest.mark.parametrize("place", ["training/", "Train/", ""])
def test_the_flat_layout_is_to_be_divided(tmp_path: Path, place: str):
    names = ("0_1.jpg", "0_2.jpg", "1_1.jpg", "1_2.jpg")
    folder = scan(plant(tmp_path, *(place + name for name in names), "evaluation/0000.jpg"))
    assert (folder.layout, folder.divided, folder.classes) == ("flat", False, ("0", "1"))
    assert [record.id for record in folder.training] == ["0_1", "0_2", "1_1", "1_2"]
    assert len(folder.evaluation) == 1


@pytest.mark.parametrize("nesting", ["photos", "a/b/c", "x/__MACOSX/../y"])
@pytest.mark.parametrize(
    "names", [BARE, tuple(f"Train/{name}" for name in BARE), ("0_1.jpg", "0_2.jpg", "1_1.jpg", "1_2.jpg")]
)
def test_useless_nesting(tmp_path: Path, nesting: str, names: tuple[str, ...]):
    plant(tmp_path, ".DS_Store", ".git/config", "__MACOSX/photos/._1.jpg", "README.md", "Thumbs.db")
    (tmp_path / nesting).mkdir(parents=True)
    plant(tmp_path / nesting, *names)
    folder = scan(tmp_path)
    assert folder.root.resolve() == (tmp_path / nesting).resolve()
    assert len(folder.training) == 4


@pytest.mark.parametrize(
    ("training", "validation", "evaluation"),
    [
        *(("training_set", "validation_set", "test_set"), ("Train-Images", "Val-Images", "Test-Images")),
        *(
            ("train images", "valid data", "testing"),
            ("trainset", "valset", "eval"),
            ("TRAIN ", "VALID", "Test photos"),
        ),
    ],
)
def test_the_names_that_people_give_to_splits(tmp_path: Path, training: str, validation: str, evaluation: str):
    places = {training: ("1", "2"), validation: ("3",), evaluation: ("4",), "unlabeled": ("5",)}
    plant(tmp_path, *(f"{place}/{kind}/{n}.jpg" for place, ns in places.items() for kind in ("cat", "dog") for n in ns))
    listing = list_images(tmp_path)
    assert (listing.problems, remarks_on(listing)) == ((), [])
    folder = listing.folder
    assert folder.classes == ("cat", "dog")
    sizes = [len(split) for split in (folder.training, folder.validation, folder.evaluation, folder.unlabelled)]
    assert sizes == [4, 2, 2, 2]


@pytest.mark.parametrize("name", ["train", "Valid"])
@pytest.mark.parametrize("others", [("bus", "car"), ("bus", "car", "test")])
def test_a_class_may_be_called_like_a_split(tmp_path: Path, name: str, others: tuple[str, ...]):
    plant(tmp_path, *(f"{folder}/{n}.jpg" for folder in (name, *others) for n in "ab"))
    listing = list_images(tmp_path)
    assert listing.problems == ()
    assert set(listing.folder.classes) == {name, "bus", "car"}
    assert len(listing.folder.evaluation) == 2 * ("test" in others)
    assert remarks_on(listing) == [f"{tmp_path / name} is taken for a class, as the folders beside it"]


@pytest.mark.parametrize(
    "names",
    [
        ("train/a.jpg", "masks/a.jpg"),
        ("train/a.jpg", "val/a.jpg", "x/a.jpg", "y/a.jpg"),
        ("validation/a.jpg", "x/a.jpg", "y/a.jpg"),
    ],
)
def test_but_images_of_a_split_are_not_guessed_to_be_a_class(tmp_path: Path, names: tuple[str, ...]):
    with pytest.raises(BadData):
        scan(plant(tmp_path, *names, *(name.replace("a.jpg", "b.jpg") for name in names)))


def test_a_class_is_one_however_its_letters_are_composed(tmp_path: Path):
    plant(
        tmp_path, "train/caf\u00e9/1.jpg", "train/dog/1.jpg", "train/dog/2.jpg", "val/cafe\u0301/1.jpg", "val/dog/3.jpg"
    )
    folder = scan(tmp_path)
    assert folder.classes == ("caf\u00e9", "dog")
    assert [record.label for record in folder.validation] == [0, 1]
    plant(tmp_path, "train/cafe\u0301/1.jpg")
    assert scan(tmp_path).classes == ("caf\u00e9", "dog")
    assert len({record.id for record in scan(tmp_path).training}) == 4


@pytest.mark.parametrize(
    ("name", "called"),
    [
        *((b"new\nline", "new line"), (b" a  b ", "a b"), (b"\x1b[31mred", "\\x1b[31mred"), (b"caf\xe9", "caf\u00e9")),
        *((b"  ", "'  '"), ('\u05d0\u05d1, "x"'.encode(), '\u05d0\u05d1, "x"'), ("\U0001f600".encode(), "\U0001f600")),
    ],
)
def test_a_class_has_a_name_that_can_be_shown_in_one_line(tmp_path: Path, name: bytes, called: str):
    plant(tmp_path, *(f"{os.fsdecode(name)}/{n}.jpg" for n in range(2)), *BARE)
    assert called in scan(tmp_path).classes


def test_ids_are_text_whatever_bytes_the_files_are_called_by(tmp_path: Path):
    """So whoever reads a submission can."""
    plant(tmp_path, *BARE, *(f"test/{os.fsdecode(name)}.jpg" for name in (b"\xe9", b"\xe8", b"e")))
    assert [record.id for record in scan(tmp_path).evaluation] == ["e", "\u00e8", "\u00e9"]
    plant(tmp_path, "test/\u00e9.jpg", "test/a (1) .jpg", "test/ b.jpg")
    assert len({record.id for record in scan(tmp_path).evaluation}) == 6
    for name in ("e", "\u00e9"):
        (tmp_path / "test" / f"{name}.jpg").unlink()
    assert [record.id for record in scan(tmp_path).evaluation] == ["a (1)", "b", "\u00e8", "\u00e9"]


def test_classes_that_differ_in_capitals_alone_are_said(tmp_path: Path):
    listing = list_images(plant(tmp_path, *BARE, "Cat/1.jpg", "Cat/2.jpg"))
    assert listing.problems == ()
    assert listing.folder.classes == ("Cat", "cat", "dog")
    assert listing.remarks == ("warning: Cat and cat are taken for different classes; call them alike if they are one",)


@pytest.mark.parametrize("link", ["loop", "cat/loop.jpg"])
def test_a_link_to_itself_stands_for_itself_alone(tmp_path: Path, link: str):
    plant(tmp_path, *BARE)
    (tmp_path / link).symlink_to(Path(link).name)
    folder = scan(tmp_path)
    assert (folder.classes, len(folder.training)) == (("cat", "dog"), 4 + link.endswith("jpg"))


@pytest.mark.parametrize("place", ["runs/fit", "fit", "cat/fit"])
@pytest.mark.parametrize("files", [("plan.json",), ("recipe.toml", "environment.json")])
@pytest.mark.parametrize(
    "names", [BARE, tuple(f"train/{name}" for name in BARE), ("0_1.jpg", "0_2.jpg", "1_1.jpg", "1_2.jpg")]
)
def test_what_bantam_makes_beside_photographs_is_none(
    tmp_path: Path, names: tuple[str, ...], files: tuple[str, ...], place: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("BANTAM_CACHE", str(tmp_path / "cache"))
    before = list_images(plant(tmp_path, *names))
    plant(tmp_path, *(f"{place}/{file}" for file in (*files, "report/plots/curve.png")), "cache/unpacked/x/1.jpg")
    listing = list_images(tmp_path)
    assert (listing.folder, listing.problems) == (before.folder, ())
    with pytest.raises(BadData, match="is a run, not photographs"):
        scan(tmp_path / place)


def test_and_none_below_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BANTAM_CACHE", str(tmp_path / "cache"))
    plant(table(tmp_path, written()), *IMAGES, "runs/fit/plan.json", "runs/fit/report/1.jpg", "cache/unpacked/2.jpg")
    listing = list_images(tmp_path)
    assert shown(listing.folder) == {"training": TABLE_SHOWN}
    assert (listing.problems, listing.remarks) == ((), ())


JUNK = (
    *("__MACOSX/cat/._1.jpg", ".ipynb_checkpoints/1-checkpoint.jpg", "cat/.ipynb_checkpoints/1-checkpoint.jpg"),
    *("cat/Thumbs.db", "dog/desktop.ini", "dog/._1.jpg", "Desktop.ini", ".DS_Store", "cat/__MACOSX/2.jpg"),
)


@pytest.mark.parametrize("place", ["", "train/"])
def test_what_systems_put_there_is_left_out_by_name(tmp_path: Path, place: str):
    listing = list_images(plant(tmp_path, *(place + name for name in (*BARE, *JUNK))))
    assert listing.problems == ()
    assert listing.folder.classes == ("cat", "dog")
    assert len(listing.folder.training) == 4
    assert listing.ignored == ()


def test_a_folder_with_images_of_its_own_is_no_wrapper(tmp_path: Path):
    inner = ("train/images/x.jpg", "train/images/cat/1.jpg", "train/images/dog/1.jpg")
    assert without_wrapper(plant(tmp_path, *inner) / "train") == tmp_path / "train"
    (tmp_path / inner[0]).unlink()
    assert without_wrapper(tmp_path / "train") == tmp_path / "train" / "images"


def test_nested_photographs_are_counted(tmp_path: Path):
    names = (*(f"cat/more/{n}.jpg" for n in range(16)), "dog/x.cr2", "dog/empty/readme.txt")
    listing = list_images(plant(tmp_path, *BARE, *names))
    assert remarks_on(listing) == [
        "left out: 16 in a nested folder (such as cat/more/0.jpg), 1 .cr2 (dog/x.cr2), 1 folder (dog/empty)"
    ]


# --- tables


def table(root: Path, text: str | bytes, name: str = "labels.csv") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return root


IMAGES = ("1.jpg", "2.jpg", "3.jpg", "4.jpg")
TABLE_SHOWN = ["1.jpg=cat", "2.jpg=cat", "3.jpg=dog", "4.jpg=dog"]
ROWS = (("1.jpg", "cat"), ("2.jpg", "cat"), ("3.jpg", "dog"), ("4.jpg", "dog"))


def written(separator: str = ",", header: str = "file,label", rows: tuple = ROWS) -> str:
    return "\n".join(separator.join(row) for row in (header.split(","), *rows)) + "\n"


WRITTEN = {
    "plain": written(),
    "other headers": written(header="picture of it,What"),
    "label first": written(header="label,file", rows=tuple((b, a) for a, b in ROWS)),
    "no headers": "\n".join(",".join(row) for row in ROWS),
    "semicolons": written(";"),
    "tabs": written("\t"),
    "bars": written("|"),
    "windows": written().replace("\n", "\r\n"),
    "with a mark": b"\xef\xbb\xbf" + written().encode(),
    "UTF-16": written("\t").encode("utf-16"),
    "quotes": 'file,label\n"1.jpg","cat"\n"2.jpg","cat"\n"3.jpg","dog"\n"4.jpg","dog"\n',
    "spaces and empty lines": written(", ").replace("\n", "\n\n"),
    "no suffixes": written().replace(".jpg", ""),
    "paths elsewhere": written().replace(",label", ",label").replace("1.jpg", "/home/me/photos/1.jpg"),
    "paths of Windows": written().replace("1.jpg", "C:\\photos\\1.jpg"),
    "more columns": written(
        header="id,file,label,width,note,share",
        rows=tuple((f"r{n}", a, b, str(640 + n), f"n{n}", f"0.{n}5") for n, (a, b) in enumerate(ROWS)),
    ),
    "names and numbers": written(
        header="file,number,name", rows=tuple((a, "0" if b == "cat" else "1", b) for a, b in ROWS)
    ),
}


@pytest.mark.parametrize("images", ["", "images/", "Photos/jpg/"])
@pytest.mark.parametrize("name", ["labels.csv", "anything.CSV"])
@pytest.mark.parametrize("kind", WRITTEN)
def test_a_table_beside_or_above_its_images(tmp_path: Path, kind: str, name: str, images: str):
    if images.count("/") > 1 and not name.startswith("labels"):
        pytest.skip("not beside its images")
    plant(table(tmp_path / "p", WRITTEN[kind], name), *(images + name for name in IMAGES))
    for given in (tmp_path / "p", tmp_path / "p" / name, tmp_path):
        folder = scan(given)
        assert (folder.layout, folder.divided, folder.classes) == ("table", False, ("cat", "dog"))
        assert shown(folder) == {"training": [images + one for one in TABLE_SHOWN]}
        assert folder.root == tmp_path / "p"


def test_a_tsv(tmp_path: Path):
    plant(table(tmp_path, written("\t").replace("cat", "cat, grey"), "x.tsv"), *IMAGES)
    assert scan(tmp_path).classes == ("cat, grey", "dog")


@pytest.mark.parametrize("suffix", ["", ".0"])
def test_labels_as_numbers(tmp_path: Path, suffix: str):
    rows = tuple((f"{n}.jpg", f"{n % 12}{suffix}") for n in range(48))
    plant(table(tmp_path, written(rows=rows)), *(row[0] for row in rows))
    folder = scan(tmp_path)
    assert folder.classes == tuple(map(str, range(12)))
    assert all(record.label == int(record.path.stem) % 12 for record in folder.training)
    (tmp_path / "classes.txt").write_text("\n".join(f"kind {n}" for n in range(12)))
    assert scan(tmp_path).classes[11] == "kind 11"


def test_a_split_column(tmp_path: Path):
    rows = (
        *(("1.jpg", "cat", "Train"), ("2.jpg", "dog", "train"), ("3.jpg", "cat", "valid"), ("4.jpg", "dog", "val")),
        *(("5.jpg", "dog", "TEST"), ("6.jpg", "", "test")),
    )
    plant(table(tmp_path, written(header="file,label,split", rows=rows)), *(row[0] for row in rows))
    folder = scan(tmp_path)
    assert folder.divided
    assert shown(folder) == {
        "training": ["1.jpg=cat", "2.jpg=dog"], "validation": ["3.jpg=cat", "4.jpg=dog"],
        "evaluation": ["5.jpg", "6.jpg"],
    }  # fmt: skip


def test_folders_of_splits_whose_labels_stand_in_a_table(tmp_path: Path):
    plant(table(tmp_path, written(), "train.csv"), *(f"train/{name}" for name in IMAGES), "test/9.jpg", "test/8.jpg")
    (tmp_path / "sample_submission.csv").write_text("file,label\n9.jpg,cat\n")
    folder = scan(tmp_path)
    assert shown(folder) == {
        "training": [f"train/{one}" for one in TABLE_SHOWN], "evaluation": ["test/8.jpg", "test/9.jpg"],
    }  # fmt: skip


def test_a_table_of_something_else_changes_nothing(tmp_path: Path):
    """Class folders stay what they were, with splits and without."""
    plant(tmp_path / "a", *BARE)
    plant(tmp_path / "b", *(f"{split}/{name}" for split in ("train", "val") for name in BARE))
    for name in ("a", "b"):
        table(tmp_path / name, "epoch,accuracy\n1,0.5\n2,0.6\n", "results.csv")
    table(tmp_path / "b", written())
    assert scan(tmp_path / "a").layout == "bare"
    assert scan(tmp_path / "b").layout == "classes"


def test_what_a_table_leaves_out_is_said(tmp_path: Path):
    rows = (*ROWS, ("5.jpg", "cat"), ("1.jpg", "cat"), ("6.jpg", ""))
    listing = list_images(plant(table(tmp_path, written(rows=rows)), *IMAGES, "6.jpg", "7.jpg", "more/8.jpg"))
    assert listing.problems == ()
    assert shown(listing.folder) == {"training": TABLE_SHOWN, "evaluation": ["6.jpg"]}
    assert remarks_on(listing) == [
        "1 rows of labels.csv left out, there is no such photograph (such as 5.jpg)",
        "1 rows of labels.csv say what another says already",
        "1 photographs answered, not learned from, labels.csv has no label for them (such as 6.jpg)",
        "2 photographs left out, they are not listed in labels.csv (such as 7.jpg)",
    ]


@pytest.mark.parametrize("blank", ["", " ", "NaN", "nan"])
def test_a_row_without_a_label_is_answered_where_nothing_else_is(tmp_path: Path, blank: str):
    plant(table(tmp_path, written(rows=(*ROWS, ("5.jpg", blank)))), *IMAGES, "5.jpg")
    assert shown(scan(tmp_path)) == {"training": TABLE_SHOWN, "evaluation": ["5.jpg"]}
    plant(tmp_path, "test/9.jpg")
    listing = list_images(tmp_path)
    assert shown(listing.folder) == {"training": TABLE_SHOWN, "evaluation": ["test/9.jpg"]}
    assert "1 photographs left out, labels.csv has no label for them (such as 5.jpg)" in listing.remarks


@pytest.mark.parametrize("unlisted", [True, False])
def test_a_row_of_one_folder_never_labels_an_image_of_another(tmp_path: Path, unlisted: bool):
    """b/3.jpg is not there; a/3.jpg is, and must not become a dog."""
    names = [(f"{folder}/{n}.jpg", kind) for folder, kind in (("a", "cat"), ("b", "dog")) for n in range(4)]
    rows = tuple(row for row in names if not (unlisted and row[0] == "a/3.jpg"))
    plant(table(tmp_path, written(rows=rows)), *(name for name, _ in names if name != "b/3.jpg"))
    listing = list_images(tmp_path)
    assert listing.problems == ()
    assert shown(listing.folder)["training"] == sorted(f"{a}={b}" for a, b in rows if a != "b/3.jpg")
    assert listing.remarks[0] == "1 rows of labels.csv left out, there is no such photograph (such as b/3.jpg)"


@pytest.mark.parametrize(
    ("there", "told"),
    [("cafe\u0301{}.jpg", "caf\u00e9{}.jpg"), ("IMG_{}.JPG", "img_{}.jpg"), ("images/{}.jpg", "elsewhere/{}.jpg")],
)
def test_names_of_files_as_other_systems_write_them(tmp_path: Path, there: str, told: str):
    rows = tuple((told.format(n), kind) for n, (_, kind) in enumerate(ROWS))
    plant(table(tmp_path, written(rows=rows)), *(there.format(n) for n in range(4)))
    assert shown(scan(tmp_path))["training"] == [f"{there.format(n)}={row[1]}" for n, row in enumerate(rows)]


def test_two_files_in_other_capitals_stay_two(tmp_path: Path):
    rows = (("a.jpg", "cat"), ("A.jpg", "dog"), ("b.jpg", "cat"), ("B.jpg", "dog"))
    plant(table(tmp_path, written(rows=rows)), *(row[0] for row in rows))
    assert shown(scan(tmp_path))["training"] == ["A.jpg=dog", "B.jpg=dog", "a.jpg=cat", "b.jpg=cat"]


def test_labels_that_differ_in_spaces_or_in_how_letters_are_composed_are_one_class(tmp_path: Path):
    rows = tuple(
        zip(IMAGES, ("cr\u00e8me  br\u00fbl\u00e9e", "cre\u0300me br\u00fble\u0301e", '"a\nb"', "a b"), strict=True)
    )
    plant(table(tmp_path, written(rows=rows)), *IMAGES)
    assert scan(tmp_path).classes == ("a b", "cr\u00e8me br\u00fbl\u00e9e")


def test_images_behind_a_link_and_a_link_back(tmp_path: Path):
    plant(tmp_path / "elsewhere", *IMAGES)
    root = table(tmp_path / "p", written())
    (root / "images").symlink_to(tmp_path / "elsewhere")
    (root / "images" / "back").symlink_to(root)
    (root / "again").symlink_to(tmp_path / "elsewhere")
    assert len(scan(root).training) == 4


META = "image,dx,sex\n" + "".join(f"p{p}/{n}.jpg,{'abcd'[n % 2]},{'mf'[n // 2]}\n" for p in (1, 2) for n in range(4))


@pytest.mark.parametrize("name", ["metadata.csv", "train.csv"])
def test_a_table_that_says_otherwise_than_the_folders_is_refused(tmp_path: Path, name: str):
    """The folders are parts of a download and the table has the diagnoses: parts are never taken for classes."""
    plant(table(tmp_path, META, name), *(f"p{p}/{n}.jpg" for p in (1, 2) for n in range(4)))
    with pytest.raises(BadData, match=rf"{name} says of the photographs otherwise than their folders .* \(dx, sex\)"):
        scan(tmp_path)
    (tmp_path / name).write_text(META.replace("sex", "label").replace("dx", "note"))
    (tmp_path / name).rename(tmp_path / "labels.csv")
    assert scan(tmp_path).classes == ("f", "m")


@pytest.mark.parametrize(
    "text",
    [
        "file,what,where\n" + "".join(f"{name},{name[:3]},{n % 2}\n" for n, name in enumerate(BARE)),
        "file,width\n" + "".join(f"{name},{640 + n}\n" for n, name in enumerate(BARE)),
        "file,split\n" + "".join(f"{name},{('train', 'test')[n % 2]}\n" for n, name in enumerate(BARE)),
        "name,what\n" + "".join(f"x{n},{n % 2}\n" for n in range(4)),
        "\xff",
    ],
)
def test_a_table_that_does_not_leaves_class_folders_as_they_are(tmp_path: Path, text: str):
    folder = scan(plant(table(tmp_path, text, "notes.csv"), *BARE))
    assert (folder.layout, folder.classes) == ("bare", ("cat", "dog"))


@pytest.mark.parametrize("place", ["", "images/", "photos/{}/"])
def test_a_table_for_each_split(tmp_path: Path, place: str):
    rows = [(f"{n}.jpg", ("cat", "dog")[n % 2]) for n in range(8)]
    splits = {"train": rows[:4], "valid": rows[4:6], "test": rows[6:]}
    for split, own in splits.items():
        table(tmp_path, written(header="name,kind", rows=tuple(own)), f"{split}.csv")
        plant(tmp_path, *(f"{place.format(split)}{name}" for name, _ in own))
    table(tmp_path, "name,kind\n6.jpg,cat\n", "sample_submission.csv")
    listing = list_images(tmp_path)
    assert (listing.problems, listing.remarks) == ((), ())
    folder = listing.folder
    assert [[record.id for record in split] for split in (folder.training, folder.validation, folder.evaluation)] == [
        ["0", "1", "2", "3"], ["4", "5"], ["6", "7"],
    ]  # fmt: skip
    assert [record.label for record in folder.validation] == [0, 1]
    table(tmp_path, written(header="name,what", rows=tuple(rows[4:6])), "valid.csv")
    with pytest.raises(BadData, match=r"valid\.csv has other headers than the table of the training images"):
        scan(tmp_path)


def test_training_and_test_images_beside_their_table(tmp_path: Path):
    plant(table(tmp_path, written(), "train.csv"), *(f"train_images/{name}" for name in IMAGES), "test_images/9.jpg")
    assert shown(scan(tmp_path)) == {
        "training": [f"train_images/{one}" for one in TABLE_SHOWN], "evaluation": ["test_images/9.jpg"],
    }  # fmt: skip


def test_a_header_decides_between_columns_and_that_is_said(tmp_path: Path):
    rows = (("1.jpg", "cat", "in"), ("2.jpg", "cat", "out"), ("3.jpg", "dog", "in"), ("4.jpg", "dog", "out"))
    listing = list_images(plant(table(tmp_path, written(header="file,label,place", rows=rows)), *IMAGES))
    assert shown(listing.folder) == {"training": TABLE_SHOWN}
    assert listing.remarks == ("the classes are those of the column label of labels.csv",)


TWO = (("1.jpg", "cat", "in"), ("2.jpg", "cat", "out"), ("3.jpg", "dog", "in"), ("4.jpg", "dog", "out"))
BAD: dict[str, tuple[tuple[str, ...], str | bytes | None, str]] = {
    "two columns of labels": (IMAGES, written(header="file,what,where", rows=TWO), "what, where all look like labels"),
    "two named as labels": (IMAGES, written(header="file,label,class", rows=TWO), "label, class all look like labels"),
    "no column of labels": (
        IMAGES, written(header="file,a,b", rows=tuple((a, f"x{a}", f"y{a}") for a, _ in ROWS)), "a, b looks like labels"
    ),
    "files alone": (IMAGES, written(header="file,thumbnail", rows=tuple((a, a) for a, _ in ROWS)), "none of labels"),
    "labels that match no file": (("8.jpg", "9.jpg"), written(), "0 name a photograph"),
    "labels that match few files": (("1.jpg",), written(), "1 name a photograph"),
    "a file with two labels": (
        IMAGES, written(rows=(*ROWS, ("1.jpg", "dog"))), "it lists 1.jpg as cat and as dog; keep the right row"
    ),
    "a file in two splits": (
        IMAGES, written(header="file,label,split", rows=(*((*row, "train") for row in ROWS), ("1.jpg", "cat", "val"))),
        "it lists 1.jpg as cat in training and as cat in validation",
    ),
    "an unknown split": (
        IMAGES, written(header="file,label,split", rows=tuple((*row, "dev") for row in ROWS)), "column split says 'dev'"
    ),
    "one class": (IMAGES, written(rows=tuple((a, "cat") for a, _ in ROWS)), "has one class, cat"),
    "a class with one image": (IMAGES[:3], written(rows=ROWS[:3]), "one photograph of class dog"),
    "no rows": (IMAGES, "file,label\n", "no table of files and labels"),
    "one column": (IMAGES, "file\n1.jpg\n2.jpg\n", "no table of files and labels"),
    "an empty table": (IMAGES, "", "no table of files and labels"),
    "ragged": (IMAGES, written() + "5.jpg,cat,grey\n", "3 columns in row 6 and 2 in row 1"),
    "a quote without its end": (IMAGES, written().replace("2.jpg,cat", '2.jpg,"cat'), "unexpected end of data"),
    "UTF-16 without its mark": (IMAGES, written().encode("utf-16-le"), "no UTF-8 text"),
    "no training": (
        IMAGES, written(header="file,label,split", rows=tuple((*row, "val") for row in ROWS)), "names no training image"
    ),
    "binary": (IMAGES, b"\x89PNG\xff\xfe\0\0", "no UTF-8 text"),
    "a folder of one class": (("cat/1.jpg", "cat/2.jpg"), None, "has one class, cat"),
    "a folder of one image": ((*BARE, "cow/1.jpg"), None, "one photograph of class cow"),
    "an empty class": ((*BARE, "cow/notes.txt"), None, r"cow holds no photographs \(left out: 1 .txt "),
    "a class too deep": ((*BARE, "cow/a/1.jpg"), None, r"left out: 1 in a nested folder \(such as cow/a/1.jpg\)"),
    "loose photographs": (("a.jpg", "b.jpg"), None, "holds 2 photographs without a class: a.jpg"),
    "loose ones beside classes": ((*BARE, "x.jpg"), None, "1 photographs beside the class folders, such as x.jpg"),
    "no photographs": (("notes.txt", "a/notes.txt"), None, "a holds no photographs"),
    "files alone, no photographs": (("x.pdf", "y.pdf"), None, r"is empty but for 2 .pdf \(x.pdf\)"),
    "two training folders": (
        tuple(f"{train}/{name}" for train in ("train", "Train") for name in BARE), None, "has both Train and train"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(tmp_path: Path, name: str):
    names, text, message = BAD[name]
    plant(tmp_path, *names)
    if text is not None:
        table(tmp_path, text)
    with pytest.raises(BadData, match=message) as caught:
        scan(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_hundred_files_of_an_unknown_class_are_one_line(tmp_path: Path):
    plant(tmp_path, *(f"train/{name}" for name in BARE), "val/cat/1.jpg", *(f"val/dgo/{n}.jpg" for n in range(100)))
    assert len(list_images(tmp_path).problems) == 1
    with pytest.raises(BadData, match=r"has the label dgo \(and 99 more\), which no training image has"):
        scan(tmp_path)


def test_however_many_classes_are_called_otherwise_it_is_one_line(tmp_path: Path):
    """Eleven class folders in small letters here and in capitals there: one mistake, not twenty-two."""
    names = [f"c{number}" for number in range(11)]
    plant(tmp_path, *(f"train/{name}/{n}.jpg" for name in names for n in range(3)))
    plant(tmp_path, *(f"val/{name.upper()}/1.jpg" for name in names))
    (problem,) = list_images(tmp_path).problems
    assert problem.startswith("11 labels of validation images are those of no training image: C0 (is it c0?)")
    assert str(tmp_path / "val" / "C0" / "1.jpg") in problem
    assert len(problem) < 300 + len(str(tmp_path))


@pytest.mark.parametrize(("given", "meant"), [("dgo", "dog"), ("Cat", "cat"), ("CATS", "cat"), ("lizard", None)])
def test_the_class_that_was_meant_is_said(tmp_path: Path, given: str, meant: str | None):
    plant(tmp_path, *(f"train/{name}" for name in BARE), "val/cat/1.jpg", f"val/{given}/2.jpg")
    (problem,) = list_images(tmp_path).problems
    assert f"has the label {given}, which no training image has" in problem
    assert ("(is it " in problem) == bool(meant)
    assert meant is None or f"(is it {meant}?)" in problem


@pytest.mark.parametrize("training", ["trian", "Trainning", "traning", "train_"])
def test_a_training_folder_that_is_misspelt_is_one_line(tmp_path: Path, training: str):
    plant(tmp_path, *(f"{training}/{name}" for name in BARE), "val/cat/3.jpg", "val/dog/3.jpg")
    listing = list_images(tmp_path)
    assert listing.problems == (
        f"{tmp_path} has no training split, {tmp_path / 'training'}; call {tmp_path / training} so",
    )
    assert remarks_on(listing) == [f"left out: 4 in a folder that is no split (such as {training}/cat/1.jpg)"]


@pytest.mark.parametrize(("other", "split"), [("vall", "validation"), ("evalution", "evaluation"), ("holiday", None)])
def test_photographs_in_a_folder_of_no_split_are_never_left_out_silently(tmp_path: Path, other: str, split: str | None):
    plant(tmp_path, *(f"train/{name}" for name in BARE), f"{other}/cat/3.jpg", f"{other}/cat/4.jpg", "notes/a.txt")
    remarks = remarks_on(list_images(tmp_path))
    assert remarks[0] == f"left out: 2 in a folder that is no split (such as {other}/cat/3.jpg)"
    hints = [f"{tmp_path / other} is left out; if these are the {split} images, call it {split}"] if split else []
    assert remarks[1:] == hints


def test_a_folder_of_folders_within_a_split_is_taken_for_the_split(tmp_path: Path):
    plant(tmp_path, *(f"train/images/{name}" for name in BARE), "val/images/jpg/cat/3.jpg", "val/images/jpg/dog/3.jpg")
    listing = list_images(tmp_path)
    assert listing.problems == ()
    assert listing.folder.classes == ("cat", "dog")
    assert (len(listing.folder.training), len(listing.folder.validation)) == (4, 2)


def test_classes_whose_photographs_all_lie_too_deep_are_one_line_for_each_split(tmp_path: Path):
    plant(tmp_path, *(f"{split}/{name}/{part}/1.jpg" for split in ("train", "val") for name in "abc" for part in "xy"))
    training, validation = list_images(tmp_path).problems
    for problem, split in ((training, "train"), (validation, "val")):
        assert f"{split} holds no labelled image (left out: 6 in a nested folder" in problem
