"""A finished run, opened: what validation chose in it."""

from bantam.runs.chosen import chosen_tta  # noqa: F401
