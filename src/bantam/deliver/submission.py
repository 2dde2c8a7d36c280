"""The file that is handed in: `Id,Category`, one row an image, sorted by Id."""

import csv
import operator
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bantam.errors import BadSubmission
from bantam.files import writing

if TYPE_CHECKING:
    from torch import Tensor

ID, CATEGORY = "Id", "Category"
NAMED_AT_MOST = 5


def write(path: Path, ids: Sequence[str], categories: Sequence[int]) -> None:
    """Write one row an image, sorted by Id, whole or not at all.

    Ids are written as the data have them: the course's are four digits with leading zeros.

    Raises:
        BadSubmission: not one category for each id, an id twice, or a category that is no whole number from 0.
        CannotWrite: the operating system refuses.
    """
    require_one_each(path, ids, len(categories))
    numbers = list(map(whole, categories))
    bad = [image_id for image_id, number in zip(ids, numbers, strict=True) if number is None]
    if bad:
        raise BadSubmission(f"{path}: {first_few(bad, 'category', 'categories')} not whole numbers; count them from 0")
    negative = [image_id for image_id, number in zip(ids, numbers, strict=True) if number is not None and number < 0]
    if negative:
        raise BadSubmission(f"{path}: {first_few(negative, 'negative category')}; categories count from 0")
    write_rows(path, (ID, CATEGORY), sorted(zip(ids, numbers, strict=True)))


def write_probabilities(path: Path, ids: Sequence[str], probabilities: "Tensor", classes: Sequence[str]) -> None:
    """Write one row an image, sorted by Id: the Id, then the probability of each class under the class's
    name.

    Args:
        path: the CSV file.
        ids: N ids.
        probabilities: [N, K] in 0..1.
        classes: K class names.

    Raises:
        BadSubmission: not one row for each id, not one column for each class, an id twice, or what is no probability.
        CannotWrite: the operating system refuses.
    """
    require_one_each(path, ids, len(probabilities))
    if probabilities.ndim != 2 or probabilities.shape[1] != len(classes):
        raise BadSubmission(
            f"{path}: probabilities {[*probabilities.shape]} do not fit {len(classes)} classes; give one column a class"
        )
    proper = ((probabilities >= 0) & (probabilities <= 1)).all(1)  # [N]; NaN is neither
    bad = [image_id for image_id, good in zip(ids, proper.tolist(), strict=True) if not good]
    if bad:
        raise BadSubmission(f"{path}: {first_few(bad, 'row')} with what is no probability; they lie in 0..1")
    rows = sorted(zip(ids, probabilities.tolist(), strict=True))
    write_rows(path, (ID, *classes), ((image_id, *(f"{p:.6g}" for p in row)) for image_id, row in rows))


def read(path: Path, classes: int) -> dict[str, int]:
    """The category of every id, in the file's order.

    Raises:
        BadSubmission: the file cannot be read, has another header, an empty or double id, or a category that
            is not an integer from 0 to `classes` - 1. The message counts the faults and names the first few.
    """
    rows = read_rows(path, (ID, CATEGORY))
    return parse_categories(path, rows, classes)


def read_rows(path: Path, columns: Sequence[str], optional: Sequence[str] = ()) -> list[dict[str, str]]:
    """The rows of a CSV file as dicts of stripped text, header and ids checked.

    Raises:
        BadSubmission: unreadable, other columns than `columns` and perhaps `optional`, or an empty or double
            id.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            header, *rows = [[cell.strip() for cell in row] for row in csv.reader(file) if row] or [[]]
    except OSError as error:
        raise BadSubmission(f"cannot read {path}: {error.strerror or error}; check the path") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadSubmission(
            f"{path} is not a CSV text file in UTF-8; write it anew with `bantam predict RUN --data DIR`"
        ) from error
    if header[: len(columns)] != list(columns) or header[len(columns) :] not in ([], list(optional)):
        expected = ",".join(columns) + "".join(f"[,{name}]" for name in optional)
        raise BadSubmission(f"{path}: header is {','.join(header)[:80]!r}; make it {expected}")
    ragged = [row[0] for row in rows if len(row) != len(header)]
    if ragged:
        raise BadSubmission(f"{path}: {first_few(ragged, 'row')} without exactly {len(header)} columns; correct them")
    ids = [row[0] for row in rows]
    empty = ids.count("")
    if empty:
        raise BadSubmission(f"{path}: {counted(empty, 'row')} with an empty {ID}; give each row its image's id")
    require_unique(path, ids)
    return [dict(zip(header, row, strict=True)) for row in rows]


def parse_categories(path: Path, rows: Sequence[dict[str, str]], classes: int | None) -> dict[str, int]:
    """Id to category. `classes` None accepts every integer from 0; raises BadSubmission as `read` does."""
    digits = re.compile(r"[0-9]{1,9}")
    bad = [
        f"{row[ID]}: {row[CATEGORY][:20]!r}"
        for row in rows
        if not digits.fullmatch(row[CATEGORY]) or (classes is not None and int(row[CATEGORY]) >= classes)
    ]
    if bad:
        valid = "integers from 0" if classes is None else f"integers 0 to {classes - 1}"
        raise BadSubmission(f"{path}: {first_few(bad, 'bad category', 'bad categories')}; categories are {valid}")
    return {row[ID]: int(row[CATEGORY]) for row in rows}


def write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file whole or not at all. Raises CannotWrite."""
    with writing(path) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(header)
        table.writerows(rows)


def whole(category: object) -> int | None:
    """The whole number that `category` is, None where it is none."""
    try:
        return operator.index(category)  # pyright: ignore[reportArgumentType]
    except TypeError:
        return None


def require_one_each(path: Path, ids: Sequence[str], predictions: int) -> None:
    """Raises BadSubmission unless each id has one prediction."""
    if len(ids) != predictions:
        raise BadSubmission(f"{path}: {len(ids)} ids but {predictions} predictions; give exactly one an image")
    require_unique(path, ids)


def require_unique(path: Path, ids: Sequence[str]) -> None:
    """Raises BadSubmission for an id that is there twice."""
    double = [image_id for image_id, count in Counter(ids).items() if count > 1]
    if double:
        raise BadSubmission(f"{path}: {first_few(double, 'double id')}; leave one row an image")


def counted(count: int, one: str, many: str | None = None) -> str:
    """A count with its noun, in the plural where that is right."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def first_few(items: Sequence[str], one: str, many: str | None = None) -> str:
    """The count and the first items: `7 missing ids (0003, 0010, 0011, 0012, 0014, ...)`."""
    named = ", ".join(" ".join(item[:40].split()) for item in items[:NAMED_AT_MOST])
    more = ", ..." if len(items) > NAMED_AT_MOST else ""
    return f"{counted(len(items), one, many)} ({named}{more})"
