from pathlib import Path

import pytest
import torch

from bantam.deliver import submission
from bantam.errors import BadSubmission, CannotWrite


def test_rows_are_sorted_and_ids_keep_their_zeros(tmp_path: Path) -> None:
    path = tmp_path / "out" / "submission.csv"
    submission.write(path, ["0010", "0002", "0000"], [3, 10, 0])
    assert path.read_bytes() == b"Id,Category\n0000,0\n0002,10\n0010,3\n"
    assert submission.read(path, classes=11) == {"0000": 0, "0002": 10, "0010": 3}


def test_categories_may_be_tensors_elements(tmp_path: Path) -> None:
    path = tmp_path / "submission.csv"
    submission.write(path, ["0001"], torch.tensor([4]).tolist())
    assert submission.read(path, 5) == {"0001": 4}


@pytest.mark.parametrize(
    ("ids", "categories", "message"),
    [
        (["0000", "0000"], [1, 2], r"1 double id \(0000\)"),
        (["0000"], [1, 2], "1 ids but 2 predictions"),
        (["0000"], [-1], "negative category"),
    ],
)
def test_what_must_not_be_written(tmp_path: Path, ids: list[str], categories: list[int], message: str) -> None:
    path = tmp_path / "submission.csv"
    path.write_text("before")
    with pytest.raises(BadSubmission, match=message):
        submission.write(path, ids, categories)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_unwritable_output(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWrite):
        submission.write(tmp_path / "file" / "submission.csv", ["0000"], [1])


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffId,Category\n0001,4\n0000,2\n",
        "Id,Category\r\n0001,4\r\n\r\n0000,2\r\n",
        'Id,Category\n"0001"," 4"\n0000,2',
    ],
)
def test_what_spreadsheets_write_is_read(tmp_path: Path, text: str) -> None:
    path = tmp_path / "submission.csv"
    path.write_text(text, encoding="utf-8", newline="")
    assert submission.read(path, 11) == {"0001": 4, "0000": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "header"),
        ("id,category\n0000,1\n", "header is 'id,category'; make it Id,Category"),
        ("0000,1\n", "header"),
        ("Id,Category,Usage\n0000,1,Public\n", "header"),
        ("Id,Category\n0000,1\n0000,1\n0001,2\n0001,2\n", r"2 double ids \(0000, 0001\)"),
        ("Id,Category\n,1\n", "1 row with an empty Id"),
        ("Id,Category\n0000\n0001,1,2\n", r"2 rows \(0000, 0001\) without exactly 2 columns"),
        ("Id,Category\n0000,11\n", r"1 bad category \(0000: '11'\); categories are integers 0 to 10"),
        (
            "Id,Category\n" + "".join(f"{n:04d},-1\n" for n in range(7)),
            r"7 bad categories \(.*0004: '-1', \.\.\.\)",
        ),
        ("Id,Category\n0000,1.0\n0001,\n0002,bread\n0003,1_0\n0004,٣\n", "5 bad categories"),
        ("Id,Category\n0000," + "9" * 5000 + "\n", "1 bad category"),
    ],
)
def test_faulty_files_are_explained_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "submission.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadSubmission, match=message) as caught:
        submission.read(path, 11)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400 + len(str(path))


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(BadSubmission, match=r"cannot read .*missing\.csv"):
        submission.read(tmp_path / "missing.csv", 11)
    with pytest.raises(BadSubmission, match="cannot read"):
        submission.read(tmp_path, 11)
    (tmp_path / "binary.csv").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(BadSubmission, match="not a CSV text file"):
        submission.read(tmp_path / "binary.csv", 11)


def test_probabilities(tmp_path: Path) -> None:
    path = tmp_path / "probabilities.csv"
    submission.write_probabilities(
        path, ["0001", "0000"], torch.tensor([[0.25, 0.75], [1.0, 1e-7]]), ["Bread", "Egg, raw"]
    )
    assert path.read_text() == 'Id,Bread,"Egg, raw"\n0000,1,1e-07\n0001,0.25,0.75\n'
    with pytest.raises(BadSubmission, match="do not fit 1 classes"):
        submission.write_probabilities(path, ["0000"], torch.ones(1, 2), ["Bread"])
    with pytest.raises(BadSubmission, match="1 ids but 2 predictions"):
        submission.write_probabilities(path, ["0000"], torch.ones(2, 2), ["Bread", "Egg"])


@pytest.mark.parametrize("category", [float("nan"), 1.5, float("inf"), "1", None])
def test_a_category_that_is_no_whole_number_is_refused(tmp_path: Path, category: object) -> None:
    with pytest.raises(BadSubmission, match=r"1 category \(0001\) not whole numbers"):
        submission.write(tmp_path / "s.csv", ["0000", "0001"], [1, category])  # pyright: ignore[reportArgumentType]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [float("nan"), -0.1, 1.5, float("inf")])
def test_what_is_no_probability_is_refused(tmp_path: Path, number: float) -> None:
    rows = torch.tensor([[0.5, 0.5], [number, 0.2]])
    with pytest.raises(BadSubmission, match=r"1 row \(0001\) with what is no probability"):
        submission.write_probabilities(tmp_path / "p.csv", ["0000", "0001"], rows, ("a", "b"))
    assert not list(tmp_path.iterdir())
