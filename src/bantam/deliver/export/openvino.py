"""A student as OpenVINO's own format, a graph in XML beside its weights; the package openvino is an extra.

The metadata of the ONNX that it is made of stands in the graph's rt_info, under "framework". OpenVINO computes in
bfloat16 by itself where a processor has it, which moves logits by hundredths and halves the time. The parity gate asks
for float32, and so does whoever wants the same answers: the setting EXECUTION_MODE_HINT is ACCURACY then.
"""

import importlib.util
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bantam.deliver.export.forms import EXACT, Material, Target, float_onnx
from bantam.errors import BadData

VERSION = "2026.4.1"
"""The version that was tried; pyproject.toml pins the same."""

FLOAT32 = {"EXECUTION_MODE_HINT": "ACCURACY", "PERFORMANCE_HINT": "LATENCY"}
"""With what a graph is compiled to compute in float32."""


def require_openvino() -> None:
    """Raises BadData where the package is not installed."""
    if importlib.util.find_spec("openvino") is None:
        raise BadData(
            "--to openvino needs the package openvino, which is not installed: "
            f"`pip install openvino=={VERSION}` (180 MB), or export to onnx, which OpenVINO reads as well"
        )


def pair(encoded: bytes) -> tuple[bytes, bytes]:
    """The .xml and the .bin file of an ONNX file, in float32. Raises BadData without the package."""
    require_openvino()
    openvino = import_module("openvino")
    with tempfile.TemporaryDirectory() as folder:
        graph, weights = Path(folder) / "student.xml", Path(folder) / "student.bin"
        openvino.serialize(openvino.Core().read_model(encoded), graph, weights)
        return graph.read_bytes(), weights.read_bytes()


class Runtime:
    """The pair in OpenVINO, in float32: images float32 [N, 3, S, S] in 0..1, any N, to logits float32 [N, K]."""

    def __init__(self, graph: bytes, weights: bytes, threads: int = 0) -> None:
        """`threads` is how many it uses, 0 for as many as it likes."""
        core = import_module("openvino").Core()
        model = core.read_model(graph, weights)
        self.compiled: Any = core.compile_model(model, "CPU", {**FLOAT32, "INFERENCE_NUM_THREADS": threads})

    def __call__(self, images: Tensor) -> Tensor:
        # Copied, because the next answer is written into the same memory.
        return torch.from_numpy(self.compiled(images.contiguous().numpy())[0].copy())


def encoded(material: Material) -> tuple[bytes, bytes]:
    """The pair of a student."""
    return pair(float_onnx(material.net, material.shipped).SerializeToString())


OPENVINO = Target(encoded, Runtime, EXACT, ".xml", require=require_openvino, beside=(".bin",))
