"""Tables of what there is by name: families, objectives, kinds of stages, forms, commands, layouts.

An entry says where the thing is defined, and it is imported when somebody asks for it. So adding one is a file and a
line, a list of names costs no import, and a command that needs one form does not wait for the others.
"""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any, Generic, TypeVar

Entry = TypeVar("Entry")


class Table(Mapping[str, Entry], Generic[Entry]):
    """Names, in the order given, to what `entries` say: "module:name", of a module in the package `room`."""

    def __init__(self, room: str, entries: Mapping[str, str]) -> None:
        self.room, self.entries = room, dict(entries)
        self.found: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Entry:
        if name not in self.found:
            module, _, attribute = self.entries[name].partition(":")
            self.found[name] = getattr(import_module(f"{self.room}.{module}"), attribute)
        return self.found[name]

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)
