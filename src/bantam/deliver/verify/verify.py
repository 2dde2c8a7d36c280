"""Does a code package keep the rules, and does it give the submission that it claims?

The package may be anybody's. What needs no code of it is always checked (`unrun.py`); its code runs only where the
user asks for it, in a sandbox (`sandbox.py`), and there only makes two things: the net as a graph, and its answers. The
graph is weighed and run by ourselves (`answering.py`), on photographs that we render ourselves, so that what is weighed
is what answers.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bantam.data.folder import Folder, scan
from bantam.deliver import submission
from bantam.deliver.package.write import SCRIPT, SUBMISSION, WEIGHTS
from bantam.deliver.verify import (
    agreement,
    answering,
    archive,
    copies,
    finding,
    sandbox,
)
from bantam.deliver.verify.answering import Found, Question
from bantam.deliver.verify.copies import Copy
from bantam.deliver.verify.unrun import (
    Check,
    check_code,
    check_files,
    check_submission,
    check_weights,
    code_of,
)
from bantam.errors import BadData, BadPackage, BadSubmission

TIMEOUT = 1200.0
"""Seconds of wall-clock time after which the package's code is ended."""

HANDED_OVER = 256 * 2**20
"""Most bytes of what the code hands over."""

RUN_CHECKS = ("net", "inputs", "answers", "reproduction", "moved")
"""The checks that need the package's code."""

NOT_RUN = (
    "the package's own code was not run; --run-code runs it, with no network and nothing of yours in sight where the "
    "system has namespaces, and with limits on time, memory, processes and disk alone where it has none: that is no "
    "sandbox, so use it there for code that you trust, or on a machine that holds nothing of yours"
)

CLEAN_ROOM = Path(__file__).with_name("clean_room.py").resolve()


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
        """A line for each check, one for those of which the same is to say, and the verdict."""
        words = {True: "pass", False: "FAIL", None: "-"}
        lines = [
            f"{words[passed]:<4}  {', '.join(check.name for check in alike)}: {detail}"
            for (passed, detail), alike in groupby(self.checks, key=lambda check: (check.passed, check.detail))
        ]
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
    With it, its code runs twice in a sandbox without Bantam, each time on copies of the evaluation images alone: to
    hand over its net, and to predict.

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
    checks.append(check_code(files))
    claimed, check = check_submission(files[SUBMISSION], folder)
    checks.append(check)
    trusted = all(check.passed for check in checks)
    if not run_code or not trusted:
        why = NOT_RUN if not run_code else "the package's own code was not run, because of what failed above"
        checks += [Check(name, None, why) for name in RUN_CHECKS]
    else:
        with tempfile.TemporaryDirectory(prefix="bantam-verify-", ignore_cleanup_errors=True) as name:
            checks += run_package(files, folder, claimed, budget, Path(name).resolve(), timeout)
    return Verdict(str(path), tuple(checks))


def run_package(
    files: Mapping[str, bytes], folder: Folder, claimed: Mapping[str, int], budget: int, place: Path, timeout: float
) -> list[Check]:
    """Let the package's code hand over its net and predict, and check both.

    `place` is an empty folder for all that this needs. The checks after one that fails are left out as None.
    """
    checks: list[Check] = []
    few = copies.few(folder.evaluation, place / "few" / "evaluation")
    everything = copies.all_of(folder.evaluation, place / "data" / "evaluation")
    handed = place / "net.safetensors"
    failed = hand_over(files, place, handed, timeout)
    if failed:
        return [Check("net", False, failed), *not_checked(RUN_CHECKS[1:])]
    found = answering.ask(
        Question(
            file=str(handed),
            few=[str(copy.path) for copy in few],
            listed=[str(path) for path in (place / "few" / "evaluation").iterdir()],
            photographs=[str(copy.path) for copy in everything],
            classes=len(folder.classes),
            budget=budget,
            logits=str(place / "logits.npy"),
        ),
        timeout,
    )
    checks.append(check_net(found, budget))
    if checks[-1].passed:
        checks.append(check_inputs(found))
    if not checks[-1].passed:
        return [*checks, *not_checked(RUN_CHECKS[len(checks) :])]
    predicted, failed = predict(files, place, everything, len(folder.classes), timeout)
    if failed:
        return [*checks, Check("answers", None, "the code gave none"), Check("reproduction", False, failed),
                *not_checked(RUN_CHECKS[4:])]  # fmt: skip
    logits = torch.from_numpy(np.load(place / "logits.npy", allow_pickle=False))
    agreed = agreement.compare(logits, predicted, found.weights)
    return [
        *checks,
        check_answers(agreed, found, everything),
        check_reproduction(agreed, predicted, claimed, everything),
        check_moved(agreed, predicted, claimed, everything),
    ]


def not_checked(names: Sequence[str]) -> list[Check]:
    """The checks that are left out because of one before them."""
    return [Check(name, None, "not checked, because of what failed above") for name in names]


def room_of(files: Mapping[str, bytes], place: Path, data: Path) -> Path:
    """A new room in `place` for the code: the code, its weights, and by the name of the course's folder the `data`."""
    room = place / "room"
    if room.exists():
        room.rename(place / "room of the first run")
    room.mkdir()
    (room / SCRIPT).write_text(code_of(files), encoding="utf-8", errors="surrogatepass")
    (room / WEIGHTS).write_bytes(files[WEIGHTS])
    (room / "food11-hw13").symlink_to(data, target_is_directory=True)
    return room


