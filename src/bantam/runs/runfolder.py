"""The one reader and writer of a run's files, and the lock of its folder.

Whatever reads a file of a run reads it here, or through `bantam.runs.checkpoint` where it holds tensors. A file that is
damaged, of another kind or of another run is one line that names the file and says what to do. Files of runs made
before there were seals are read as they are.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from pydantic import ValidationError

from bantam.errors import BadData, BadRecipe, BadRunFile, NotFinite, RunBusy, typed
from bantam.files import explained, read_sealed, sealed, unsealed, write_sealed, write_text
from bantam.recipes import recipe as recipes
from bantam.recipes.recipe import Recipe
from bantam.runs.schema import Checked, Environment, Epoch, Finished, Probe, Result

RECIPE, ENVIRONMENT, RESULT, STUDENT, WEIGHTS = (
    "recipe.toml", "environment.json", "metrics.json", "student.json", "student_best.ckpt",
)  # fmt: skip
DONE, PROBE, ROWS, BEST, START, LAST = (
    "done.json", "probe.json", "metrics.jsonl", "best.ckpt", "start.ckpt", "last.ckpt",
)  # fmt: skip
INTERIM = "interim"
"""The key of student.json that says that this is the best student so far, of a run that is not finished."""
PLAN = "plan.json"
"""What a fit planned, and for which wishes."""
PACE = "pace.json"
"""How the schedule of a stage that had to end at a time was shortened or stretched (`bantam.train.pace`)."""
SPLITS = "splits.json"
"""Which photographs train and which measure, where the data folder did not say so."""
STAGES = "stages"
"""The folder that holds a folder for each stage."""
SUBMISSION, PACKAGE = "submission.csv", "hw13.zip"
HANDIN = "handin.json"
"""Who hands in, and which package was verified."""
EXITS, VIEWS, CASCADE, SLIM, SPEED, REPORT, FACTS = (
    "exits/exits.json", "views/views.json", "cascade/cascade.json", "slim/slim.json", "pruning/pruning_speed.json",
    "report/report.html", "report/facts.json",
)  # fmt: skip
QUANTIZED, QUANTIZATION, PRUNING = "quantized", "quantization.json", "pruning"
"""What commands leave in a finished run: files, and folders of several."""
PHOTOGRAPHS = "photographs.json"
"""What `bantam.runs.remembered` keeps."""
LOCK = ".lock"

AGAIN = "run the recipe again: it takes what is finished as it is"

Row = dict[str, Any]

Kind = TypeVar("Kind", bound=Checked)


# --- tables


def table(path: Path, advice: str) -> dict[str, Any]:
    """The table in a JSON file of a run. Raises BadRunFile, which ends in `advice`."""
    try:
        return read_sealed(path)
    except OSError as error:
        raise BadRunFile(f"cannot read {path}: {error.strerror or error}; {advice}") from error
    except ValueError as error:
        raise _damaged(path, error, advice) from error


def checked(kind: type[Kind], path: Path, value: Any, advice: str) -> Kind:
    """`value`, which stands in `path`, as a `kind`. Raises BadRunFile."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise _damaged(path, f"{place}: {first['msg']}" if place else first["msg"], advice) from error


def checked_table(kind: type[Kind], path: Path, advice: str) -> dict[str, Any]:
    """The table in `path`, whatever its version added to what a `kind` has. Raises BadRunFile."""
    told = table(path, advice)
    checked(kind, path, told, advice)
    return told


def _damaged(path: Path, reason: object, advice: str) -> BadRunFile:
    said = " ".join(str(reason).split())[:200]
    return BadRunFile(f"{path} is damaged, it does not hold what a run writes ({said}); {advice}")


def write(path: Path, value: dict[str, Any]) -> dict[str, Any]:
    """Write a table of a run to `path` with its seal; gives what was written. Raises CannotWrite, NotFinite."""
    return write_sealed(path, value)


# --- the run


def recipe(folder: Path) -> Recipe:
    """The recipe of a run folder. Raises BadData where `folder` holds no run, BadRunFile for a damaged recipe.toml."""
    path = folder / RECIPE
    if not path.exists():
        raise BadData(f"{folder} holds no run (no recipe.toml); `bantam run RECIPE --data DIR --out RUN` makes one")
    advice = "put it back from a copy, or make the run anew in another folder"
    try:
        text = path.read_bytes().decode("utf-8")
        body, sealed_with = _cut_seal(text)
        if sealed_with not in (None, _text_seal(body)):
            raise ValueError(
                "it was changed after it was written, its sha256 does not fit; take that out if you did so"
            )
        return recipes.parse(body, str(path))
    except OSError as error:
        raise BadRunFile(f"cannot read {path}: {error.strerror or error}; {advice}") from error
    except (ValueError, RecursionError) as error:
        raise _damaged(path, error, advice) from error
    except BadRecipe as error:
        raise BadRunFile(f"{error}; {advice}") from error


def write_recipe(folder: Path, made: Recipe) -> None:
    """Write recipe.toml, the resolved recipe and below it its seal. Raises CannotWrite."""
    text = recipes.dump(made)
    write_text(folder / RECIPE, f"{text}\n# sha256 of the lines above: {_text_seal(text)}\n")


