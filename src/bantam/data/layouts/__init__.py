"""How a data folder says which image belongs to which split and class: one file a layout, and the table LAYOUTS.

A new layout is one file with an instance of `Layout`, and one line in the table: CONTRIBUTING.md shows it.
"""

from bantam.data.layouts.layout import Layout
from bantam.tables import Table

LAYOUTS: Table[Layout] = Table(
    "bantam.data.layouts",
    {
        "table": "table:TABLE",
        "classes": "classes:CLASSES",
        "bare": "bare:BARE",
        "flat": "flat:FLAT",
    },
)
"""In the order in which they are asked; the last is taken where none recognises the folder."""

__all__ = ["LAYOUTS", "Layout"]
