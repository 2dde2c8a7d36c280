import json
from pathlib import Path

import pytest

from bantam.deliver.grade import BASELINES, grade, mark, read_baselines
from bantam.errors import BadSubmission
from bantam.measure.accuracy import Accuracy


def write(path: Path, header: str, rows: list[str]) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """Ten images of classes 0 to 9, the first five public."""
    rows = [f"{n:04d},{n},{'Public' if n < 5 else 'Private'}" for n in range(10)]
    return write(tmp_path / "labels.csv", "Id,Category,Usage", rows)


def submit(tmp_path: Path, wrong: set[int]) -> Path:
    return write(
        tmp_path / "submission.csv",
        "Id,Category",
        [f"{n:04d},{0 if n in wrong and n else n}" for n in range(10)],
    )


def test_accuracies_baselines_and_points(tmp_path: Path, labels: Path) -> None:
    graded = grade(submit(tmp_path, wrong={4, 5, 6}), labels)
    assert graded.overall == Accuracy(7, 10)
    assert graded.public == Accuracy(4, 5)
    assert graded.private == Accuracy(3, 5)
    assert graded.passed("public") == ["simple", "medium", "strong"]
    assert graded.passed("private") == ["simple"]
    assert graded.points == 2.0


def test_everything_right_gives_all_points(tmp_path: Path, labels: Path) -> None:
    graded = grade(submit(tmp_path, wrong=set()), labels)
    assert graded.points == 4.0
    assert graded.passed("private") == list(BASELINES) == ["simple", "medium", "strong", "boss"]


def test_an_accuracy_equal_to_the_baseline_does_not_pass(tmp_path: Path, labels: Path) -> None:
    baselines = tmp_path / "baselines.toml"
    baselines.write_text("equal = 0.8\nbelow = 0.7999999\n")
    graded = grade(submit(tmp_path, wrong={4, 5}), labels, baselines)
    assert graded.passed("public") == graded.passed("private") == ["below"]
    assert graded.points == 1.0


def test_without_usage_there_are_no_points(tmp_path: Path) -> None:
    labels = write(tmp_path / "labels.csv", "Id,Category", [f"{n:04d},{n}" for n in range(10)])
    graded = grade(submit(tmp_path, wrong={1}), labels)
    assert (graded.overall, graded.public, graded.private) == (Accuracy(9, 10), None, None)
    assert graded.points is None
    assert graded.to_json()["points"] is None
    assert "no column Usage" in graded.text()


def test_text_and_json_hold_the_same_numbers(tmp_path: Path, labels: Path) -> None:
    graded = grade(submit(tmp_path, wrong={4, 5, 6}), labels)
    text = graded.text()
    lines = text.splitlines()
    assert lines[1].split() == ["overall", "0.70000", "±", "0.1449", "7/10", "simple,", "medium"]
    assert lines[2].split() == ["public", "0.80000", "±", "0.1789", "4/5", "simple,", "medium,", "strong"]
    assert lines[3].split() == ["private", "0.60000", "±", "0.2191", "3/5", "simple"]
    assert "boss 0.82326" in text
    assert lines[-1] == "points: 2 of 4"
    plain = json.loads(json.dumps(graded.to_json(), allow_nan=False))
    assert plain["points"] == 2.0
    assert plain["baselines"] == BASELINES
    assert plain["parts"]["private"] == {
        "accuracy": 0.6,
        "standard_error": pytest.approx(0.2191, abs=1e-4),
        "correct": 3,
        "n": 5,
        "passed": ["simple"],
    }


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([f"{n:04d},1" for n in range(8)], r"2 missing ids \(0008, 0009\)"),
        ([f"{n:04d},1" for n in range(11)], r"1 unknown id \(0010\)"),
        ([f"{n:04d},1" for n in [*range(10), 3]], r"1 double id \(0003\)"),
        ([f"{n:04d},{10 if n == 2 else 1}" for n in range(10)], r"1 bad category \(0002: '10'\).*0 to 9"),
        ([str(n) + ",1" for n in range(10)], r"10 missing ids \(0000, 0001, 0002, 0003, 0004, \.\.\.\)"),
    ],
)
def test_faulty_submissions(tmp_path: Path, labels: Path, rows: list[str], message: str) -> None:
    with pytest.raises(BadSubmission, match=message) as caught:
        grade(write(tmp_path / "submission.csv", "Id,Category", rows), labels)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("Id,Category", [], "no labels"),
        ("Id,Label", ["0000,1"], r"make it Id,Category\[,Usage\]"),
        ("Id,Category,Usage", ["0000,1,Secret"], r"1 bad Usage \(0000: 'Secret'\)"),
        ("Id,Category", ["0000,one"], "integers from 0"),
    ],
)
def test_faulty_labels(tmp_path: Path, header: str, rows: list[str], message: str) -> None:
    with pytest.raises(BadSubmission, match=message):
        grade(submit(tmp_path, set()), write(tmp_path / "labels.csv", header, rows))


