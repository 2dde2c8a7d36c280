"""Files of tensors: a kill at any moment leaves them old or new, never half; damage is found before they are used.

A checkpoint is a zip archive with a CRC-32 of everything in it, which `torch.load` does not look at; here every one is
checked before anything is unpacked. What trained nets leave behind is also held against the SHA-256 that the JSON file
beside it has recorded, so weights of another run are found too. Runs from before that record have the CRC alone.
"""

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bantam.errors import BadCheckpoint, CannotWrite, NotFinite
from bantam.files import one_line, replacing, require_whole_archive, sha256_of
from bantam.runs import runfolder

Device = torch.device | str


def save(path: Path, state: Mapping[str, Any]) -> None:
    """Write `state` (tensors and plain values) to `path` whole or not at all. Raises CannotWrite."""
    try:
        # To an open file: given a name, torch writes that name into the file, and this one is temporary.
        with replacing(path) as temporary, open(temporary, "wb") as file:
            torch.save(state, file)
    except RuntimeError as error:  # torch reports a full disk as a RuntimeError of its zip writer
        raise CannotWrite(
            f"cannot write {path}: {str(error).splitlines()[0]}; free some space and run again"
        ) from error


def save_weights(path: Path, weights: Mapping[str, Tensor]) -> str:
    """Write a state_dict to `path`; gives the file's SHA-256 for its record. Raises NotFinite, CannotWrite."""
    require_finite(weights, path)
    save(path, weights)
    return sha256_of(path)


def load(
    path: Path, device: Device = "cpu", *, sha256: str | None = None, advice: str = "delete it or give another one"
) -> dict[str, Any]:
    """The state in `path`, every bit as it was written, loaded as weights only.

    `sha256` is the file's recorded one, `advice` ends the message. Raises BadCheckpoint.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadCheckpoint(f"cannot load {path}: {error.strerror or error}; {advice}") from error
    try:
        require_whole_archive(io.BytesIO(data))
    except ValueError as error:
        raise BadCheckpoint(f"cannot load {path}: it is damaged ({error}); {advice}") from error
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise BadCheckpoint(
            f"cannot load {path}: it is not the file that was written here, its SHA-256 is another; {advice}"
        )
    try:
        state = torch.load(io.BytesIO(data), map_location=device, weights_only=True)
    except Exception as error:  # the bytes come from anywhere, so the reader may fail with any error at all
        raise BadCheckpoint(f"cannot load {path}: {one_line(error)}; {advice}") from error
    if not isinstance(state, dict):
        raise BadCheckpoint(f"cannot load {path}: it holds a {type(state).__name__}, not a table; {advice}")
    return state


def weights(
    path: Path, device: Device = "cpu", *, sha256: str | None = None, advice: str = runfolder.AGAIN
) -> dict[str, Tensor]:
    """The state_dict in `path`, finite. Raises BadCheckpoint, NotFinite."""
    state = load(path, device, sha256=sha256, advice=advice)
    if not state or not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()):
        raise BadCheckpoint(f"cannot load {path}: it is not a state_dict, names with tensors; {advice}")
    require_finite(state, path, advice)
    return state


def require_finite(state: Mapping[str, Tensor], path: Path, advice: str = "train again with a lower lr") -> None:
    """Raises NotFinite where a tensor of `state`, which `path` holds or shall hold, has NaN or an infinity."""
    for name, value in state.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise NotFinite(f"the weights of {path} are not finite (in {name}); {advice}")


def fill(net: nn.Module, state: Mapping[str, Tensor], path: Path, advice: str = runfolder.AGAIN) -> None:
    """Load the state_dict `state` of the file `path` into `net`. Raises BadCheckpoint where it is of another net."""
    try:
        net.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError, KeyError) as error:
        raise BadCheckpoint(f"{path} does not hold this net's weights: {one_line(error)}; {advice}") from error


def of_stage(folder: Path, device: Device = "cpu") -> tuple[dict[str, Tensor], Path, str]:
    """The weights of the stage in `folder`, their file, and what to do where they do not fit.

    Raises BadCheckpoint, NotFinite and BadRunFile.
    """
    told = runfolder.finished(folder) or {}
    path = folder / runfolder.BEST
    done = folder / runfolder.DONE
    advice = f"delete {done} and run the recipe again: this stage is trained once more"
    return weights(path, device, sha256=told.get("weights"), advice=advice), path, advice


def fill_from_stage(net: nn.Module, folder: Path, device: Device = "cpu") -> None:
    """Give `net` the weights of the stage in `folder`. Raises BadCheckpoint, NotFinite and BadRunFile."""
    state, path, advice = of_stage(folder, device)
    fill(net, state, path, advice)
