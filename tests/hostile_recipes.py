"""Recipes and settings that nobody can mean, by name: each must be refused in one line before anything is made.

`FILES` are recipes as bytes and `SETTINGS` words of `--set` on the recipe GOOD; `places` makes paths that are no file.
`tried` asks about all of them, `by_command` at the command line, and says of each why it did not hold. Alone, the file
prints how many did:

    python tests/hostile_recipes.py
"""

import contextlib
import dataclasses
import datetime
import io
import os
import re
import sys
import tempfile
import time
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tomli_w

from bantam.cli import main as cli
from bantam.errors import BantamError
from bantam.pipeline import run as pipeline
from bantam.recipes.keys import Range
from bantam.recipes.kinds.exiting import Exiting
from bantam.recipes.kinds.given_teacher import GivenTeacher
from bantam.recipes.kinds.pruning import Pruning
from bantam.recipes.kinds.training import Augment, Optimizer, Training
from bantam.recipes.recipe import Data, Recipe, load

SUPERVISED = {"supervised": {"weight": 1.0}}
GOOD: dict[str, Any] = {
    "name": "good",
    "data": {},
    "stage": [
        {"name": "given", "kind": "given_teacher", "checkpoint": "a.ckpt", "size": 64},
        {
            "name": "student", "kind": "student", "net": "mobilenet_v1", "size": 64, "epochs": 3, "teacher": "given",
            "shape": {}, "augment": {}, "optimizer": {}, "objectives": {**SUPERVISED, "kd": {"weight": 0.5}},
        },
        {
            "name": "small", "kind": "prune", "of": "student", "to_params": 3000, "size": 64, "epochs": 1,
            "objectives": SUPERVISED,
        },
        {
            "name": "early", "kind": "exits", "of": "small", "after": [1, 2], "size": 64, "epochs": 1,
            "objectives": {**SUPERVISED, "self_distillation": {"weight": 1.0}},
        },
    ],
}  # fmt: skip

TABLES: dict[str, tuple[type, tuple[str | int, ...]]] = {
    "recipe": (Recipe, ()),
    "data": (Data, ("data",)),
    "teacher": (GivenTeacher, ("stage", 0)),
    "student": (Training, ("stage", 1)),
    "augment": (Augment, ("stage", 1, "augment")),
    "optimizer": (Optimizer, ("stage", 1, "optimizer")),
    "prune": (Pruning, ("stage", 2)),
    "exits": (Exiting, ("stage", 3)),
}

DATES = (datetime.date(2026, 1, 1), datetime.datetime(2026, 1, 1, 3), datetime.time(3))
NO_NUMBERS = (float("nan"), float("inf"), float("-inf"), 10**63, 1e300, "3", True, {"a": 1}, DATES[0])


def changed(place: tuple[str | int, ...], value: Any) -> bytes:
    """GOOD with `value` at `place`, as TOML."""

    def copied(item: Any) -> Any:
        if isinstance(item, dict):
            return {name: copied(one) for name, one in item.items()}
        return [copied(one) for one in item] if isinstance(item, list) else item

    recipe = copied(GOOD)
    table = recipe
    for part in place[:-1]:
        table = table[part]
    table[place[-1]] = value
    return tomli_w.dumps(recipe).encode()


def wrong_values(wanted: Any, valid: Range | None) -> list[Any]:
    """Values that a key of the type `wanted`, in the range `valid`, cannot have."""
    origin = typing.get_origin(wanted)
    if origin is tuple:
        (kind, *_) = typing.get_args(wanted)
        each = [value for value in wrong_values(kind, valid) if not isinstance(value, list)]
        return [3, "3", [[1]], [1] * 51, *([value, value] for value in each)]
    if origin is dict:
        return [3, [1], {"kd": 3}, {"kd": [{"weight": 1}]}, {"": {}}, {"\x1b[31m": {}}]
    if wanted in (int, float):
        assert valid is not None, "a number without a range"
        beyond = [valid.least - 1, valid.most * 2 + 1]
        return [*NO_NUMBERS, [1], *map(wanted, beyond)]
    if wanted is bool:
        return [0, 1, "true", 1.0, []]
    if wanted is str or origin is typing.Literal:
        return [3, True, ["x"], {}, *DATES, "x\ny", "x\x1b[31my", "x\x07", "x\u202ey", "x" * 401]
    return [3, "3", [], DATES[0]]  # a table


