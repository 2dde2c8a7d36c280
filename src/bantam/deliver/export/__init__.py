"""A shipped student as a file for other runtimes: the table TARGETS of all forms.

A new form is a file with a `Target` (`bantam.deliver.export.forms`) and a line in the table: CONTRIBUTING.md shows it.
"""

import difflib
from typing import TYPE_CHECKING

from bantam.errors import BadData
from bantam.tables import Table

if TYPE_CHECKING:
    from bantam.deliver.export.forms import Target

TARGETS: "Table[Target]" = Table(
    "bantam.deliver.export",
    {
        "onnx": "forms:ONNX",
        "onnx-int8": "forms:ONNX_INT8",
        "torchscript": "forms:TORCHSCRIPT",
        "executorch": "executorch:EXECUTORCH",
        "openvino": "openvino:OPENVINO",
        "c": "c:C",
    },
)

EXTRAS = ("executorch", "openvino")
"""Those that need a package of their own."""

INSTEAD = {
    "executorch": ("tflite", "litert", "lite", "pte", "mobile", "ptl", "qnn"),
    "onnx": ("coreml", "mlmodel", "mlpackage", "tensorrt", "trt", "engine", "ort", "tensorflow", "tf", "savedmodel")
    + ("saved_model", "keras", "h5", "tfjs", "ncnn", "mnn", "web", "wasm", "js"),
    "onnx-int8": ("int8", "quantized", "uint8", "tflite-int8", "qdq"),
    "torchscript": ("torch", "pytorch", "jit", "pt", "pth", "script", "libtorch"),
    "openvino": ("ir", "xml", "vino", "intel"),
    "c": ("c99", "cc", "cpp", "c++", "arduino", "cmsis", "cmsis-nn", "mcu", "tflm", "tflite-micro", "stm32", "esp32")
    + ("rp2040", "pico", "eon", "firmware", "header"),
}
"""What people ask for by other names, under the form that does the same work or that those tools read."""


def require_form(to: str) -> None:
    """Raise BadData where there is no form of this name, with the one that was meant."""
    if to in TARGETS:
        return
    wanted = to.lower().lstrip(".")
    close = difflib.get_close_matches(wanted, TARGETS, n=1, cutoff=0.6)
    near = next((form for form, names in INSTEAD.items() if wanted in names), close[0] if close else "")
    hint = f' "{near}" is the nearest to it.' if near else ""
    raise BadData(f'cannot export to "{to}".{hint} There are {", ".join(TARGETS)}')
