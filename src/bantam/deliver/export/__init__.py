"""A shipped student as a file for other runtimes: the table TARGETS of all forms.

A new form is a file with a `Target` (`bantam.deliver.export.forms`) and a line in the table: CONTRIBUTING.md shows it.
"""

from typing import TYPE_CHECKING

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