def test_one_half_alone(tmp_path: Path) -> None:
    labels = write(tmp_path / "labels.csv", "Id,Category,Usage", [f"{n:04d},{n},public" for n in range(10)])
    graded = grade(submit(tmp_path, set()), labels)
    assert (graded.public, graded.private) == (Accuracy(10, 10), None)
    assert graded.points == 2.0


def test_baselines_from_csv_come_lowest_first(tmp_path: Path, labels: Path) -> None:
    path = write(tmp_path / "baselines.csv", "name,threshold", ["gold,0.9", "bronze, 0.1"])
    graded = grade(submit(tmp_path, {4, 5}), labels, path)
    assert graded.baselines == {"bronze": 0.1, "gold": 0.9}
    assert graded.points == 1.0


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("b.toml", "simple = ", "b.toml"),
        ("b.toml", "", "no baselines"),
        ("b.toml", "simple = 44.3", "threshold of simple is 44.3"),
        ("b.toml", "simple = nan", "threshold of simple"),
        ("b.toml", "simple = true", "threshold of simple"),
        ("b.csv", "name,threshold\nsimple,high\n", "threshold of simple is 'high'"),
        ("b.csv", "name,threshold\na,0.1\na,0.2\n", "baseline a stands there twice"),
        ("b.csv", "a,0.1\n", "name,threshold"),
        ("b.csv", "", "name,threshold"),
    ],
)
def test_faulty_baselines(tmp_path: Path, labels: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BadSubmission, match=message) as caught:
        grade(submit(tmp_path, set()), labels, tmp_path / name)
    assert "\n" not in str(caught.value)


def test_missing_baselines_file(tmp_path: Path, labels: Path) -> None:
    with pytest.raises(BadSubmission, match="cannot read"):
        grade(submit(tmp_path, set()), labels, tmp_path / "none.toml")


def test_marks_stand_in_the_order_of_the_ids_whatever_the_order_of_the_rows(tmp_path: Path) -> None:
    """McNemar's test pairs two submissions image by image, so the order must not be that of a file."""
    (tmp_path / "submission.csv").write_text("Id,Category\n0002,1\n0000,1\n0003,0\n0001,1\n")
    halves = {"0000": "Public", "0001": "Private", "0002": "Public", "0003": "Private"}
    truth = {"0000": 1, "0001": 0, "0002": 0, "0003": 0}
    for order in (["0003", "0000", "0002", "0001"], ["0000", "0001", "0002", "0003"]):
        rows = [f"{name},{truth[name]},{halves[name]}\n" for name in order]
        (tmp_path / "labels.csv").write_text("Id,Category,Usage\n" + "".join(rows))
        marks = mark(tmp_path / "submission.csv", tmp_path / "labels.csv")
        assert marks.right("overall") == [True, False, False, True]
        assert marks.right("public") == [True, False]
        assert marks.right("private") == [False, True]


def test_baselines_are_told_lowest_first(tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_text("hard = 0.4\neasy = 0.1\nnormal = 0.3\n")
    assert list(read_baselines(tmp_path / "b.toml")) == ["easy", "normal", "hard"]
