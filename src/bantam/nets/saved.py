"""What people saved with torch.save or as safetensors, read without running anything in it."""

import _compat_pickle
import pickle
import re
import sys
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from bantam.errors import BadCheckpoint
from bantam.files import require_whole_archive

ADVICE = "save it with torch.save(net.state_dict(), path)"

HARMLESS = {
    "argparse": {"Namespace"},
    "builtins": {"int", "float", "str", "bool", "bytes", "list", "dict", "tuple", "frozenset", "slice", "range"},
    "collections": {"defaultdict", "deque"},
    "datetime": {"date", "datetime", "time", "timedelta", "timezone"},
    "decimal": {"Decimal"},
    "fractions": {"Fraction"},
    "pathlib": {"Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath"},
    "types": {"SimpleNamespace"},
    "uuid": {"UUID"},
}
"""What a checkpoint may hold of the standard library: plain data. Anything else of it has no business there."""


class Foreign(list[Any]):
    """Stands for an object of a type that is not read: it takes whatever the object would, and does nothing."""

    def __new__(cls, *_args: Any, **_named: Any) -> "Foreign":
        return super().__new__(cls)

    def __init__(self, *_args: Any, **_named: Any) -> None:
        super().__init__()

    def __setstate__(self, _state: Any) -> None: ...


class ForeignMapping(Foreign):
    """The same for types that are filled like a dict, which torch does only to a dict of its list."""

    def __new__(cls, *_args: Any, **_named: Any) -> Any:
        return OrderedDict[Any, Any]()


def read(path: Path) -> tuple[Any, list[str]]:
    """Everything that the file `path` holds, on the CPU, and the names of the types that stand-ins stand for.

    safetensors, or what torch.save wrote; never runs code. Raises BadCheckpoint in one line for anything else.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(9)
        if start[8:] == b"{":
            return load_file(path), []
        if start.startswith(b"PK"):
            require_whole(path)
        return unpickled(path)
    except OSError as error:
        raise BadCheckpoint(f"cannot read {path}: {error.strerror or error}; check the path") from error
    except pickle.UnpicklingError as error:
        raise BadCheckpoint(
            f"{path} is refused: it is damaged, or holds more than tensors and would run code; {ADVICE}"
        ) from error
    except BadCheckpoint:
        raise
    # The bytes come from anywhere, so the reader may fail with any error at all.
    except Exception as error:
        raise BadCheckpoint(f"{path} is not a file of weights, or is damaged; {ADVICE}") from error


def require_whole(path: Path) -> None:
    """Raise BadCheckpoint where the archive `path` is a program, or where its bytes have changed."""
    with zipfile.ZipFile(path) as archive:
        if any(name.endswith("/constants.pkl") for name in archive.namelist()):
            raise BadCheckpoint(
                f"{path} is a TorchScript program, whose code is not run; give its weights: "
                "torch.save(torch.jit.load(path).state_dict(), other)"
            )
    try:
        require_whole_archive(path)
    except ValueError as error:
        raise BadCheckpoint(f"{path} is damaged: {error}; copy or download it again") from error


def unpickled(path: Path) -> tuple[Any, list[str]]:
    """What torch.save wrote to `path`, read as weights only, stand-ins in place of foreign types; and their names."""
    names: list[str] = []
    kinds = iter((Foreign, ForeignMapping))
    kind = next(kinds)
    while True:
        # numpy's own types are filled like no dict, whatever else there is.
        stand_ins: list[Any] = [(Foreign if name.startswith("numpy") else kind, name) for name in names]
        try:
            with torch.serialization.safe_globals(stand_ins), warnings.catch_warnings(action="ignore"):
                return torch.load(path, map_location="cpu", weights_only=True), names
        except pickle.UnpicklingError as error:
            foreign = re.search(r"GLOBAL (\S+) ", str(error))
            if foreign is None:
                kind = next(kinds, None)
                if kind is None or not names:
                    raise
                continue
            name = foreign[1] if "." in foreign[1] else f"builtins.{foreign[1]}"
            if name in names or not harmless(name):
                raise BadCheckpoint(
                    f"{path} is refused: other readers would run {name} in it, this one ran nothing; {ADVICE}"
                ) from error
            names.append(name)


def harmless(name: str) -> bool:
    """Whether a type of this full name may lie beside weights: anything but what the standard library can do."""
    module, _, last = name.rpartition(".")
    package = module.partition(".")[0]
    # Pickles of protocol 2, which torch.save writes, have the modules' names of Python 2.
    standard = package in sys.stdlib_module_names or package in _compat_pickle.IMPORT_MAPPING
    return not standard or last in HARMLESS.get(package, ())
