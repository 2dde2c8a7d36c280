"""Ways to damage a file, and whether a command holds against them: one line that names it, or the right answer.

`tried` is the entry: every damage of every file of a folder, against every command that is given. A command is a
function of the damaged folder that gives something comparable; it holds where it raises a BantamError of one line, or
gives what it gives on the whole folder.
"""

import io
import json
import pickle
import random
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bantam.errors import BantamError

Command = Callable[[Path], Any]


@dataclass(frozen=True)
class Damage:
    """`change` makes of a file's bytes other ones; None puts a folder in the file's place."""

    name: str
    change: Callable[[bytes], bytes] | None

    def apply(self, path: Path) -> bool:
        """Damage `path`; False where that leaves it as it is."""
        data = path.read_bytes()
        if self.change is None:
            path.unlink()
            path.mkdir()
            return True
        changed = self.change(data)
        path.unlink()  # a new file, in case this one is a link
        path.write_bytes(changed)
        return changed != data


@dataclass(frozen=True)
class Case:
    """What a command did with a damaged file: `outcome` is empty where it held."""

    file: str
    damage: str
    command: str
    outcome: str


def flipped(data: bytes, bit: int) -> bytes:
    """`data` with one bit changed; the number counts round."""
    if not data:
        return b"\0"
    changed = bytearray(data)
    changed[bit // 8 % len(data)] ^= 1 << bit % 8
    return bytes(changed)


def flip(at: float, bit: int) -> Damage:
    """One bit of the byte at the share `at`, 0..1, of a file."""
    return Damage(f"bit {bit} flipped at {at:.3f}", lambda data: flipped(data, 8 * int(at * (len(data) - 1)) + bit))


ANY = [
    Damage("empty", lambda data: b""),
    Damage("garbage", lambda data: bytes(random.Random(0).randbytes(200))),
    Damage("text", lambda data: b"what is this?\n"),
    Damage("half", lambda data: data[: len(data) // 2]),
    Damage("without its last byte but one", lambda data: data[:-2]),
    Damage("zeros", lambda data: bytes(len(data))),
    Damage("zeros in the middle", lambda data: data[: len(data) // 3] + bytes(20) + data[len(data) // 3 + 20 :]),
    Damage("not UTF-8", lambda data: b"\xff\xfe" + data),
    Damage("a folder", None),
]  # fmt: skip


def edited(change: Callable[[Any], Any]) -> Callable[[bytes], bytes]:
    """Change the tables of a JSON file, or of each line of one, as one who knows of no seal."""

    def of_value(text: str) -> str:
        value = json.loads(text)
        value.pop("sha256", None)
        return json.dumps(change(value))

    def of_file(data: bytes) -> bytes:
        try:
            return of_value(data.decode()).encode()
        except ValueError:
            return "".join(f"{of_value(line)}\n" for line in data.decode().splitlines()).encode()

    return of_file


def everywhere(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`change` on every plain value within tables and lists."""

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: walk(item) for name, item in value.items()}
        return [walk(item) for item in value] if isinstance(value, list) else change(value)

    return walk


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


JSON = [
    Damage("{}", lambda data: b"{}"),
    Damage("[]", lambda data: b"[]"),
    Damage("null", lambda data: b"null"),
    Damage("other keys", lambda data: b'{"something": 1, "else": [2]}\n'),
    Damage("nested deeply", lambda data: b"[" * 100_000),
    Damage("an integer of 5,000 digits", lambda data: b'{"validation": ' + b"1" * 5000 + b"}"),
    Damage("texts for numbers", edited(everywhere(lambda value: str(value) if is_number(value) else value))),
    Damage("numbers for texts", edited(everywhere(lambda value: 7 if isinstance(value, str) else value))),
    Damage("negative numbers", edited(everywhere(lambda value: -1 - value if is_number(value) else value))),
    Damage("NaN", edited(everywhere(lambda value: float("nan") if is_number(value) else value))),
    Damage("null for tables", edited(lambda table: dict.fromkeys(table))),
]


def saved(state: Any, **how: Any) -> bytes:
    file = io.BytesIO()
    torch.save(state, file, **how)
    return file.getvalue()


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code of a checkpoint was run')",)


def retold(change: Callable[[Any], Any]) -> Callable[[bytes], bytes]:
    """Load a checkpoint, change what it holds, and save it: a whole file of other content."""
    return lambda data: saved(change(torch.load(io.BytesIO(data), weights_only=True)))


def of_tensors(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Any], Any]:
    return everywhere(lambda value: change(value) if isinstance(value, torch.Tensor) and value.numel() else value)


TENSORS = [
    Damage("another table", lambda data: saved({"x": torch.ones(3)})),
    Damage("an empty table", lambda data: saved({})),
    Damage("a list", lambda data: saved([1, 2])),
    Damage("a short pickle", lambda data: pickle.dumps({"x": 1})),
    Damage("the older format", lambda data: saved({"x": torch.ones(3)}, _use_new_zipfile_serialization=False)),
    Damage("code", lambda data: saved({"x": Evil()})),
    Damage("texts for tensors", retold(everywhere(lambda value: "x"))),
    Damage("other shapes", retold(of_tensors(lambda value: torch.cat([value.flatten(), value.flatten()])))),
    Damage("NaN weights", retold(of_tensors(lambda value: value * float("nan")))),
    Damage("other weights", retold(of_tensors(lambda value: value + 1))),
    Damage("bytes behind its end", lambda data: data + b"more"),
]  # fmt: skip


def damages(path: Path, flips: int = 3) -> list[Damage]:
    """What can happen to a file of this kind; `flips` bits are flipped, one at a time, all over it."""
    further = {".json": JSON, ".jsonl": JSON, ".ckpt": TENSORS}.get(path.suffix, [])
    draw = random.Random(path.name)
    places = [flip((number + draw.random()) / flips, draw.randrange(8)) for number in range(flips)]
    return [*ANY, *further, *places]


def outcome(call: Callable[[], Any], right: Any) -> str:
    """Empty where `call` raises a BantamError of one line, or gives what is `right`; else what it did."""
    try:
        given = call()
    except BantamError as error:
        return "" if str(error) and "\n" not in str(error) else f"said {str(error)!r}"
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return "" if given == right else "gave another answer"


def tried(
    folder: Path,
    files: Iterable[str],
    commands: Mapping[str, Command],
    place: Path,
    flips: int = 3,
    chosen: Callable[[Damage], bool] = lambda damage: True,
) -> Iterator[Case]:
    """Damage each of `files` of the run `folder`, in copies below `place`, and hold each command against it."""
    right = {name: command(copied(folder, place / "run")) for name, command in commands.items()}
    for file in files:
        for damage in damages(folder / file, flips):
            if not chosen(damage):
                continue
            for name, command in commands.items():
                copy = copied(folder, place / "run")
                if damage.apply(copy / file):
                    yield Case(file, damage.name, name, outcome(lambda: command(copy), right[name]))  # noqa: B023


def copied(folder: Path, to: Path) -> Path:
    """A copy of `folder` in place of whatever is at `to`: the same path each time, for it may stand in answers."""
    shutil.rmtree(to, ignore_errors=True)
    return Path(shutil.copytree(folder, to))