def of_every_key() -> Iterator[tuple[str, bytes]]:
    for table, (kind, place) in TABLES.items():
        types = typing.get_type_hints(kind)
        for item in dataclasses.fields(kind):
            if item.name != "stage":
                for number, value in enumerate(wrong_values(types[item.name], item.metadata["range"])):
                    yield f"{table}.{item.name} {number} {str(value)[:40]!r}", changed((*place, item.name), value)


def of_objectives() -> Iterator[tuple[str, bytes]]:
    place = ("stage", 1, "objectives", "kd")
    for key, values in {
        "weight": [*NO_NUMBERS, -1, 1e7, [], [1.0], [1.0, -1.0], [1.0, float("nan")], [1, 2, 3], [[1, 2]], ["1", "2"]],
        "temperature": [*NO_NUMBERS, 0, -1, 1e-300, 1e7, [1.0], [float("nan")]],
        "standardize": [0, "true", {}, DATES[0]],
        "temprature": [4.0],
        "a\nb": [1],
        "": [1],
    }.items():
        for number, value in enumerate(values):
            yield f"kd.{key!r} {number} {str(value)[:40]!r}", changed((*place, key), value)
    for objective in ("kdd", "", "a.b", "\x1b[2J", "x" * 600):
        yield f"objective {objective[:10]!r}", changed((*place[:-1], objective), {"weight": 1.0})
    yield "attention.stages", changed((*place[:-1], "attention"), {"weight": 1.0, "stages": 10**9})
    yield "shape with a number that is none", changed(("stage", 1, "shape"), {"kernel": float("nan")})
    yield "shape with an unknown choice", changed(("stage", 1, "shape"), {"kernel": 9})


def of_augmentation() -> Iterator[tuple[str, bytes]]:
    for number, table in enumerate(
        (
            {"scale": [0.8, 0.2]}, {"scale": [0.0, 1.0]}, {"scale": [0.5]}, {"scale": [0.1, 0.5, 0.9]}, {"scale": 0.5},
            {"ratio": [2.0, 0.5]}, {"ratio": [0.0, 1.0]}, {"ratio": [-1.0, 1.0]},
            {"mixup": 0.6, "cutmix": 0.5}, {"mixup": 1.0, "cutmix": 5e-9}, {"mix_alpha": 0.0}, {"sclae": [0.5, 1.0]},
        )
    ):  # fmt: skip
        yield f"augment {number} {table}", changed(("stage", 1, "augment"), table)


def of_stages() -> Iterator[tuple[str, bytes]]:
    for name in ("con", "nul", "lpt1", "data", "seed", "..", "a/b", "A", "", " ", "x" * 65, "ä", "a\n", "-" * 99, "."):
        yield f"stage named {name[:10]!r}", changed(("stage", 1, "name"), name)
    student = GOOD["stage"][1]
    for number, stages in enumerate(
        (
            [], [3], ["student"], [[student]], {"student": student}, [student] * 2, [{}], [{"kind": 3}],
            [{"kind": ["student"]}], [{"kind": float("nan")}], [student | {"teacher": "+"}],
            [student | {"teacher": "student"}], [student | {"teacher": "+".join(["given"] * 400)}],
            [student | {"teacher": "", "peers": 10**6}], [student | {"widths": [k / 20 for k in range(1, 21)]}],
            [student | {"name": f"s{k}", "teacher": ""} for k in range(10_000)], [GOOD["stage"][0]],
        )
    ):  # fmt: skip
        yield f"stages {number}", changed(("stage",), stages)


