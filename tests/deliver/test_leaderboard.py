"""The leaderboard: what it keeps, hides, recognises and refuses, and that writers at once do not spoil it."""

import random
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch

from bantam.deliver.grade import mark
from bantam.deliver.leaderboard import board_of, entries, standing, submit, text
from bantam.errors import BadLeaderboard, BantamError
from bantam.measure.accuracy import mcnemar

NOON = datetime(2030, 1, 2, 12, tzinfo=UTC)
N = 40


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "labels.csv"
    rows = [f"{n:04d},{n % 5},{'Public' if n % 2 else 'Private'}\n" for n in range(N)]
    path.write_text("Id,Category,Usage\n" + "".join(rows))
    return path


def submission(labels: Path, wrong: set[int], name: str = "submission.csv", shuffled: bool = False) -> Path:
    rows = [f"{n:04d},{(n + (n in wrong)) % 5}\n" for n in range(N)]
    if shuffled:
        random.Random(0).shuffle(rows)
    path = labels.with_name(name)
    path.write_text("Id,Category\n" + "".join(rows))
    return path


def enter(labels: Path, name: str, wrong: set[int], at: datetime = NOON, per_day: int = 5):
    return submit(board_of(labels), name, mark(submission(labels, wrong), labels), at, per_day)


def test_scores_are_those_of_the_halves(labels: Path) -> None:
    enter(labels, "first", {0, 1, 2, 3, 5})
    (entry,) = entries(board_of(labels))
    assert (entry.score.correct, entry.score.n) == (17, 20)
    assert entry.private_score is not None
    assert (entry.private_score.correct, entry.private_score.n) == (18, 20)
    assert entry.at == NOON


def test_the_private_score_is_nowhere_until_it_is_revealed(labels: Path) -> None:
    enter(labels, "first", {0, 2, 4, 6, 1})
    board = entries(board_of(labels))
    hidden = standing(board, {}, reveal=False)
    assert not any("private" in key for key in hidden[0])
    assert "hidden" in text(hidden)
    assert "0.80000" not in text(hidden)
    assert "0.80000" in text(standing(board, {}, reveal=True))


def test_five_a_day_and_the_day_ends_at_midnight_utc(labels: Path) -> None:
    for n in range(5):
        assert enter(labels, f"net {n}", {n}).today == n + 1
    with pytest.raises(BadLeaderboard, match="5 a day are allowed"):
        enter(labels, "sixth", {10, 11})
    assert len(entries(board_of(labels))) == 5
    assert enter(labels, "sixth", {10, 11}, NOON + timedelta(hours=12)).today == 1
    assert enter(labels, "seventh", {12, 11}, per_day=6).today == 6


def test_the_same_predictions_are_recognised_whatever_the_file_and_count_for_nothing(labels: Path) -> None:
    enter(labels, "first", {1, 2})
    marks = mark(submission(labels, {1, 2}, "again.csv", shuffled=True), labels)
    again = submit(board_of(labels), "second", marks, NOON, per_day=1)
    assert again.repeated
    assert again.entry.name == "first"
    assert len(entries(board_of(labels))) == 1


def test_entries_stand_by_public_score_with_baselines_between(labels: Path) -> None:
    enter(labels, "low", set(range(30)))
    enter(labels, "high", {1})
    rows = standing(entries(board_of(labels)), {"easy": 0.2, "hard": 0.5}, reveal=False)
    assert [row.get("name") or row["baseline"] for row in rows] == ["high", "hard", "low", "easy"]
    assert [row.get("place") for row in rows] == [1, None, 2, None]


def test_noise_is_mcnemars_on_the_public_images_alone(labels: Path) -> None:
    enter(labels, "a", {1, 3, 0, 2, 4, 6, 8, 10})
    enter(labels, "b", {1, 5, 7})
    enter(labels, "c", set(range(1, 40, 2)))
    rows = {row["name"]: row for row in standing(entries(board_of(labels)), {"near": 0.87}, reveal=False)[0:4] if "name" in row}  # fmt: skip # noqa: E501
    odd = torch.arange(1, N, 2)
    right = [~torch.isin(odd, torch.tensor(wrong)) for wrong in ([1, 3], [1, 5, 7])]
    assert rows["a"]["p_next"] == mcnemar(*right).p == 1.0
    assert rows["a"]["notes"] == ["within noise of b (p = 1)", "within noise of the baseline near"]
    assert rows["b"]["p_next"] == mcnemar(right[1], torch.zeros(20, dtype=torch.bool)).p
    assert rows["b"]["notes"] == ["within noise of the baseline near"]
    assert "p_next" not in rows["c"]


