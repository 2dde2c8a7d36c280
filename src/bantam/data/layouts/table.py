"""The layout with a table: a .csv or .tsv file lists the images and the class of each.

The columns may have any names. The files' column is the one whose values name images, a column of split names says
which image belongs where, and of the others the one that can be labels is that of the classes.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bantam.data.layouts.flat import FLAT, labelled_by_name
from bantam.data.layouts.folders import UNLABELLED, images_below, split_named
from bantam.data.layouts.layout import EXTENSIONS, TABLES, Found, Layout, Notes, entries, in_order, is_hidden
from bantam.data.layouts.named import NamedImages
from bantam.data.layouts.rows import Rows, read_rows

PREFERRED = ("labels", "label", "train", "training")
"""Names of the table of labels where there are several tables, the best first."""

Labels = dict[Path, tuple[str | None, str]]
"""Images with the split that a table says, if it says any, and their key."""

_LABEL_HEADER = re.compile("label|class|categor|target", re.IGNORECASE)
_SPLIT_HEADER = re.compile("split|set|subset|partition", re.IGNORECASE)
_WHOLE = re.compile(r"([0-9]{1,9})(\.0+)?")
_FRACTION = re.compile(r"[+-]?[0-9]*\.[0-9]*(e[+-]?[0-9]+)?", re.IGNORECASE)


class Table(Layout):
    """A table and, anywhere beside or below it, its images. The root may be the table itself."""

    def recognises(self, root: Path) -> bool:
        """By a table that is given, or lies beside images that nothing else gives a class."""
        if root.is_file():
            return True
        table = table_in(root)
        if table is None:
            return False
        images, folders, _ = entries(root)
        training = [path for path in folders if split_named(path.name) == "training"]
        if labelled_by_name(images) or any(_tells(path) for path in training):
            return table.stem.casefold() == "labels" and not training
        # Several folders are classes, unless the table is named for what it is.
        holding = [path for path in folders if split_named(path.name) is None and entries(path)[0]]
        if images or training or len(holding) == 1:
            return True
        return bool(folders) and table.stem.casefold() in (PREFERRED[:1] if holding else PREFERRED)

    def find(self, root: Path, notes: Notes) -> Found:
        """The images that the table lists; those in a folder for evaluation or without labels need not be listed."""
        table = root if root.is_file() else table_in(root)
        assert table is not None, "recognised"
        below = list(images_below(table.parent))
        beside = {} if root.is_file() else _beside(table)
        rows = read_rows(table, notes)
        if rows and "validation" in beside:
            rows = _with_validation(rows, beside["validation"], notes)
        listed, blank = _Listed(table, below, notes).of(rows) if rows else ({}, [])
        without, asked = set(blank), _named_in(beside.get("evaluation"), below)
        found: dict[str, list[tuple[Path, str]]] = defaultdict(list)
        unlisted: list[Path] = []
        for path in below:
            above = path.relative_to(table.parent).parts[:-1]
            folder = next(filter(None, map(split_named, above)), None)
            if path in listed:
                split, key = listed[path]
                found[split or folder or "training"].append((path, key))
            elif folder in ("evaluation", UNLABELLED):
                found[folder].append((path, ""))
            elif path in asked:
                found["evaluation"].append((path, ""))
            elif path not in without:
                unlisted.append(path)
        if blank:
            what = "left out" if found["evaluation"] else "answered, not learned from"
            found["evaluation"] = found["evaluation"] or [(path, "") for path in blank]
            notes.remarks.append(
                f"{len(blank):,} photographs {what}, {table.name} has no label for them (such as {blank[0].name})"
            )
        if unlisted and listed:
            notes.remarks.append(
                f"{len(unlisted):,} photographs left out, they are not listed in {table.name} "
                f"(such as {unlisted[0].relative_to(table.parent)})"
            )
        if listed and not found["training"]:
            notes.problems.append(f"{table} lists no training image; add some")
        evaluation, unlabelled = ([path for path, _ in found[split]] for split in ("evaluation", UNLABELLED))
        return Found(found["training"], found["validation"], evaluation, unlabelled, bool(found["validation"]))

    def keys(self, root: Path, found: Found, notes: Notes) -> tuple[str, ...]:
        """The labels of the training images."""
        return in_order(key for _, key in found.training)

    def names(self, root: Path, keys: tuple[str, ...], notes: Notes) -> tuple[str, ...]:
        """The labels; the names in classes.txt where they are the numbers from 0."""
        numbered = keys == tuple(map(str, range(len(keys))))
        return FLAT.names(root.parent if root.is_file() else root, keys, notes) if numbered else keys


def table_in(directory: Path) -> Path | None:
    """The table in a folder: the only one, or of several the one that is named like one of labels."""
    tables = [path for path in entries(directory)[2] if path.suffix.lower() in TABLES and not is_hidden(path.name)]
    if len(tables) == 1:
        return tables[0]
    named = [path for name in PREFERRED for path in tables if path.stem.casefold() == name]
    return named[0] if named else None


def _beside(table: Path) -> dict[str, Path]:
    """The tables of the other splits that lie beside one of training images, each called like its split."""
    if split_named(table.stem) != "training":
        return {}
    others = [path for path in entries(table.parent)[2] if path.suffix.lower() in TABLES and path != table]
    return {split: path for path in others if (split := split_named(path.stem))}


def _with_validation(rows: Rows, table: Path, notes: Notes) -> Rows | None:
    """`rows` and below them those of the table of validation images, with a column that says which are which."""
    more = read_rows(table, notes)
    if more is None or more.headers != rows.headers:
        if more:
            notes.problems.append(
                f"{table} has other headers than the table of the training images; write the same, or take it away"
            )
        return None
    columns = [[*upper, *lower] for upper, lower in zip(rows.columns, more.columns, strict=True)]
    splits = ["training"] * len(rows.columns[0]) + ["validation"] * len(more.columns[0])
    return Rows([*rows.headers, "split"], [*columns, splits])


def _named_in(table: Path | None, images: list[Path]) -> set[Path]:
    """The images that a table names; their labels, if it has any, are not read."""
    rows = read_rows(table, Notes()) if table else None
    if table is None or rows is None:
        return set()
    _, matched, most = _matched(rows, images, table.parent)
    return {path for path in matched[most] if path is not None}


def _tells(training: Path) -> bool:
    """Whether a folder of training images says their classes itself, as the other layouts read them."""
    images, folders, _ = entries(training)
    return bool(folders) or any(labelled_by_name([path]) for path in images)


def contradictions(root: Path, labelled: Sequence[tuple[Path, str]]) -> Iterator[str]:
    """What stands against taking folders in `root` for the classes of images: a table beside them that says otherwise.

    One whose column has a value for each folder says the same, and one of other things than images says nothing.
    """
    folder_of = dict(labelled)
    for table in [path for path in entries(root)[2] if path.suffix.lower() in TABLES and not is_hidden(path.name)]:
        if (rows := read_rows(table, Notes())) is None:
            continue
        rows, matched, most = _matched(rows, list(folder_of), root)
        there = [n for n, path in enumerate(matched[most]) if path is not None]
        if 2 * len(there) < len(matched[most]) or not there:
            continue
        folders = [folder_of[path] for path in matched[most] if path is not None]
        told = {
            n: [column[row] for row in there]
            for n, column in enumerate(rows.columns)
            if n != most and not _are_files(matched[n]) and not _are_splits(column)
        }
        able = [rows.headers[n] or f"column {n + 1}" for n, column in told.items() if _can_be_labels(column)]
        if able and not any(_same_classes([column, folders]) for column in told.values()):
            yield (
                f"{table} says of the photographs otherwise than their folders what they are ({', '.join(able[:3])}); "
                "call it labels.csv if it has the classes, or move it away if the folders are the classes"
            )


# --- which column is what


def _matched(rows: Rows, images: list[Path], root: Path) -> tuple[Rows, list[list[Path | None]], int]:
    """The rows, the first among them where it is no line of headers; the images that each column names; the column of
    files."""
    named = NamedImages(images, root)
    if any(Path(header).suffix.lower() in EXTENSIONS and named.one(header) for header in rows.headers):
        columns = [[header, *column] for header, column in zip(rows.headers, rows.columns, strict=True)]
        rows = Rows([""] * len(columns), columns)
    matched = [named.column(column) for column in rows.columns]
    # Different ones: labels 0 to 9 name the images 0.jpg to 9.jpg again and again.
    return rows, matched, max(range(len(matched)), key=lambda n: len(set(matched[n]) - {None}))


@dataclass(frozen=True)
class _Listed:
    """Reads what a table lists: each image with its split, perhaps None, and its key."""

    table: Path
    images: list[Path]
    notes: Notes

    def of(self, rows: Rows) -> "tuple[Labels, list[Path]]":
        """The images that the rows name, and those without a label there.

        What is wrong with the table is noted, and then there may be none.
        """
        rows, matched, most = _matched(rows, self.images, self.table.parent)
        files = matched[most]
        there = [n for n, path in enumerate(files) if path is not None]
        if 2 * len(there) < len(files) or not there:
            self._refuse(
                f"of its {len(files):,} rows {len(there):,} name a photograph in {self.table.parent}, row 1 is "
                f"{', '.join(column[0] for column in rows.columns)[:80]!r}; "
                "correct the names of the files, or put the table beside them"
            )
            return {}, []
        others = [n for n in range(len(rows.columns)) if n != most and not _are_files(matched[n])]
        splits = next((n for n in others if _are_splits(rows.columns[n])), None)
        other = next((n for n in others if _SPLIT_HEADER.fullmatch(rows.headers[n]) and n != splits), None)
        if splits is None and other is not None:
            wrong = next((value for value in rows.columns[other] if split_named(value) is None), None)
            said = "names no training image" if wrong is None else f"says {wrong[:80]!r}"
            self._refuse(f"its column {rows.headers[other]} {said}; write training, validation or evaluation there")
            return {}, []
        label = self._label(rows, [n for n in others if n != splits], there)
        if label is None:
            return {}, []
        if len(there) < len(files):
            missing = next(n for n, path in enumerate(files) if path is None)
            self.notes.remarks.append(
                f"{len(files) - len(there):,} rows of {self.table.name} left out, there is no such photograph "
                f"(such as {rows.columns[most][missing][:80]})"
            )
        return self._joined(files, rows.columns[label], rows.columns[splits] if splits is not None else None)

    def _label(self, rows: Rows, others: list[int], there: list[int]) -> int | None:
        """The number of the column of labels among `others`."""
        if not others:
            self._refuse("it has a column of files and none of labels; add one")
            return None
        able = [n for n in others if _can_be_labels([rows.columns[n][row] for row in there])]
        named = [n for n in able if _LABEL_HEADER.search(rows.headers[n])]
        if len(others) == 1:
            able = others
        elif len(able) > 1 and not _same_classes([rows.columns[n] for n in able]):
            if len(named) == 1:
                able = named
                self.notes.remarks.append(
                    f"the classes are those of the column {rows.headers[able[0]]} of {self.table.name}"
                )
        elif able:
            # One column names what another numbers.
            able = [min(able, key=lambda n: all(_WHOLE.fullmatch(value) for value in rows.columns[n] if value))]
        if len(able) == 1:
            return able[0]
        shown = ", ".join(rows.headers[n] or f"column {n + 1}" for n in able or others)
        self._refuse(
            f"its columns {shown} all look like labels; take out all but one, or name the right one label"
            if able
            else f"none of its columns {shown} looks like labels; keep a column of files and one of labels"
        )
        return None

    def _joined(
        self, files: list[Path | None], labels: list[str], splits: list[str] | None
    ) -> "tuple[Labels, list[Path]]":
        listed: Labels = {}
        other: list[str] = []
        blank: list[Path] = []
        again = 0
        for number, path in enumerate(files):
            if path is None:
                continue
            split = split_named(splits[number]) if splits else None
            key = _key(labels[number])
            if not key and split != "evaluation":
                blank.append(path)
            elif path not in listed:
                listed[path] = (split, key)
            elif listed[path] != (split, key):
                other.append(f"{path.name} as {_said(*listed[path])} and as {_said(split, key)}")
            else:
                again += 1
        if other:
            more = f" (and {len(other) - 1} more)" if len(other) > 1 else ""
            self._refuse(f"it lists {other[0]}{more}; keep the right row")
        if again:
            self.notes.remarks.append(f"{again:,} rows of {self.table.name} say what another says already")
        return listed, [path for path in dict.fromkeys(blank) if path not in listed]

    def _refuse(self, why: str) -> None:
        self.notes.problems.append(f"{self.table} cannot be used: {why}")


def _said(split: str | None, key: str) -> str:
    return f"{key} in {split}" if split else key


def _key(value: str) -> str:
    """A label as its class is called; programs that count write 3 as 3.0."""
    if value.casefold() == "nan":  # as programs write that there is none
        return ""
    whole = _WHOLE.fullmatch(value)
    return str(int(whole[1])) if whole else value


def _are_files(paths: list[Path | None]) -> bool:
    return 2 * len(set(paths) - {None}) > len(paths)


def _are_splits(column: list[str]) -> bool:
    """Whether every value of a column is the name of a split, and one of them that of training."""
    splits = {split_named(value) for value in set(column)}
    return None not in splits and "training" in splits


def _can_be_labels(values: list[str]) -> bool:
    """Whether values repeat as labels do: two or more of them, each for two images or more on average, no fractions."""
    different = set(filter(None, values))
    fractions = any(_FRACTION.fullmatch(value) and not _WHOLE.fullmatch(value) for value in different)
    return 2 <= len(different) <= len(values) / 2 and not fractions


def _same_classes(columns: list[list[str]]) -> bool:
    """Whether each value of a column always stands beside the same value of the others."""
    together = set(zip(*columns, strict=True))
    return all(len(together) == len(set(column)) for column in columns)


TABLE = Table()
