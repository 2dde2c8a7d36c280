"""What is checked of a package without running anything of it: its files, its weights, its code, its submission."""

import ast
import json
import re
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor

from bantam.data.folder import Folder
from bantam.deliver import submission
from bantam.deliver.package.write import (
    NOTEBOOK,
    SCRIPT,
    SUBMISSION,
    WEIGHTS,
)
from bantam.deliver.verify import archive, graph
from bantam.errors import BadPackage, BadSubmission

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""What BatchNorm keeps in a state_dict beside its parameters."""

WEIGHTS_FILES = 10_000
"""Most files in the zip that torch writes: one for each tensor, and a few more."""

OVERHEAD, OVERHEAD_A_TENSOR = 16_384, 640
"""Bytes of that zip beside its numbers, in all and for each tensor: names, shapes, alignment."""

NOTES = ("readme", "license", "licence", "requirements")
"""How the names of further files begin that may lie in a package; the code does not see them."""

NOTES_SIZE = 16_384
DEBRIS = (".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX")

CODE_PACKED = 24_576
"""Most bytes of the code, packed. Bantam's own packages take 5,000; 24 kB is 6,000 numbers."""

LONGEST_TEXT, ALL_TEXTS = 1_000, 16_384
"""Most letters of a text in the code that is no comment, and of all of them."""

LONGEST_WORD = 120
"""Most letters and digits without a space in the code, comments included, as encoded bytes have none."""

MOST_LITERALS, MOST_DIGITS, ALL_LITERALS = 100, 24, 2_000
"""Most numbers in one tuple, list, set or dict of the code, digits of a number, and numbers in all."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: `passed` is None where it could not be."""

    name: str
    passed: bool | None
    detail: str


def check_files(files: Mapping[str, bytes]) -> Check:
    """Whether everything is there that a package needs, and nothing that could hold more than it shows."""
    missing = [name for name in (WEIGHTS, SUBMISSION) if name not in files]
    if SCRIPT not in files and NOTEBOOK not in files:
        missing.insert(0, f"{SCRIPT} or {NOTEBOOK}")
    if missing:
        return Check("files", False, f"the package lacks {', '.join(missing)} at its top")
    extra = [name for name, data in files.items() if not is_expected(name, data)]
    if extra:
        return Check(
            "files",
            False,
            f"the package holds {submission.first_few(extra, 'further file')}: what answers is {SCRIPT} or {NOTEBOOK} "
            f"with {WEIGHTS} alone; beside them only a short README, LICENSE or requirements.txt may lie",
        )
    return Check("files", True, ", ".join(sorted(files))[:200])


def is_expected(name: str, data: bytes) -> bool:
    """Whether a file belongs to a package, or is a note or a system's debris, which the code is not shown."""
    if name in (SCRIPT, NOTEBOOK, WEIGHTS, SUBMISSION):
        return True
    parts = name.split("/")
    debris = parts[0] in DEBRIS or parts[-1] in DEBRIS
    note = len(parts) == 1 and name.lower().startswith(NOTES)
    return (debris or note) and len(data) <= NOTES_SIZE


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
    if wrong := wrong_in(state, len(data)):
        return [Check("weights", False, f"{WEIGHTS} {wrong}")]
    count = counted(state)
    over = f"{count - budget:,} over the budget of {budget:,}"
    within = Check(
        "parameters",
        0 < count <= budget,
        f"{count:,} in the file beside BatchNorm's statistics, " + (over if count > budget else f"within {budget:,}"),
    )
    return [Check("weights", True, f"a plain state_dict of {len(state)} tensors, loaded as weights only"), within]


def storages(state: Mapping[str, Tensor]) -> dict[int, tuple[int, int]]:
    """The bytes of every storage in a state_dict, and of one number in it, by the storage."""
    found: dict[int, tuple[int, int]] = {}
    for value in state.values():
        storage = value.untyped_storage()
        found[storage._cdata] = (storage.nbytes(), value.element_size())
    return found


def wrong_in(state: Mapping[str, Tensor], size: int) -> str:
    """What is wrong with a state_dict out of a file of `size` bytes, or nothing."""
    held = sum(size for size, _ in storages(state).values())
    if held > size:
        return f"claims {held:,} bytes of weights and has {size:,}"
    more = size - held - OVERHEAD - OVERHEAD_A_TENSOR * len(state)
    if more > 0:
        return f"has {more:,} bytes more than its {len(state)} tensors need"
    for name, value in state.items():
        own = name.rpartition(".")[2]
        if own in STATISTICS and is_statistic(name, state):
            expected = torch.int64 if own == "num_batches_tracked" else torch.float32
            if value.dtype != expected:
                return f"has statistics that are not {expected}: {name[:60]!r} is {value.dtype}"
    return ""