def hand_over(files: Mapping[str, bytes], place: Path, handed: Path, timeout: float) -> str:
    """Let the code write its net to `handed`; gives why that failed, or nothing."""
    data = place / "few"
    room = room_of(files, place, data)
    left = room / "net.safetensors"
    job = ["hand_over", room / SCRIPT, data, room / SUBMISSION, room / WEIGHTS, left]
    failed = sandbox.run([sandbox.python(), "-I", str(CLEAN_ROOM), *map(str, job)], place, (data, CLEAN_ROOM), timeout)
    if failed:
        return failed
    written = sandbox.read_left(left, HANDED_OVER)
    if written is None:
        return "the code ended without a net"
    handed.write_bytes(written)
    return ""


def predict(
    files: Mapping[str, bytes], place: Path, everything: Sequence[Copy], classes: int, timeout: float
) -> tuple[Tensor, str]:
    """The code's answers to the copies, int64 [N] in their order, or why there are none."""
    data = place / "data"
    room = room_of(files, place, data)
    out = room / SUBMISSION
    job = ["run", room / SCRIPT, data, out]
    failed = sandbox.run([sandbox.python(), "-I", str(CLEAN_ROOM), *map(str, job)], place, (data, CLEAN_ROOM), timeout)
    written = None if failed else sandbox.read_left(out, HANDED_OVER)
    if failed or written is None:
        return torch.empty(0), failed or "the code ended without a file of predictions"
    read = place / "predictions.csv"
    read.write_bytes(written)
    try:
        found = submission.read(read, classes)
    except BadSubmission as error:
        return torch.empty(0), str(error).replace(str(read), "what the code wrote")
    missing = [copy.id for copy in everything if copy.id not in found]
    if missing or len(found) != len(everything):
        return torch.empty(0), f"the code wrote {len(found):,} rows for {len(everything):,} images, or of other ids"
    return torch.tensor([found[copy.id] for copy in everything]), ""


def check_net(found: Found, budget: int) -> Check:
    """Whether the graph's numbers are within the budget by both counts."""
    if found.net:
        return Check("net", False, found.net)
    unique, called, beside = (found.weighed[name] for name in ("parameters", "called", "beside"))
    counts = f"{unique:,} parameters, {called:,} as torchsummary counts, {beside:,} numbers beside them"
    if found.counted > budget:
        return Check("net", False, f"{counts}: {found.counted - budget:,} over the budget of {budget:,}")
    return Check("net", True, f"{counts}, within {budget:,}; the weights fit strictly")


def check_inputs(found: Found) -> Check:
    """Whether it is known how the code makes its net's inputs out of photographs."""
    if found.inputs:
        return Check("inputs", False, found.inputs)
    nearly = "" if found.apart <= finding.EXACT else f", to {found.apart:.1f} of 255 grey levels"
    views = "; ".join(found.views[:4]) + ("; ..." if len(found.views) > 4 else "")
    return Check("inputs", True, f"{submission.counted(len(found.views), 'view')} of each photograph: {views}{nearly}")


def check_answers(agreed: agreement.Agreement, found: Found, everything: Sequence[Copy]) -> Check:
    """Whether the graph that was weighed gives the code's own answers."""
    differing = int(agreed.differs.sum())
    allowed = agreement.may_differ(agreed, found.apart <= finding.EXACT)
    of = f"the graph that was weighed gives {len(everything) - differing:,} of the code's {len(everything):,} answers"
    if differing > allowed:
        return Check("answers", False, f"{of}; another net answers than was weighed")
    return Check("answers", True, of)


def check_reproduction(
    agreed: agreement.Agreement, predicted: Tensor, claimed: Mapping[str, int], everything: Sequence[Copy]
) -> Check:
    """Whether the code's predictions, and the graph's, are the packaged ones, row by row, but for ties."""
    packaged = torch.tensor([claimed[copy.record.id] for copy in everything])
    tied = ~agreement.others(agreed.scores, packaged)
    other = [
        f"{copy.record.id}: {mine}, packaged {theirs}"
        for copy, mine, theirs, tie in zip(
            everything, predicted.tolist(), packaged.tolist(), tied.tolist(), strict=True
        )
        if not copy.moved and mine != theirs and not tie
    ]
    if other:
        named = submission.first_few(sorted(other), "differs", "differ")
        return Check("reproduction", False, f"of {len(claimed):,} rows, {named}")
    return Check("reproduction", True, f"all {len(claimed):,} rows equal the packaged submission")


def check_moved(
    agreed: agreement.Agreement, predicted: Tensor, claimed: Mapping[str, int], everything: Sequence[Copy]
) -> Check:
    """Whether the answers hold for photographs moved by a pixel and encoded anew."""
    moved = torch.tensor([copy.moved for copy in everything])
    packaged = torch.tensor([claimed[copy.record.id] for copy in everything])[moved]
    same = min(int((answers[moved] == packaged).sum()) for answers in (predicted, agreed.scores.argmax(1)))
    said = f"{same:,} of {len(packaged):,} answers hold for photographs moved by a pixel and encoded anew"
    if not agreement.held(same, len(packaged)):
        return Check("moved", False, f"{said}, fewer than the {agreement.HELD:.0%} that any net keeps")
    return Check("moved", True, said)
