"""An ONNX graph in ONNX Runtime. Nothing here needs torch."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


def onnx_session(encoded: bytes) -> "InferenceSession":
    """The graph in ONNX Runtime, on one thread of the CPU."""
    import onnxruntime  # Slow to import, and whoever answers in PyTorch does without.

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(encoded, options, providers=["CPUExecutionProvider"])
