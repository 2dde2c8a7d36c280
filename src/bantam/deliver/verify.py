"""Does a code package keep the rules, and does it give the submission that it claims?

The package may be anybody's. What needs no code of it is always checked; its code runs only where the user asks for it.
"""

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from bantam.data.folder import SPLIT_FOLDERS, Folder, scan
from bantam.deliver import archive, submission
from bantam.deliver.package import NOTEBOOK, SCRIPT, SUBMISSION, WEIGHTS
from bantam.errors import BadData, BadPackage, BadSubmission

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""What BatchNorm keeps in a state_dict beside its parameters."""

WEIGHTS_FILES = 10_000
"""Most files in the zip that torch writes: one for each tensor, and a few more."""

TIMEOUT = 1200.0
"""Seconds of wall-clock time after which the package's code is ended."""

NOT_RUN = (
    "the package's own code was not run; --run-code runs it in a process with limits on time, memory and files. That "
    "is no sandbox: use it for code that you trust, or on a machine that holds nothing of yours"
)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: `passed` is None where it could not be."""

    name: str
    passed: bool | None
    detail: str


@dataclass(frozen=True)
class Verdict:
    """All checks of a package. It passes where none has failed."""

    package: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether no check has failed."""
        return all(check.passed is not False for check in self.checks)

    def text(self) -> str:
        """A line for each check, and the verdict."""
        words = {True: "pass", False: "FAIL", None: "-"}
        lines = [f"{words[check.passed]:<4}  {check.name}: {check.detail}" for check in self.checks]
        failed = [check.name for check in self.checks if check.passed is False]
        left = [check.name for check in self.checks if check.passed is None]
        verdict = f"FAIL: {', '.join(failed)}" if failed else "pass"
        if left and not failed:
            verdict += f", as far as it was checked (not: {', '.join(left)})"
        return "\n".join([*lines, f"{self.package}: {verdict}"])

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dumps`."""
        return {"package": self.package, "passed": self.passed, "checks": [asdict(check) for check in self.checks]}


def verify(path: Path, data: Path, budget: int, run_code: bool = False, timeout: float = TIMEOUT) -> Verdict:
    """Check the package at `path` against the photographs in `data` and a budget of parameters.

    Whatever is wrong with the package is a failed check, not an error. Without `run_code` no code of the package runs.
    With it, its code runs twice in a process without Bantam: to weigh the net that it builds, and to predict; it is
    given a folder with the evaluation images alone.

    Raises BadData where `data` cannot be used or has no evaluation images.
    """
    folder = scan(data)
    if not folder.evaluation:
        raise BadData(f"{data} has no evaluation images; put them into {data / 'evaluation'}")
    checks: list[Check] = []
    try:
        files = archive.contents(archive.read_bytes(path), path.name)
    except BadPackage as error:
        return Verdict(str(path), (Check("archive", False, str(error)),))
    checks.append(Check("archive", True, f"{len(files)} files, {sum(map(len, files.values())):,} bytes"))
    checks.append(check_files(files))
    if checks[-1].passed is False:
        return Verdict(str(path), tuple(checks))
    checks += check_weights(files[WEIGHTS], budget)
    claimed, check = check_submission(files[SUBMISSION], folder)
    checks.append(check)
    trusted = all(check.passed for check in checks)
    if not run_code or not trusted:
        why = NOT_RUN if not run_code else "the package's own code was not run, because of what failed above"
        checks += [Check(name, None, why) for name in ("net", "reproduction")]
    else:
        with tempfile.TemporaryDirectory(prefix="bantam-verify-", ignore_cleanup_errors=True) as name:
            checks += run_package(files, folder, claimed, budget, Path(name), timeout)
    return Verdict(str(path), tuple(checks))


def check_files(files: Mapping[str, bytes]) -> Check:
    """Whether everything is there that a package needs."""
    missing = [name for name in (WEIGHTS, SUBMISSION) if name not in files]
    if SCRIPT not in files and NOTEBOOK not in files:
        missing.insert(0, f"{SCRIPT} or {NOTEBOOK}")
    if missing:
        return Check("files", False, f"the package lacks {', '.join(missing)} at its top")
    return Check("files", True, ", ".join(sorted(files))[:200])


def check_weights(data: bytes, budget: int) -> list[Check]:
    """Whether the weights are a plain state_dict, read without running anything, and within the budget."""
    try:
        archive.contents(data, WEIGHTS, WEIGHTS_FILES)
        # To the device "meta": shapes are read and no memory is taken, whatever sizes the file claims.
        state = torch.load(BytesIO(data), map_location="meta", weights_only=True)
    except BadPackage as error:
        return [Check("weights", False, str(error))]
    except Exception as error:  # torch raises many kinds; each means that these are not plain weights
        reason = " ".join(str(error).split("\n")[0].split())[:160]
        return [Check("weights", False, f"{WEIGHTS} does not load as weights only, and so is not trusted: {reason}")]
    if not isinstance(state, Mapping) or not state:
        return [Check("weights", False, f"{WEIGHTS} is no state_dict: it holds {type(state).__name__}")]
    strange = [str(name)[:60] for name, value in state.items() if not (isinstance(name, str) and type(value) is Tensor)]
    if strange:
        return [Check("weights", False, f"{WEIGHTS} is no plain state_dict: {strange[0]!r} is no tensor")]
    stored = {value.untyped_storage()._cdata: value.untyped_storage().nbytes() for value in state.values()}
    if sum(stored.values()) > len(data):
        return [
            Check("weights", False, f"{WEIGHTS} claims {sum(stored.values()):,} bytes of weights and has {len(data):,}")
        ]
    count = sum(value.numel() for name, value in state.items() if not is_statistic(name, state))
    within = Check(
        "parameters",
        count <= budget,
        f"{count:,} in the file beside BatchNorm's statistics, "
        + (f"within {budget:,}" if count <= budget else f"{count - budget:,} over the budget of {budget:,}"),
    )
    return [Check("weights", True, f"a plain state_dict of {len(state)} tensors, loaded as weights only"), within]


def is_statistic(name: str, state: Mapping[str, Tensor]) -> bool:
    """Whether a tensor is what BatchNorm keeps beside its weight, by name and by shape; anything else is a weight."""
    path, _, own = name.rpartition(".")
    if own not in STATISTICS or own == "num_batches_tracked":
        return own == "num_batches_tracked" and state[name].numel() == 1
    weight = state.get(f"{path}.weight")
    return weight is not None and weight.ndim == 1 and weight.shape == state[name].shape


def check_submission(data: bytes, folder: Folder) -> tuple[dict[str, int], Check]:
    """The packaged submission by id, and whether it has one valid row for each evaluation image."""
    with tempfile.TemporaryDirectory(prefix="bantam-verify-") as name:
        path = Path(name) / SUBMISSION
        path.write_bytes(data)
        try:
            claimed = submission.read(path, len(folder.classes))
        except BadSubmission as error:
            return {}, Check("submission", False, str(error).replace(str(path), SUBMISSION))
    expected = [record.id for record in folder.evaluation]
    missing = [image_id for image_id in expected if image_id not in claimed]
    unknown = sorted(set(claimed) - set(expected))
    for wrong, what in ((missing, "missing id"), (unknown, "unknown id")):
        if wrong:
            return claimed, Check("submission", False, f"{SUBMISSION}: {submission.first_few(wrong, what)}")
    if list(claimed) != sorted(claimed):
        return claimed, Check("submission", False, f"{SUBMISSION}: the rows are not sorted by {submission.ID}")
    return claimed, Check("submission", True, f"{len(claimed):,} rows, one for each evaluation image, sorted")


def run_package(
    files: dict[str, bytes], folder: Folder, claimed: dict[str, int], budget: int, place: Path, timeout: float
) -> list[Check]:
    """Weigh the net that the package's code builds, and compare its predictions with the `claimed` ones.

    `place` is an empty folder for all that the code may write.
    """
    room = place / "package"
    room.mkdir()
    archive.write_contents({name: data for name, data in files.items() if name != SUBMISSION}, room)
    code = room / SCRIPT
    if SCRIPT not in files:
        try:
            code.write_text(code_in_notebook(files[NOTEBOOK]), encoding="utf-8")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = f"{NOTEBOOK} is no notebook: {' '.join(str(error).split())[:120]}"
            return [Check(name, False, reason) for name in ("net", "reproduction")]
    # Of the photographs only what the inference needs, so that no label stands beside them.
    data = place / "data"
    data.mkdir()
    root = next(folder.root / name for name in SPLIT_FOLDERS["evaluation"] if (folder.root / name).is_dir())
    (data / "evaluation").symlink_to(root.resolve(), target_is_directory=True)

    weight, predictions = place / "weight.json", room / SUBMISSION
    failed = in_clean_room(["weigh", code, room / WEIGHTS, weight], room, data, timeout)
    checks = [Check("net", False, failed) if failed else check_net(weight, len(folder.classes), budget)]
    predictions.unlink(missing_ok=True)
    failed = in_clean_room(["run", code, data, predictions], room, data, timeout)
    checks.append(
        Check("reproduction", False, failed) if failed else compare(predictions, claimed, len(folder.classes))
    )
    return checks


def code_in_notebook(data: bytes) -> str:
    """The code of a notebook's cells, in order."""
    cells = json.loads(data)["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def check_net(path: Path, classes: int, budget: int) -> Check:
    """Whether the net that the code builds is within the budget by both counts, as clean_room.py wrote them."""
    try:
        weighed = json.loads(path.read_text(encoding="utf-8")) if is_plain(path) else {}
        unique, called, outputs = (int(weighed[name]) for name in ("unique", "torchsummary", "classes"))
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return Check("net", False, "the code ended without a weight")
    counts = f"{unique:,} parameters, {called:,} as torchsummary counts"
    over = max(unique, called) - budget
    if over > 0:
        return Check("net", False, f"{counts}: {over:,} over the budget of {budget:,}")
    if outputs != classes:
        return Check("net", False, f"it answers with {outputs} classes, the photographs have {classes}")
    return Check("net", True, f"{counts}, within {budget:,}; the weights fit strictly")


def compare(path: Path, claimed: dict[str, int], classes: int) -> Check:
    """Whether the predictions at `path` are the `claimed` ones, row by row."""
    if not is_plain(path):
        return Check("reproduction", False, "the code ended without a file of predictions")
    try:
        found = submission.read(path, classes)
    except BadSubmission as error:
        return Check("reproduction", False, str(error).replace(str(path), "what the code wrote"))
    if list(found) != list(claimed):
        return Check("reproduction", False, f"the code wrote {len(found):,} rows, of other ids or in another order")
    other = [f"{name}: {found[name]}, packaged {claimed[name]}" for name in claimed if found[name] != claimed[name]]
    if other:
        return Check(
            "reproduction", False, f"of {len(claimed):,} rows, {submission.first_few(other, 'differs', 'differ')}"
        )
    return Check("reproduction", True, f"all {len(claimed):,} rows equal the packaged submission")


def is_plain(path: Path) -> bool:
    """Whether the code has left a file there, and no link, and no pipe that whoever reads it would wait for."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def in_clean_room(arguments: list[str | Path], room: Path, data: Path, timeout: float) -> str:
    """Run clean_room.py with `arguments` in the folder `room`; gives why it failed, or nothing.

    It has limits, an environment without the user's, no input, and what it started is killed at the end.
    """
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(room),
        "TMPDIR": str(room),
        "LANG": "C.UTF-8",
        "FOOD_11": str(data),
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(os.cpu_count() or 1)),
    }
    script = Path(__file__).with_name("clean_room.py")
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, "-I", str(script), *map(str, arguments)],
            cwd=room, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True,
        )  # fmt: skip
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired:
            return f"the code did not end within {timeout:g} s"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            end_those_of(room)
        if status == 0:
            return ""
        if status < 0:
            return f"the code was ended by {signal.Signals(-status).name}: over a limit on time or files, or by itself"
        return f"the code failed: {last_line(said)}"


def end_those_of(room: Path) -> None:
    """End the processes that left the code's process group: they have its HOME, where the system shows it (/proc)."""
    mark = f"HOME={room}".encode()
    while True:
        found = 0
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if mark in path.read_bytes().split(b"\0"):
                    os.kill(int(path.parent.name), signal.SIGKILL)
                    found += 1
        if not found:
            return


def last_line(said: BinaryIO) -> str:
    """The last line with something on it of what a program said, printable and short."""
    said.seek(max(0, said.seek(0, os.SEEK_END) - 4096))
    lines = said.read().decode("utf-8", "replace").split("\n")
    spoken = [line for line in lines if line.strip()]
    printable = (
        "".join(letter if letter.isprintable() else " " for letter in spoken[-1]) if spoken else "without a word"
    )
    return " ".join(printable.split())[:200]
