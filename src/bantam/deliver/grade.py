"""Grading a submission as the course does: accuracy on both leaderboard halves, baselines passed, points."""

import csv
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bantam.deliver.submission import CATEGORY, ID, first_few, parse_categories, read, read_rows
from bantam.errors import BadSubmission
from bantam.measure.counts import Accuracy

USAGE = "Usage"
BASELINES = {"simple": 0.44364, "medium": 0.68440, "strong": 0.78268, "boss": 0.82326}
"""The course's thresholds on the real Food-11."""

POINTS_PER_BASELINE_AND_HALF = 0.5


@dataclass(frozen=True)
class Grade:
    """Accuracy overall and, where the labels say who belongs to which half, on the two halves.

    Points are given on the halves alone: without them `points` is None.
    """

    overall: Accuracy
    public: Accuracy | None
    private: Accuracy | None
    baselines: dict[str, float]

    @property
    def parts(self) -> dict[str, Accuracy]:
        """The accuracies there are, by name."""
        parts = {"overall": self.overall, "public": self.public, "private": self.private}
        return {name: accuracy for name, accuracy in parts.items() if accuracy is not None}

    def passed(self, part: str) -> list[str]:
        """The baselines that `part` (overall, public or private) is strictly above, lowest first."""
        return [name for name, threshold in self.baselines.items() if self.parts[part].value > threshold]

    @property
    def points(self) -> float | None:
        """0.5 for each baseline passed on each half."""
        halves = [part for part in ("public", "private") if part in self.parts]
        if not halves:
            return None
        return POINTS_PER_BASELINE_AND_HALF * sum(len(self.passed(half)) for half in halves)

    def text(self) -> str:
        """A table for people."""
        lines = [f"{'':8}  {'accuracy':15}  {'correct':>11}  baselines passed"]
        for part, accuracy in self.parts.items():
            shown = f"{accuracy.value:.5f} ± {accuracy.standard_error:.4f}"
            correct = f"{accuracy.correct}/{accuracy.n}"
            lines.append(f"{part:8}  {shown:15}  {correct:>11}  {', '.join(self.passed(part)) or '-'}")
        lines.append("baselines: " + ", ".join(f"{name} {value:g}" for name, value in self.baselines.items()))
        if self.points is None:
            lines.append(f"points: none, because the labels have no column {USAGE} that names the two halves")
        else:
            most = POINTS_PER_BASELINE_AND_HALF * 2 * len(self.baselines)
            lines.append(f"points: {self.points:g} of {most:g}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """The same as plain data for `json.dumps`."""
        return {
            "parts": {
                part: {
                    "accuracy": accuracy.value,
                    "standard_error": accuracy.standard_error,
                    "correct": accuracy.correct,
                    "n": accuracy.n,
                    "passed": self.passed(part),
                }
                for part, accuracy in self.parts.items()
            },
            "baselines": self.baselines,
            "points": self.points,
        }


@dataclass(frozen=True)
class Marks:
    """Which images a submission has right: by id in the order of the ids, all of them and by half.

    `predicted` and `truth` are the categories by id that it was made of; `halves` the ids of each half.
    """

    predicted: dict[str, int]
    truth: dict[str, int]
    halves: dict[str, list[str]]

    def right(self, part: str) -> list[bool]:
        """For every image of `part` (overall, public or private), in the order of their ids."""
        ids = sorted(self.truth if part == "overall" else self.halves[part])
        return [self.predicted[image_id] == self.truth[image_id] for image_id in ids]

    def accuracy(self, part: str) -> Accuracy | None:
        """None where no image is of `part`."""
        right = self.right(part)
        return Accuracy(sum(right), len(right)) if right else None


def grade(submission: Path, labels: Path, baselines: Path | None = None) -> Grade:
    """Check and grade a submission.

    Args:
        submission: CSV with the header Id,Category.
        labels: CSV with the header Id,Category and perhaps Usage, which is Public or Private for every image.
            The largest category in it is the largest that a submission may name.
        baselines: TOML (`name = threshold`) or CSV (`name,threshold`) that replaces the course's thresholds.

    Raises:
        BadSubmission: a file that cannot be read; missing, double or unknown ids; bad categories.
    """
    thresholds = BASELINES if baselines is None else read_baselines(baselines)
    marks = mark(submission, labels)
    overall = marks.accuracy("overall")
    assert overall is not None
    return Grade(overall, marks.accuracy("public"), marks.accuracy("private"), thresholds)


def mark(submission: Path, labels: Path) -> Marks:
    """Compare a submission with the labels, image by image; raises BadSubmission as `grade` does."""
    rows = read_rows(labels, (ID, CATEGORY), (USAGE,))
    if not rows:
        raise BadSubmission(f"{labels}: no labels; give one row an evaluation image")
    truth = parse_categories(labels, rows, classes=None)
    halves = read_halves(labels, rows)
    predicted = read(submission, classes=max(truth.values()) + 1)
    missing = [image_id for image_id in truth if image_id not in predicted]
    if missing:
        raise BadSubmission(f"{submission}: {first_few(missing, 'missing id')}; give exactly one row an image")
    unknown = [image_id for image_id in predicted if image_id not in truth]
    if unknown:
        raise BadSubmission(
            f"{submission}: {first_few(unknown, 'unknown id')} that {labels} does not have; take them out"
        )
    return Marks(predicted, truth, halves)


def read_halves(labels: Path, rows: list[dict[str, str]]) -> dict[str, list[str]]:
    """The ids of each half; both are empty where the labels have no column Usage."""
    halves: dict[str, list[str]] = {"public": [], "private": []}
    if USAGE not in rows[0]:
        return halves
    bad = [f"{row[ID]}: {row[USAGE][:20]!r}" for row in rows if row[USAGE].lower() not in halves]
    if bad:
        raise BadSubmission(f"{labels}: {first_few(bad, f'bad {USAGE}')}; write Public or Private in every row")
    for row in rows:
        halves[row[USAGE].lower()].append(row[ID])
    return halves


def read_baselines(path: Path) -> dict[str, float]:
    """Names and thresholds, lowest first.

    Raises:
        BadSubmission: unreadable, empty, a name twice, or a threshold outside 0..1.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        pairs = list(tomllib.loads(text).items()) if path.suffix == ".toml" else csv_baselines(text)
    except OSError as error:
        raise BadSubmission(f"cannot read {path}: {error.strerror or error}; check the path") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, csv.Error) as error:
        raise BadSubmission(f"{path}: {error}; write `name = threshold` lines, or a CSV with name,threshold") from error
    thresholds: dict[str, float] = {}
    for name, value in pairs:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise BadSubmission(f"{path}: the threshold of {name} is {value!r}; give a number in 0..1")
        if name in thresholds:
            raise BadSubmission(f"{path}: baseline {name} stands there twice; leave one")
        thresholds[name] = float(value)
    if not thresholds:
        raise BadSubmission(f"{path}: no baselines; write `name = threshold` lines, or a CSV with name,threshold")
    return dict(sorted(thresholds.items(), key=lambda item: item[1]))


def csv_baselines(text: str) -> list[tuple[str, float | str]]:
    """The rows below the header name,threshold; a threshold that is not a number stays text."""
    header, *rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines()) if row] or [[]]
    if header != ["name", "threshold"] or any(len(row) != 2 for row in rows):
        raise csv.Error("not a table of two columns with the header name,threshold")
    return [(name, as_number(value)) for name, value in rows]


def as_number(text: str) -> float | str:
    """The number that `text` is, or the text."""
    try:
        return float(text)
    except ValueError:
        return text
