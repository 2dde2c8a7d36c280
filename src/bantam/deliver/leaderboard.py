"""The local leaderboard: a history of submissions in a SQLite file beside the labels.

It stands in for the course's: public scores are shown at once, private ones only to whoever asks for them; a few
submissions a day; baselines as lines between the entries. Unlike the course's it says which differences are noise: two
submissions are compared on the same public images by McNemar's exact test.
"""

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from bantam.deliver.grade import Marks
from bantam.errors import BadLeaderboard
from bantam.measure.counts import WILSON_Z, Accuracy, mcnemar_of

PER_DAY = 5
"""The course's limit of submissions a day."""

NOISE = 0.05
"""The p-value from which on a difference counts as noise."""

LONGEST_NAME = 40

WAIT = 30.0  # seconds for another process that is writing

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS board (labels TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS submissions (id INTEGER PRIMARY KEY, name TEXT NOT NULL, at TEXT NOT NULL, "
    "digest TEXT NOT NULL UNIQUE, public BLOB NOT NULL, private BLOB NOT NULL)",
)


@dataclass(frozen=True, eq=False)
class Entry:
    """One submission: when it came (UTC), and which images of each half it has right, in the order of their ids.

    Where the labels know no halves, every image is public and `private` is empty.
    """

    name: str
    at: datetime
    public: tuple[bool, ...]
    private: tuple[bool, ...]

    @property
    def score(self) -> Accuracy:
        """The public accuracy."""
        return Accuracy(sum(self.public), len(self.public))

    @property
    def private_score(self) -> Accuracy | None:
        return Accuracy(sum(self.private), len(self.private)) if self.private else None

    def noise(self, other: "Entry") -> float:
        """The p-value of both being equally accurate on the public images."""
        pairs = list(zip(self.public, other.public, strict=True))
        return mcnemar_of(pairs.count((True, False)), pairs.count((False, True))).p


@dataclass(frozen=True)
class Submitted:
    """What became of a submission: `repeated` if these very predictions were there already; then nothing is new."""

    entry: Entry
    repeated: bool
    today: int
    per_day: int


def board_of(labels: Path) -> Path:
    """Where the leaderboard of a file of labels is: beside it."""
    return labels.with_suffix(".leaderboard.sqlite")


def submit(board: Path, name: str, marks: Marks, now: datetime, per_day: int = PER_DAY) -> Submitted:
    """Enter a submission's `marks` as `name` at the time `now` (UTC). Several processes may do so at once.

    Predictions that are there already are recognised, whatever the file's name or the order of its rows; they count
    as no submission. Raises BadLeaderboard where the day's submissions are used up, the board is of other labels, or
    the name cannot be shown.
    """
    if not presentable(name):
        raise BadLeaderboard(
            f"{name[:20]!r} is no name for a leaderboard; give 1 to {LONGEST_NAME} printable characters"
        )
    digest = digest_of(sorted(marks.predicted.items()))
    labels = digest_of(sorted((i, k) for i, k in marks.truth.items()), sorted(marks.halves["public"]))
    halves = [marks.right(half) for half in ("public", "private")]
    public, private = halves if any(halves) else (marks.right("overall"), [])
    with opened(board, writing=True) as database:
        database.execute("BEGIN IMMEDIATE")  # the lock of the one who writes, before anything is read
        for statement in SCHEMA:
            database.execute(statement)
        known = database.execute("SELECT labels FROM board").fetchone()
        if known is None:
            database.execute("INSERT INTO board VALUES (?)", (labels,))
        elif known[0] != labels:
            raise BadLeaderboard(f"{board} belongs to other labels; move it away to begin a new leaderboard")
        day = now.strftime("%Y-%m-%d")
        today = database.execute("SELECT COUNT(*) FROM submissions WHERE at LIKE ?", (f"{day}%",)).fetchone()[0]
        there = database.execute("SELECT name, at, public, private FROM submissions WHERE digest = ?", (digest,))
        if (row := there.fetchone()) is not None:
            return Submitted(entry_of(row, board), True, today, per_day)
        if today >= per_day:
            raise BadLeaderboard(
                f"{today} submissions were entered today (UTC), and {per_day} a day are allowed; "
                "choose on validation and come back tomorrow, or raise --per-day"
            )
        row = (name, now.isoformat(timespec="microseconds"), bytes(public), bytes(private))
        database.execute(
            "INSERT INTO submissions (name, at, public, private, digest) VALUES (?,?,?,?,?)", (*row, digest)
        )
        database.execute("COMMIT")
    return Submitted(entry_of(row, board), False, today + 1, per_day)


def entries(board: Path) -> list[Entry]:
    """All submissions, the best public score first; of equals the earlier.

    Raises BadLeaderboard without a board, and for a damaged one.
    """
    if not board.is_file():
        raise BadLeaderboard(
            f"there is no leaderboard {board}; `bantam grade submission.csv --labels LABELS --name NAME` begins one"
        )
    with opened(board, writing=False) as database:
        rows = database.execute("SELECT name, at, public, private FROM submissions ORDER BY id").fetchall()
    found = [entry_of(row, board) for row in rows]
    if len({(len(entry.public), len(entry.private)) for entry in found}) > 1:
        raise damaged(board, "its submissions are of different numbers of images")
    return sorted(found, key=lambda entry: -entry.score.value)


@contextlib.contextmanager
def opened(board: Path, *, writing: bool) -> Iterator[sqlite3.Connection]:
    """The database; what was begun and not committed is undone. Raises BadLeaderboard for what SQLite refuses."""
    mode = "rwc" if writing else "ro"
    try:
        database = sqlite3.connect(
            f"{board.resolve().as_uri()}?mode={mode}", uri=True, timeout=WAIT, isolation_level=None
        )
        with contextlib.closing(database):
            yield database
    except sqlite3.Error as error:
        raise BadLeaderboard(
            f"cannot use the leaderboard {board}: {error}; check the folder, or move a damaged file away"
        ) from error


def entry_of(row: tuple[Any, ...], board: Path) -> Entry:
    """The entry that a row of the database holds, in which any type may stand. Raises BadLeaderboard."""
    name, at, public, private = row
    try:
        if not (isinstance(name, str) and presentable(name)):
            raise ValueError("a name that is none")
        when = datetime.fromisoformat(at)
        if when.tzinfo is None:
            raise ValueError("a date without its time zone")
        entry = Entry(name, when, hits(public), hits(private))
        if not entry.public:
            raise ValueError("no images")
    except (ValueError, TypeError) as error:
        raise damaged(board, f"a submission has {error}") from error
    return entry


def presentable(name: str) -> bool:
    """Whether a name can be shown in the table."""
    return bool(name.strip()) and name.isprintable() and len(name) <= LONGEST_NAME


def damaged(board: Path, how: str) -> BadLeaderboard:
    """What is raised for the leaderboard `board`, which is not as it was written: `how`."""
    said = " ".join(how.split())[:200]
    return BadLeaderboard(f"the leaderboard {board} is damaged: {said}; put a copy back, or move it away to begin anew")


def hits(stored: object) -> tuple[bool, ...]:
    """Which images were right, from a byte each, 0 or 1. Raises ValueError."""
    if not isinstance(stored, bytes) or not set(stored) <= {0, 1}:
        raise ValueError("something else than right and wrong")
    return tuple(map(bool, stored))


def digest_of(*values: Any) -> str:
    """A hexadecimal SHA-256 of plain values."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


# --- what people and programs see


def standing(board: list[Entry], baselines: Mapping[str, float], *, reveal: bool) -> list[dict[str, Any]]:
    """Entries and baselines as one table of plain data, the highest public score first.

    `notes` name what lies within noise: the next entry by McNemar's test, a baseline by the entry's standard error.
    Private scores are there only with `reveal`.
    """
    rows: list[dict[str, Any]] = [
        {"baseline": name, "accuracy": threshold} for name, threshold in sorted(baselines.items())
    ]
    for place, entry in enumerate(board, start=1):
        score = entry.score
        row: dict[str, Any] = {"place": place, "name": entry.name, "at": entry.at.isoformat()}
        row |= {"accuracy": score.value, "standard_error": score.standard_error, "n": score.n}
        row["notes"] = []
        if place < len(board):
            row["p_next"] = entry.noise(board[place])
            if row["p_next"] >= NOISE:
                row["notes"].append(f"within noise of {board[place].name} (p = {row['p_next']:.2g})")
        row["notes"] += [
            f"within noise of the baseline {name}"
            for name, threshold in baselines.items()
            if abs(score.value - threshold) < WILSON_Z * score.standard_error
        ]
        if reveal and (private := entry.private_score) is not None:
            row |= {"private": private.value, "private_standard_error": private.standard_error}
        rows.append(row)
    return sorted(rows, key=lambda row: -row["accuracy"])


def text(rows: list[dict[str, Any]]) -> str:
    """The table of `standing` for people."""
    width = max([4, *(len(row.get("name", "")) for row in rows)])
    lines = [f"{'':>3}  {'name':{width}}  {'public':17}  {'private':17}  {'submitted (UTC)':16}"]
    for row in rows:
        if "baseline" in row:
            lines.append(f"---  {'':-<{width}}  {row['accuracy']:.5f} baseline {row['baseline']}")
            continue
        public = f"{row['accuracy']:.5f} ± {row['standard_error']:.4f}"
        private = f"{row['private']:.5f} ± {row['private_standard_error']:.4f}" if "private" in row else "hidden"
        at = row["at"][:16].replace("T", " ")
        notes = "; ".join(row["notes"])
        lines.append(f"{row['place']:>3}  {row['name']:{width}}  {public:17}  {private:17}  {at}  {notes}".rstrip())
    return "\n".join(lines)
