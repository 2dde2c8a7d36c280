"""A .csv or .tsv file to its columns, whatever separates them."""

import csv
import io
import itertools
from dataclasses import dataclass
from pathlib import Path

from bantam.data.layouts.layout import Notes

SEPARATORS = ",;\t|"
MOST = 2**30
"""Bytes of the largest table that is read."""


@dataclass(frozen=True)
class Rows:
    """The headers, and the columns below them: as many values each as there are rows, without spaces around them."""

    headers: list[str]
    columns: list[list[str]]


def read_rows(path: Path, notes: Notes) -> Rows | None:
    """Read a table; what stands against it is noted, and None returned."""
    try:
        if path.stat().st_size > MOST:
            raise ValueError(f"it is larger than {MOST:,} bytes")
        text = _text(path.read_bytes())
        separator = "\t" if path.suffix.lower() == ".tsv" else _separator(text)
        # Strict: a quote that nobody closes would take the rows behind it for one value.
        read = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        rows = [[value.strip() for value in row] for row in read]
    except OSError as error:
        notes.problems.append(f"cannot read {path}: {error.strerror or error}; correct its permissions")
        return None
    except (ValueError, csv.Error) as error:
        notes.problems.append(f"{path} cannot be read as a table: {error}; save it as CSV in UTF-8")
        return None
    rows = [row for row in rows if any(row)]
    if len(rows) < 2 or len(rows[0]) < 2:
        notes.problems.append(
            f"{path} is no table of files and labels; write a line of headers, and a row for each file"
        )
        return None
    width = len(rows[0])
    ragged = next((number for number, row in enumerate(rows, start=1) if len(row) != width), None)
    if ragged is not None:
        notes.problems.append(
            f"{path} has {len(rows[ragged - 1])} columns in row {ragged} and {width} in row 1; "
            "correct it, or put quotes around values that hold the separator"
        )
        return None
    return Rows(rows[0], [list(column) for column in zip(*rows[1:], strict=True)])


def _text(data: bytes) -> str:
    """The text of a table, as spreadsheets save it: UTF-8, or UTF-16 with its mark."""
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError("it is no UTF-8 text") from error
    if "\0" in text:
        raise ValueError("it is no UTF-8 text")
    return text


def _separator(text: str) -> str:
    """The separator that cuts most of the first rows into as many columns as the headers, two or more."""

    def rows(separator: str) -> int:
        head = itertools.islice(csv.reader(io.StringIO(text, newline=""), delimiter=separator), 50)
        widths = [len(row) for row in head if row]
        return widths.count(widths[0]) if widths and widths[0] > 1 else 0

    return max(SEPARATORS, key=rows)