PLAIN = tomli_w.dumps(GOOD).encode()
FILES: dict[str, bytes] = {
    **dict(of_every_key()),
    **dict(of_objectives()),
    **dict(of_augmentation()),
    **dict(of_stages()),
    "empty": b"",
    "no UTF-8": b"\xff\xfe" + PLAIN,
    "UTF-16": PLAIN.decode().encode("utf-16"),
    "a zero byte": PLAIN.replace(b"good", b"go\0od"),
    "a zero byte between": PLAIN + b"\0",
    "an escape": PLAIN.replace(b"good", b"go\x1b[31mod"),
    "an escaped escape as a key": b'"\\u001b[2J" = 1\n' + PLAIN,
    "a key over two lines": b'"a\\nbantam: all is well" = 1\n' + PLAIN,
    "a lone carriage return": b"# seen\rname = 3\n" + PLAIN,
    "an integer of 5,000 digits": b"seed = " + b"9" * 5000 + b"\n" + PLAIN,
    "an integer of 1,900 digits": b"seed = " + b"9" * 1900 + b"\n" + PLAIN,
    "a float of 1,900 digits": b"seed = 0." + b"9" * 1900 + b"\n" + PLAIN,
    "a list 5,000 deep": b"seed = " + b"[" * 5000 + b"]" * 5000 + b"\n" + PLAIN,
    "a list 5,000 deep over lines": b"seed = " + b"[\n" * 5000 + b"]\n" * 5000 + PLAIN,
    "tables 900 deep": b"seed = " + b"{a=" * 400 + b"1" + b"}" * 400 + b"\n" + PLAIN,
    "a dotted key 900 deep": b"a" + b".a" * 900 + b" = 1\n" + PLAIN,
    "dotted keys 480 deep, many times": b"".join(b"k%d" % k + b".a" * 480 + b" = 1\n" for k in range(95)) + PLAIN,
    "a dotted key 40 deep": b"a" + b".a" * 40 + b" = 1\n" + PLAIN,
    "a header 480 deep": PLAIN + b"[a" + b".a" * 480 + b"]\n",
    "headers 480 deep, many times": PLAIN + b"".join(b"[k%d" % k + b".a" * 480 + b"]\n" for k in range(95)),
    "a file of 10 MB": PLAIN + b"# more\n" * 1_500_000,
    "a line of 100 kB": PLAIN + b"#" * 100_000,
    "keys by the thousand": b"".join(b"k%d = 1\n" % k for k in range(9_000)) + PLAIN,
    "a key twice": PLAIN + b"\n[data]\n",
    "a table twice": b"seed = 1\nseed = 2\n" + PLAIN,
    "tables where one belongs": PLAIN.replace(b"[data]", b"[[data]]"),
    "a table where several belong": PLAIN.replace(b"[[stage]]", b"[stage]", 1),
    "no TOML": b"{'name': 'x'}",
    "JSON": b'{"name": "x"}',
    "a text without end": b'name = "good',
}

SETTINGS: dict[str, list[str]] = {
    f"{word[:30]!r}": [word]
    for word in (
        "seed=1\nbudget=5", "seed=1\r", "seed\n=1", "seed=1\x1b[31m", "seed=\0", "seed", "=1", "", "=", " = ", "seed=",
        "seed= ", "seed=nan", "seed=1e400", "seed=1.0", "seed=-1", "seed=" + "9" * 1900, "seed=" + "9" * 5000,
        "seed=" + "[" * 900, "seed=" + "[" * 900 + "]" * 900, "seed=1 # a comment", "seed=1 ]#", "seed=1,", "seed=1,2",
        "seed=1]", "seed=[1]", "seed={a=1}", 'seed="1"', "seed='1", "seed=2026-01-01", "seed.x=1", "seed=true",
        "budget=0", "budget=-1", "budget=1000000000000", "budget=" + "1" + "0" * 63, "data=3", "data.size=8.5",
        "data.size=7", "data.size=1025", "data..size=64", ".data=1", "data.=1", "data.size.x=1", 'data."size"=64',
        "data.size=64 data.unlabelled=true", "dat.size=64", "stage=3", "stage=[]", "stage.0.epochs=1", "stage[0].x=1",
        "student.epochs=0", "student.epochs=1000000000000", "student.views=1000000000", "student.batch_size=3",
        "student.batch_size=inf", "student.peers=1000000", "student.optimizer.lr=nan", "student.optimizer.lr=inf",
        "student.optimizer.lr=-1", "student.optimizer.momentum=1", "student.optimizer=3", "student.optimizer.lr.x=3",
        "student.augment.scale=0.5", "student.augment.scale.0=0.5", "student.augment.scale=[0.9, 0.1]",
        "student.objectives.kd.weight=nan", "student.objectives.kd=3",
        "student.objectives={}", "student.name=con", "student.name=a b", "student.net=\u202e", "ſeed=1",
        "stu dent.epochs=1",
        "student.shape.kernel=4", "student.shape=" + "{a=" * 300 + "1" + "}" * 300, "student" + ".a" * 900 + "=1",
    )
}  # fmt: skip
SETTINGS["both, and together too much"] = ["student.augment.mixup=0.6", "student.augment.cutmix=0.6"]
SETTINGS["the second one"] = ["seed=1", "seed=-1"]
SETTINGS["of a stage that was renamed"] = ["student.name=other", "student.epochs=1"]


