"""What somebody asks of a fit: how long it may take, what the student may weigh, and whose teacher."""

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bantam.errors import BantamError, cut

if TYPE_CHECKING:
    from bantam.nets.limits import Limits

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
MOST = 7 * UNITS["d"]

_TIME = re.compile(r"(?:[0-9]{1,9}(?:\.[0-9]{1,6})?[smhd])+")
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhd])")


def seconds_of(text: str) -> float:
    """The seconds of a time as people write it: 90s, 30m, 1h, 1.5h, 1h30m, 2d; 30 alone has no unit.

    Raises BantamError for anything else, for none at all, and for more than a week.
    """
    written = text.strip().lower()
    if not _TIME.fullmatch(written):
        raise BantamError(f'--time must be a time such as 90s, 30m, 1h or 1h30m, not "{cut(text)}"')
    seconds = sum(float(number) * UNITS[unit] for number, unit in _PART.findall(written))
    if not 0 < seconds <= MOST:
        raise BantamError(f'--time must be above 0 and at most 7d, not "{cut(text)}"')
    return seconds


def time_text(seconds: float) -> str:
    """Seconds as a person reads them: 45 s, 3.5 min, 1.5 h."""
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    if seconds < 5970:
        return f"{seconds / 60:.1f} min".replace(".0 ", " ")
    return f"{seconds / 3600:.1f} h".replace(".0 ", " ")


@dataclass(frozen=True)
class Asked:
    """The wishes of one fit: seconds in all, the limits of the student, and perhaps an input size and a teacher.

    `teacher` is the path of its weights as the recipe has it; `ram` and `flash` are bytes on a small device, `board`
    the name of one. Two fits with equal wishes and photographs are one.
    """

    seconds: float
    parameters: int = 60_000
    macs: int | None = None
    activation_bytes: int | None = None
    disk_bytes: int | None = None
    size: int | None = None
    teacher: str | None = None
    ram: int | None = None
    flash: int | None = None
    board: str | None = None

    @property
    def for_device(self) -> bool:
        """Whether the student is for a small device."""
        return any(wish is not None for wish in (self.ram, self.flash, self.board))

    def limits(self, size: int) -> "Limits":
        """The most that a student of `size` pixels may need. Raises BadData where a board has no room for the image."""
        from bantam.nets.device.boards import room  # wishes are checked before torch is loaded
        from bantam.nets.limits import Limits

        device = room(self.board, self.ram, self.flash, size)
        return Limits(self.parameters, self.macs, self.activation_bytes, self.disk_bytes, *device)

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return asdict(self)

    def unlike(self, kept: dict[str, Any]) -> str:
        """In what the wishes `kept` of an earlier call differ from these; empty where they are the same."""
        other = {name: value for name, value in self.to_json().items() if kept.get(name) != value}
        return ", ".join(f"{name} {kept.get(name)} and not {value}" for name, value in other.items())
