"""Imports point one way: this walks them all."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "bantam"

# What each room may import of bantam, besides itself.
BASE = {"errors", "files", "runfolder", "checkpoint"}
# What works on finished runs: all that made them.
FINISHED = BASE | {
    "recipe", "recipe_stages", "data", "nets", "objectives", "measure", "train", "compress", "deliver", "stages",
    "pipeline",
}  # fmt: skip
ALLOWED = {
    "errors": set(),
    "files": {"errors"},
    "runfolder": {"errors", "files", "recipe"},
    "checkpoint": {"errors", "files", "runfolder"},
    "toml": {"errors"},
    "recipe_stages": set(),
    "recipe": {"errors", "toml", "recipe_stages"},
    "data": BASE,
    "nets": BASE,
    "objectives": BASE | {"nets"},
    "measure": BASE | {"data", "nets"},
    "train": BASE | {"recipe", "recipe_stages", "data", "nets", "objectives", "measure"},
    "compress": BASE | {"data", "nets", "measure", "train"},
    "deliver": BASE | {"recipe", "recipe_stages", "data", "nets", "objectives", "measure", "compress"},
    "stages": BASE | {"recipe", "recipe_stages", "data", "nets", "objectives", "train", "compress"},
    "selection": BASE | {"data", "nets", "measure", "train", "deliver"},
    "reuse": BASE | {"recipe", "recipe_stages", "data", "nets", "train", "deliver"},
    "pipeline": BASE
    | {
        "recipe",
        "recipe_stages",
        "data",
        "nets",
        "objectives",
        "measure",
        "train",
        "deliver",
        "stages",
        "selection",
        "reuse",
    },
    "audits": BASE | {"recipe", "recipe_stages", "data", "nets", "measure", "train", "stages", "pipeline"},
    "screen": BASE | {"recipe", "recipe_stages", "measure", "train"},
    "search": BASE | {"recipe", "recipe_stages", "data", "nets", "objectives", "measure", "train", "pipeline"},
    "pruning": FINISHED | {"reuse"},
    "options": {"errors", "recipe_stages"},
    "cli_prune": BASE | {"options", "recipe_stages", "compress", "pruning", "screen"},
    "cli_cost": BASE | {"options", "nets", "measure", "deliver", "screen"},
    "quantization": FINISHED,
    "cascade": BASE | {"data", "nets", "measure", "train", "deliver", "pipeline"},
    "exits": BASE | {"data", "nets", "measure", "train", "deliver", "pipeline"},
    "views": BASE | {"exits", "measure", "train", "deliver", "pipeline"},
    "slim": BASE | {"cascade", "nets", "measure", "train", "deliver", "pipeline"},
    "cli_export": BASE | {"options", "recipe_stages", "deliver", "pipeline", "quantization", "screen"},
    "cli_dynamic": {"options", "cascade", "exits", "slim", "views", "screen"},
    "cli_package": BASE | {"options", "deliver", "screen", "train"},
    "cli_leaderboard": BASE | {"options", "deliver"},
    "cli_serve": BASE | {"options", "recipe", "recipe_stages", "data", "nets", "deliver", "pipeline", "screen"},
    "cli_predict": BASE | {"options", "data", "nets", "deliver", "pipeline"},
    "cli": BASE
    | {
        "options",
        "cli_cost",
        "cli_dynamic",
        "cli_export",
        "cli_prune",
        "cli_package",
        "cli_leaderboard",
        "cli_predict",
        "cli_serve",
        "recipe",
        "recipe_stages",
        "data",
        "nets",
        "measure",
        "train",
        "deliver",
        "pipeline",
        "search",
    }
    | {"screen", "audits"},
    "__main__": {"cli"},
    # For type checkers only: at run time the names are imported when they are first used.
    "__init__": {"errors", "recipe", "nets", "objectives", "deliver", "stages", "pipeline"},
}


def imported(path: Path) -> set[str]:
    """The rooms of bantam that a file imports, wherever in the file."""
    rooms: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            rooms |= {name.name.split(".")[1] for name in node.names if name.name.startswith("bantam.")}
        elif isinstance(node, ast.ImportFrom) and node.module == "bantam":
            rooms |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bantam."):
            rooms.add((node.module or "").split(".")[1])
    return rooms


FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(SOURCE)) for path in FILES])
def test_imports_point_one_way(path: Path) -> None:
    room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    assert imported(path) - {room} <= ALLOWED[room]


def test_files_stay_readable() -> None:
    lines = {str(path.relative_to(SOURCE)): len(path.read_text().splitlines()) for path in FILES}
    assert {name: count for name, count in lines.items() if count > 420} == {}
    assert lines["pipeline.py"] <= 250
