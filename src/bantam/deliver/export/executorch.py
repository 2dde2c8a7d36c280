"""A student as an ExecuTorch program, the form for phones and boards; the package executorch is an extra.

A program takes one image at a time: its memory is planned when it is made, and a device asks about one. With a dynamic
batch, ExecuTorch 1.5.1 fixed the batch of every net that splits its channels to the example's, without a word.
"""

import importlib.util
import json
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from bantam.deliver.export.forms import EXACT, Material, Target, portable, told_as_it_is
from bantam.errors import BadData
from bantam.nets.portable import Portable, quiet

VERSION = "1.5.1"
"""The version that was tried, with torch 2.14.1; pyproject.toml pins the same."""

INFERENCE, METADATA = "forward", "metadata"
"""The methods of a program: logits [1, K] of an image [1, 3, size, size] in 0..1, and a JSON text."""


def require_executorch() -> None:
    """Raises BadData where the package is not installed."""
    if importlib.util.find_spec("executorch") is None:
        raise BadData(
            "--to executorch needs the package executorch, which is not installed: "
            f"`pip install executorch=={VERSION}` (340 MB), or export to onnx"
        )


def program(net: Portable, size: int, told: dict[str, str]) -> bytes:
    """The .pte file of `net`, for XNNPACK; `told` is what its method METADATA returns. Raises BadData."""
    require_executorch()

    # By name, because type checkers look for the package as well.
    partition = import_module("executorch.backends.xnnpack.partition.xnnpack_partitioner")
    lower = import_module("executorch.exir").to_edge_transform_and_lower

    with quiet():
        exported = torch.export.export(net.eval(), (torch.zeros(1, 3, size, size),))
        methods = {METADATA: json.dumps(told)}
        lowered = lower(exported, partitioner=[partition.XnnpackPartitioner()], constant_methods=methods)
        return bytes(lowered.to_executorch().buffer)


class Runtime:
    """A program in ExecuTorch's own runtime: images float32 [N, 3, S, S] in 0..1, any N, to logits float32 [N, K]."""

    def __init__(self, encoded: bytes) -> None:
        self.loaded: Any = import_module("executorch.runtime").Runtime.get().load_program(encoded)
        self.inference = self.loaded.load_method(INFERENCE)

    def __call__(self, images: Tensor) -> Tensor:
        # Copied, because the program writes every answer into the same memory.
        return torch.cat([self.inference.execute([image.contiguous()])[0].clone() for image in images.split(1)])

    def metadata(self) -> dict[str, str]:
        """What `program` was told."""
        return json.loads(self.loaded.load_method(METADATA).execute([])[0])


def encoded(material: Material) -> bytes:
    """The program of a student; the metadata is its second method."""
    shipped = material.shipped
    return program(portable(material.net, shipped), shipped.student.size, told_as_it_is(material.net, shipped))


EXECUTORCH = Target(encoded, Runtime, EXACT, ".pte", require=require_executorch)