def places(folder: Path) -> Iterator[tuple[str, Path]]:
    """Paths that are no recipe's file; they are made in `folder`."""
    (folder / "folder.toml").mkdir()
    yield "a folder", folder / "folder.toml"
    yield "missing", folder / "missing.toml"
    yield "a name that is too long", folder / f"{'x' * 300}.toml"
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe.toml")
        yield "a pipe", folder / "pipe.toml"
    for device in (Path("/dev/zero"), Path("/dev/tty")):
        if device.exists():
            (folder / f"{device.name}.toml").symlink_to(device)
            yield str(device), folder / f"{device.name}.toml"
    (folder / "loop.toml").symlink_to(folder / "loop.toml")
    yield "a link to itself", folder / "loop.toml"


def by_name(file: Path, settings: list[str]) -> str:
    """Load and check the recipe; gives the line that refuses it, or "" if nothing does."""
    try:
        pipeline.check(load(str(file), settings))
    except BantamError as error:
        return str(error)
    return ""


def by_command(file: Path, settings: list[str]) -> str:
    """The same at the command line, without its program's name; a folder that it makes counts as no refusal."""
    out, said, before = file.parent / "out", io.StringIO(), sys.argv
    data = file.parent / "nowhere"  # it is there, and holds nothing: the recipe's mistake comes before that
    data.mkdir(exist_ok=True)
    sys.argv = ["bantam", "run", str(file), "--data", str(data), "--out", str(out)]
    sys.argv += [f"--set={setting}" for setting in settings]
    status: Any = 0
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            cli.main()
    except SystemExit as ended:
        status = ended.code
    finally:
        sys.argv = before
    line = said.getvalue()
    plain = status == 1 and line.startswith("bantam: ") and line.endswith("\n") and "nowhere" not in line
    return line[len("bantam: ") : -1] if plain and not out.exists() else ""


Ask = Callable[[Path, list[str]], str]


def tried(folder: Path, ask: Ask, heard: Callable[[str, float], None] = lambda name, seconds: None) -> dict[str, str]:
    """Each case by its name, and why it did not hold: "" if it did. `folder` is an empty one; `heard` gets the seconds.

    A case holds if there is one plain line of bearable length, which says where the mistake is.
    """
    file, good = folder / "hostile.toml", folder / "good.toml"
    good.write_bytes(PLAIN)
    # What only the tables of families and objectives can say names the stage or the family; an escaped key no line.
    where = r"hostile\.toml:\d+: |hostile\.toml: (not UTF|longer |nested |missing key |no stage )"
    where += r"|end of document|stage \"student\": |the family |a key must be one line"
    cases = {f"file: {name}": (file, [], where) for name in FILES}
    cases |= {
        f"--set {name}": (good, words, "--set |good.toml|student|the family ") for name, words in SETTINGS.items()
    }
    cases |= {f"place: {name}": (path, [], "cannot read the recipe") for name, path in places(folder)}
    found: dict[str, str] = {}
    for name, (path, settings, wanted) in cases.items():
        if path == file:
            file.write_bytes(FILES[name.removeprefix("file: ")])
        began = time.monotonic()
        try:
            line = ask(path, settings)
        except Exception as error:
            found[name] = f"a traceback: {error!r:.200}"
        else:
            held = line and line.isprintable() and len(line) < 1500 and re.search(wanted, line)
            found[name] = "" if held else f"said {line!r:.300}"
        heard(name, time.monotonic() - began)
    return found


def main() -> None:
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        found = tried(Path(folder), by_command, seconds.__setitem__)
    for name, reason in found.items():
        if reason:
            print(f"{name}: {reason}")
    held = sum(not reason for reason in found.values())
    slowest = max(seconds, key=seconds.__getitem__)
    print(f"hostile recipes and settings: {len(found)} tried, {held} held; slowest {seconds[slowest]:.2f} s: {slowest}")
    sys.exit(held < len(found))


if __name__ == "__main__":
    main()
