"""The pieces of the tables that are made from results/."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NOTHING = "*Not measured yet.*"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    if not rows:
        return NOTHING
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, rule, *rows))


def read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def with_error(value: float, standard_error: float, digits: int = 3) -> str:
    return f"{value:.{digits}f} ± {standard_error:.{digits}f}"


def machine(environment: dict[str, Any]) -> str:
    """The hardware in a few words."""
    if environment.get("gpu"):
        return environment["gpu"]
    processor = re.sub(r"\s+", " ", environment["processor"].replace("()", "")).strip()
    return f"{environment['cores']} cores, {processor}"


def made_by(environment: dict[str, Any]) -> str:
    """The line below a benchmark's table."""
    commit = (environment.get("commit") or "no commit")[:8]
    command = " ".join(environment["command"])
    return f"`{command}` on {machine(environment)}; torch {environment['versions']['torch']}, commit {commit}."
