"""The house: its floors, and that no import runs up. This walks them all."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "bantam"

# From the ground up. A room imports from the floors below its own, and never from a neighbour on its floor.
FLOORS = (
    ("errors",),
    ("files", "tables"),
    ("archives",),
    ("recipes", "data", "nets"),
    ("objectives", "measure"),
    ("runs",),
    ("train",),
    ("compress",),
    ("deliver",),
    ("pipeline",),
    ("studies", "search", "fit"),
    ("cli",),
    # For type checkers only: at run time the public names are imported when they are first used.
    ("__init__", "__main__"),
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

# What would be downhill, and is wrong all the same: what delivers reads what a training wrote, and runs none.
NEVER = {"deliver": {"train"}, "nets": {"recipes"}, "data": {"recipes"}, "measure": {"recipes"}}


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
def test_no_import_runs_up(path: Path) -> None:
    room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    others = imported(path) - {room}
    assert {other for other in others if FLOOR_OF[other] >= FLOOR_OF[room]} == set()
    assert others & NEVER.get(room, set()) == set()


def test_the_top_floor_shows_what_bantam_is() -> None:
    files = [path.name for path in SOURCE.iterdir() if path.is_file()]
    assert len(files) <= 8
    rooms = {path.name for path in SOURCE.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert rooms | {name.removesuffix(".py") for name in files} == set(FLOOR_OF)


# The command over an idea has the idea's name; a kind of stage is a file of keys and the file that runs it.
OVER = {"studies", "cli"}


def test_one_name_is_one_thing() -> None:
    named: dict[str, list[Path]] = {}
    for path in FILES:
        if path.name != "__init__.py":
            named.setdefault(path.stem, []).append(path.relative_to(SOURCE))
    doublets = {name: paths for name, paths in named.items() if len({path.parent for path in paths}) > 1}
    for name, paths in doublets.items():
        below = [path for path in paths if path.parts[0] not in OVER]
        kinds = {path.parts[:-1] for path in below} == {("recipes", "kinds"), ("pipeline", "kinds")}
        same_room = len({path.parts[0] for path in below}) <= 1
        assert len(below) <= 1 or kinds or same_room, f"{name} means several things: {', '.join(map(str, paths))}"
