"""The student for the browser: as an ONNX graph, and the files of ONNX Runtime Web that run it there.

`python -m bantam.deliver.serve.browser RUN` writes the graph to stdout.
"""

import contextlib
import subprocess
import sys
from pathlib import Path

from bantam.errors import BantamError

RUNTIME = Path(__file__).parent / "static" / "ort"
"""Where `make web` puts the runtime; it is 14 MB and not part of the repository."""

RUNTIME_FILES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")


def runtime_is_here() -> bool:
    """Whether `make web` has been run."""
    return all((RUNTIME / name).is_file() for name in RUNTIME_FILES)


def exported(run: Path) -> bytes:
    """The graph of the finished `run`, made by a process of its own. Raises BantamError where it cannot be made.

    torch's exporter traces every net that is called in its process meanwhile, and photographs shall not wait for it.
    """
    made = subprocess.run([sys.executable, "-P", "-m", __name__, str(run)], capture_output=True)
    if made.returncode or not made.stdout:
        said = made.stderr.decode(errors="replace").split("\n")
        raise BantamError(next((line for line in reversed(said) if line.strip()), "its process gave no graph"))
    return made.stdout


def as_onnx(run: Path) -> bytes:
    """An ONNX graph: `images` float32 [N, 3, S, S], RGB in 0..1, to `logits` [N, K], for any N.

    It is the plain one: in the browser's runtime no kernel gains by padded channels, and their zeros cost a fifth.
    """
    from bantam.deliver.export.forms import plain_onnx
    from bantam.nets.early_exit import without_exits
    from bantam.runs.finished import open_run

    net, shipped = open_run(run).at_switch()
    return plain_onnx(without_exits(net), shipped).SerializeToString()


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):  # what libraries print is no graph
        graph = as_onnx(Path(sys.argv[1]))
    sys.stdout.buffer.write(graph)
