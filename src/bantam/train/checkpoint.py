"""Checkpoints that a kill at any moment leaves either old or new, never half."""

import pickle
from pathlib import Path
from typing import Any

import torch

from bantam.errors import BadCheckpoint, CannotWrite
from bantam.files import replacing


def save(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors and plain values) to `path` whole or not at all. Raises CannotWrite."""
    try:
        # To an open file: given a name, torch writes that name into the file, and this one is temporary.
        with replacing(path) as temporary, open(temporary, "wb") as file:
            torch.save(state, file)
    except RuntimeError as error:  # torch reports a full disk as a RuntimeError of its zip writer
        raise CannotWrite(
            f"cannot write {path}: {str(error).splitlines()[0]}; free some space and run again"
        ) from error


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The state in `path`, loaded as weights only. Raises BadCheckpoint."""
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadCheckpoint(f"cannot load {path}: {reason}; delete it or give another checkpoint") from error
