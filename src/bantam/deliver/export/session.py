"""An ONNX graph in ONNX Runtime. Nothing here needs torch."""

import onnxruntime


def onnx_session(encoded: bytes) -> onnxruntime.InferenceSession:
    """The graph in ONNX Runtime, on one thread of the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(encoded, options, providers=["CPUExecutionProvider"])