def test_without_halves_every_image_is_public(tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("Id,Category\n" + "".join(f"{n:04d},{n % 5}\n" for n in range(N)))
    enter(labels, "first", {0})
    (entry,) = entries(board_of(labels))
    assert entry.score.n == N
    assert entry.private_score is None
    assert "private" not in standing([entry], {}, reveal=True)[0]


def test_many_writers_at_once_enter_exactly_as_many_as_are_allowed(labels: Path) -> None:
    every = [mark(submission(labels, {n}), labels) for n in range(12)]

    def one(n: int) -> str:
        try:
            return f"place {submit(board_of(labels), f'net {n}', every[n], NOON).today}"
        except BadLeaderboard as error:
            return "refused" if "a day are allowed" in str(error) else str(error)

    with ThreadPoolExecutor(12) as pool:
        said = sorted(pool.map(one, range(12)))
    assert said == [f"place {n}" for n in range(1, 6)] + ["refused"] * 7
    assert len(entries(board_of(labels))) == 5


def test_other_labels_need_another_board(labels: Path) -> None:
    enter(labels, "first", {1})
    labels.write_text(labels.read_text().replace("0000,0", "0000,4"))
    with pytest.raises(BadLeaderboard, match="other labels"):
        enter(labels, "second", {2})
    assert len(entries(board_of(labels))) == 1


def test_what_is_no_leaderboard_says_so(labels: Path, tmp_path: Path) -> None:
    with pytest.raises(BadLeaderboard, match="there is no leaderboard"):
        entries(board_of(labels))
    assert not board_of(labels).exists()
    board_of(labels).write_text("no database, but a text that is long enough to be looked at as a header")
    for call in (lambda: entries(board_of(labels)), lambda: enter(labels, "first", {1})):
        with pytest.raises(BadLeaderboard, match="cannot use the leaderboard"):
            call()
    with pytest.raises(BantamError, match="cannot use the leaderboard"):
        submit(tmp_path / "missing" / "board.sqlite", "x", mark(submission(labels, {1}), labels), NOON)


@pytest.mark.parametrize("name", ["", "  ", "two\nlines", "\x1b[31m", "x" * 41])
def test_names_are_printable(labels: Path, name: str) -> None:
    with pytest.raises(BadLeaderboard, match="no name for a leaderboard"):
        enter(labels, name, {1})
    assert not board_of(labels).exists()


def test_a_killed_writer_leaves_the_board_as_it_was(labels: Path) -> None:
    enter(labels, "first", {1})
    database = sqlite3.connect(board_of(labels), isolation_level=None)
    database.execute("BEGIN IMMEDIATE")
    database.execute("DELETE FROM submissions")
    database.close()
    assert [entry.name for entry in entries(board_of(labels))] == ["first"]


@pytest.mark.parametrize(
    "change",
    [
        "at = 'yesterday'", "at = ''", "at = 7", "at = '2030-01-02T12:00:00'", "at = x'ff00'", "name = ''",
        "name = x'ff'", "public = 'text'", "public = x''", "public = x'0002'", "public = 3", "private = x'07'",
        "public = x'0001'", "private = x'01'",
    ],
)  # fmt: skip
def test_a_damaged_row_is_one_line(labels: Path, change: str) -> None:
    enter(labels, "first", {1})
    enter(labels, "second", {2})
    with sqlite3.connect(board_of(labels)) as database:
        database.execute(f"UPDATE submissions SET {change} WHERE id = 1")
    with pytest.raises(BadLeaderboard, match="leaderboard.*move") as said:
        entries(board_of(labels))
    assert "\n" not in str(said.value)
    if change not in ("public = x'0001'", "private = x'01'"):  # alone, these could be of fewer images
        with pytest.raises(BadLeaderboard, match="leaderboard.*move"):
            enter(labels, "again", {1})


def test_a_leaderboard_cut_short_or_overwritten_is_one_line(labels: Path) -> None:
    enter(labels, "first", {1})
    board = board_of(labels)
    data = board.read_bytes()
    for damaged in (data[: len(data) // 2], data[:100], bytes(len(data)), data[:4096] + b"\xff" * (len(data) - 4096)):
        board.write_bytes(damaged)
        with pytest.raises(BadLeaderboard, match="leaderboard") as said:
            entries(board)
        assert "\n" not in str(said.value)