def counted(state: Mapping[str, Tensor]) -> int:
    """How many numbers of at most four bytes are in the file, each stored one once, without BatchNorms' statistics."""
    weights = {name: value for name, value in state.items() if not is_statistic(name, state)}
    statistics = storages({name: value for name, value in state.items() if name not in weights})
    total = 0
    for storage, (size, a_number) in storages(weights).items():
        total += max(size // a_number, -(-size // graph.BYTES_A_NUMBER))
        statistics.pop(storage, None)
    named = sum(value.numel() for name, value in state.items() if name not in weights)
    stored = sum(size // a_number for size, a_number in statistics.values())
    return max(total, sum(value.numel() for value in weights.values())) + max(0, stored - named)


def is_statistic(name: str, state: Mapping[str, Tensor]) -> bool:
    """Whether a tensor is what BatchNorm keeps beside its weight and bias, by name and by shape."""
    path, _, own = name.rpartition(".")
    beside = [state.get(f"{path}.{field}") for field in ("weight", "bias", "running_mean", "running_var")]
    shapes = {None if one is None else tuple(one.shape) for one in beside}
    batchnorm = len(shapes) == 1 and None not in shapes and beside[0] is not None and beside[0].ndim == 1
    if own not in STATISTICS or not batchnorm:
        return False
    return own != "num_batches_tracked" or state[name].numel() == 1


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


def code_of(files: Mapping[str, bytes]) -> str:
    """The package's code: the script, or the code cells of the notebook, without IPython's own commands.

    Raises BadPackage where it is no notebook, or no text in UTF-8.
    """
    try:
        if SCRIPT in files:
            return files[SCRIPT].decode("utf-8-sig")
        cells = json.loads(files[NOTEBOOK])["cells"]
        lines = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code").split("\n")
        return "\n".join("" if line.startswith(("%", "!")) else line for line in lines)
    except UnicodeDecodeError as error:
        raise BadPackage(f"{SCRIPT} is no text in UTF-8; save it as that") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadPackage(f"{NOTEBOOK} is no notebook: {' '.join(str(error).split())[:120]}") from error


def check_code(files: Mapping[str, bytes]) -> Check:
    """Whether the code is code alone: no text, number or table in it is large enough to hold weights or answers."""
    try:
        code = code_of(files)
        if len(packed := zlib.compress(code.encode("utf-8", "surrogatepass"), 9)) > CODE_PACKED:
            raise BadPackage(
                f"the code takes {len(packed):,} bytes packed, more than the {CODE_PACKED:,} of any code alone"
            )
        if encoded := re.search(rf"[A-Za-z0-9+/=_]{{{LONGEST_WORD + 1},}}", code):
            word = encoded.group()
            raise BadPackage(f"the code holds {len(word):,} letters without a space, as bytes are: {word[:20]}...")
        literals = check_literals(ast.parse(code))
    except (BadPackage, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return Check("code", False, " ".join(str(error).split())[:200])
    return Check("code", True, f"{len(code.splitlines()):,} lines, {literals:,} numbers, no table and no encoded text")


def check_literals(tree: ast.AST) -> int:
    """The numbers in the code. Raises BadPackage where its literals are too large or too many."""
    # A text that stands alone, as docstrings do, is a comment.
    comments = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = numbers = 0
    for node in ast.walk(tree):
        inner = [*ast.iter_child_nodes(node)] if isinstance(node, ast.Tuple | ast.List | ast.Set | ast.Dict) else []
        if sum(isinstance(one, ast.Constant | ast.UnaryOp | ast.Tuple | ast.List) for one in inner) > MOST_LITERALS:
            raise BadPackage(f"the code holds a table of {len(inner):,} values in line {getattr(node, 'lineno', 0)}")
        if not isinstance(node, ast.Constant) or id(node) in comments:
            continue
        value = node.value
        if isinstance(value, str | bytes):
            texts += len(value)
            if len(value) > LONGEST_TEXT:
                raise BadPackage(f"the code holds a text of {len(value):,} letters in line {node.lineno}")
        elif isinstance(value, int | float | complex) and not isinstance(value, bool):
            numbers += 1
            if isinstance(value, int) and abs(value) >= 10**MOST_DIGITS:
                raise BadPackage(f"the code holds a number of more than {MOST_DIGITS} digits in line {node.lineno}")
    if texts > ALL_TEXTS:
        raise BadPackage(f"the code holds {texts:,} letters of text, more than {ALL_TEXTS:,}")
    if numbers > ALL_LITERALS:
        raise BadPackage(f"the code holds {numbers:,} numbers, more than {ALL_LITERALS:,}")
    return numbers
