"""The ONNX graph of a run's student, where student.json records one: the same net, which answers without torch."""

import hashlib
from pathlib import Path

from bantam.errors import BadRunFile
from bantam.runs import runfolder

GRAPH = "student.onnx"
RECORD = "onnx"
"""The key of student.json that holds the SHA-256 of GRAPH. A graph that it does not name is nobody's but the user's."""


def graph(folder: Path) -> bytes | None:
    """The bytes of the recorded graph of the student in `folder`; None where none is recorded, or it is not there.

    Raises BadData where there is no student, and BadRunFile for a damaged student.json or another graph than recorded.
    """
    recorded, path = runfolder.student(folder).get(RECORD), folder / GRAPH
    if recorded is None or not path.exists():
        return None
    advice = "put it back from a copy, or delete it: the weights answer then, in PyTorch"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadRunFile(f"cannot read {path}: {error.strerror or error}; {advice}") from error
    if hashlib.sha256(data).hexdigest() != recorded:
        raise BadRunFile(f"{path} is not the file that was written here, its SHA-256 is another; {advice}")
    return data
