"""The student for the browser: as an ONNX graph, and the files of ONNX Runtime Web that run it there."""

from pathlib import Path

from bantam.nets.early_exit import without_exits
from bantam.nets.output import StagedNet
from bantam.runs.shipped import Shipped

RUNTIME = Path(__file__).parent / "static" / "ort"
"""Where `make web` puts the runtime; it is 14 MB and not part of the repository."""

RUNTIME_FILES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")


def runtime_is_here() -> bool:
    """Whether `make web` has been run."""
    return all((RUNTIME / name).is_file() for name in RUNTIME_FILES)


def as_onnx(net: StagedNet, shipped: Shipped) -> bytes:
    """An ONNX graph: `images` float32 [N, 3, S, S], RGB in 0..1, to `logits` [N, K], for any N.

    It is the plain one: in the browser's runtime no kernel gains by padded channels, and their zeros cost a fifth.
    """
    from bantam.deliver.export.forms import plain_onnx  # Slow to import, and not every page needs it.

    return plain_onnx(without_exits(net), shipped).SerializeToString()