def _text_seal(text: str) -> str:
    return hashlib.sha256(text.rstrip("\n").encode()).hexdigest()


def _cut_seal(text: str) -> tuple[str, str | None]:
    """A recipe's text without its seal, and the seal."""
    found = re.search(r"\n# sha256 of the lines above: (\S*)\n*\Z", text)
    return (text[: found.start()], found[1]) if found else (text, None)


def environment(folder: Path) -> dict[str, Any] | None:
    """What environment.json holds; None where there is none. Raises BadRunFile."""
    path = folder / ENVIRONMENT
    if not path.exists():
        return None
    advice = "put it back from a copy, or delete it and run the recipe again, on the same photographs"
    return checked_table(Environment, path, advice)


def go_on(folder: Path) -> str:
    """How the run in `folder` is brought to its end."""
    if (folder / PLAN).exists():
        return f"`bantam fit DIR --out {typed(folder)}` goes on with it, with the options that it was begun with"
    return f"`bantam run {typed(folder / RECIPE)} --data DIR --out {typed(folder)}` goes on with it"


def result(folder: Path) -> dict[str, Any]:
    """What metrics.json holds. Raises BadData for an unfinished run, BadRunFile for a damaged file."""
    path = folder / RESULT
    if not path.exists():
        raise BadData(f"{folder} has no metrics.json: the run is not finished; {go_on(folder)}")
    return checked_table(Result, path, AGAIN)


def student(folder: Path, advice: str = AGAIN) -> dict[str, Any]:
    """What student.json of a run or of a stage holds: the description, and `weights`, its weights' SHA-256.

    Raises BadData where there is none, BadRunFile for a damaged one.
    """
    path = folder / STUDENT
    if not path.exists():
        raise BadData(f"{folder} has no student.json: the run is not finished; {go_on(folder)}")
    return table(path, advice)


# --- its stages


def finished(folder: Path) -> dict[str, Any] | None:
    """What done.json of the stage in `folder` holds; None while it is not finished. Raises BadRunFile."""
    path = folder / DONE
    if not path.exists():
        return None
    advice = "delete it and run the recipe again: this stage is trained once more"
    return checked_table(Finished, path, advice)


def probe(folder: Path) -> Probe | None:
    """How the stage in `folder` trains; None where that is not chosen yet.

    Raises BadRunFile for a damaged file while the stage has a checkpoint, which must go on with the same choice.
    """
    path = folder / PROBE
    if not path.exists():
        return None
    started = (folder / LAST).exists()
    again = f"and {LAST} beside it " if started else ""
    advice = f"put it back from a copy, or delete it {again}and run the recipe again" + (
        ": the stage starts from its beginning" if started else ""
    )
    return checked(Probe, path, table(path, advice), advice)


def rows(path: Path) -> list[Row]:
    """The finished epochs in metrics.jsonl; a last line that is half written is left out.

    Raises BadRunFile, also where the stage is finished and its last epoch is not there.
    """
    advice = "delete it: the curves then begin later, the result stays the same"
    try:
        lines = path.read_bytes().split(b"\n") if path.exists() else []
    except OSError as error:
        raise BadRunFile(f"cannot read {path}: {error.strerror or error}; {advice}") from error
    found: list[Row] = []
    for number, line in enumerate(lines, start=1):
        last = number == len(lines)
        if last and not line:
            break
        try:
            row = unsealed(line)
        except ValueError as error:
            if last:  # without its newline: the writing was killed
                break
            raise _damaged(path, f"line {number}: {error}", advice) from error
        checked(Epoch, path, row, advice)
        found.append(row)
    ended = (finished(path.parent) or {}).get("epochs") if lines else None
    if ended is not None and (found[-1]["epoch"] if found else 0) != ended:
        raise _damaged(path, f"it does not end with epoch {ended}, the stage's last", advice)
    return found


def row_text(row: Row) -> str:
    """The line of metrics.jsonl for `row`, with its seal. Raises NotFinite for NaN and infinities."""
    try:
        return json.dumps(sealed(row), allow_nan=False) + "\n"
    except ValueError as error:
        raise NotFinite(f"epoch {row.get('epoch')} came to a number that is not finite; lower the lr") from error


# --- one at a time


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`, which is made; the system releases it when this process ends, however it ends.

    A folder in which nothing was written is gone afterwards, if it was not there before. Raises RunBusy, at once, where
    another process holds the lock, and CannotWrite.
    """
    created = not folder.exists()
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, blocking=False)
        try:
            lock.acquire()
        except Timeout as error:
            raise RunBusy(
                f"another process is working in {folder}; wait until it has ended, or choose another --out"
            ) from error
    try:
        yield
    finally:
        # While it is held: whoever has opened this file and gets its lock afterwards sees that its name is gone.
        (folder / LOCK).unlink(missing_ok=True)
        lock.release()
        if created:
            with contextlib.suppress(OSError):  # it holds something
                folder.rmdir()
