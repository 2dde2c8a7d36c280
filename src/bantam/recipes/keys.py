"""What a key of a recipe is: its meaning, default and range; and the limits that several tables share."""

from dataclasses import dataclass, field, fields
from typing import Any

REQUIRED: Any = object()

PRETRAINED = {"food11": "largekernel"}
"""The models that come with Bantam, and the family of each."""


class Misfit(ValueError):
    """A value that is out of range or does not fit the others; `path` leads to its key from the table that raises."""

    def __init__(self, path: tuple[str | int, ...] | str, message: str) -> None:
        super().__init__(message)
        self.path = (path,) if isinstance(path, str) else path


@dataclass(frozen=True)
class Range:
    """The numbers from `least` to `most`, both included; neither NaN nor an infinity is among them.

    `bound` says that `most` only keeps out what no machine could hold or no training could use.
    """

    least: float
    most: float
    bound: bool = False

    def check(self, **values: float) -> None:
        """Raises Misfit for a named value outside."""
        for name, value in values.items():
            if self.least <= value <= self.most:
                continue
            wanted = f"lie in {self.least}..{self.most}"
            if self.bound:
                wanted = f"be at least {self.least}" if value < self.least else f"be at most {self.most}"
            raise Misfit(name, f"{name} = {value} must {wanted}")


def key(sense: str, default: Any = REQUIRED, range: Range | None = None) -> Any:
    """A recipe key: `sense` is the line that explains it in errors; without a default it must be given.

    A key of numbers has a `range`, which holds for each of several.
    """
    metadata = {"sense": sense, "range": range}
    if default is REQUIRED:
        return field(metadata=metadata)
    if isinstance(default, dict | type):
        return field(default_factory=dict if isinstance(default, dict) else default, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Keys:
    """The keys of one table of a recipe: every number lies in the range of its key. Raises Misfit."""

    def __post_init__(self) -> None:
        for item in fields(self):
            if item.metadata["range"] is not None:
                value = getattr(self, item.name)
                for number in value if isinstance(value, tuple) else (value,):
                    item.metadata["range"].check(**{item.name: number})


def range_of(table: type[Keys], name: str) -> Range:
    """The range of the key `name` of `table`."""
    return table.__dataclass_fields__[name].metadata["range"]


SMALLEST, LARGEST = 8, 1024
"""Sides of an image or a net's input, in pixels."""

SIDE = Range(SMALLEST, LARGEST)

SHARE = Range(0, 1)

PARAMETERS = 100_000_000
"""Most of a student, four times a ResNet-50's: the largest that is still built and weighed in seconds."""

FINITE = 1e30
"""Most of a number that has no natural end: what float32 holds, its products with small numbers too."""
