"""What a report consists of: sections of blocks, which the HTML and the Markdown template both know how to show."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    text: str
    kind: ClassVar[str] = "paragraph"


@dataclass(frozen=True)
class Missing:
    """What the run does not hold, and the command that would make it."""

    text: str
    kind: ClassVar[str] = "missing"


@dataclass(frozen=True)
class Code:
    """Text in which every space counts; `language` is python or text."""

    text: str
    language: str = "python"
    kind: ClassVar[str] = "code"


@dataclass(frozen=True)
class Headline:
    """What the page is about, in a few numbers side by side, the first one the largest: (number, what it is, note)."""

    figures: Sequence[tuple[str, str, str]]
    kind: ClassVar[str] = "headline"


@dataclass(frozen=True)
class Points:
    """Short texts below one another, folded under their heading."""

    heading: str
    texts: Sequence[str]
    kind: ClassVar[str] = "points"


NONE = "-"
"""A cell of which nothing is known."""

LONG = 16
"""Rows from which a table is folded: its caption is there, and opens it."""


@dataclass(frozen=True)
class Table:
    """Rows of text below their columns' names; the first column is text, the others are numbers.

    A column of which nothing is known in any row is not shown.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    kind: ClassVar[str] = "table"

    def __post_init__(self) -> None:
        known = [place for place in range(len(self.columns)) if {row[place] for row in self.rows} - {NONE}]
        object.__setattr__(self, "columns", [self.columns[place] for place in known])
        object.__setattr__(self, "rows", [[row[place] for place in known] for row in self.rows])

    @property
    def folded(self) -> bool:
        """Whether it is so long that only who asks for it sees it on a screen."""
        return len(self.rows) > LONG


@dataclass(frozen=True)
class Matrix:
    """Counts [K, K]: a row for each true class, a column for each predicted one."""

    caption: str
    classes: Sequence[str]
    counts: Sequence[Sequence[int]]
    kind: ClassVar[str] = "matrix"


@dataclass(frozen=True)
class Plot:
    """A drawing as SVG, with a name for its file and words for those who do not see it."""

    name: str
    caption: str
    alt: str
    svg: str
    kind: ClassVar[str] = "plot"


@dataclass(frozen=True)
class Picture:
    """A photograph as a data URI, or None where it is not at hand, and what is said about it."""

    uri: str | None
    caption: str
    alt: str


@dataclass(frozen=True)
class Pictures:
    """Photographs side by side."""

    pictures: Sequence[Picture]
    kind: ClassVar[str] = "pictures"


Block = Paragraph | Headline | Points | Missing | Code | Table | Matrix | Plot | Pictures


@dataclass(frozen=True)
class Section:
    """A question and its answer."""

    name: str
    title: str
    blocks: Sequence[Block]
