"""A student as an ExecuTorch program, the form for phones and boards; the package executorch is an extra.

A .pte file plans its memory when it is made, so the largest batch is fixed in it: BATCH. Its second method "metadata"
returns a JSON text; constant methods are how ExecuTorch's own examples carry what a caller has to know.
"""

import importlib.util
import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bantam.errors import BadData
from bantam.nets.portable import INPUT, Portable, quiet

VERSION = "1.5.1"
"""The version that was tried, with torch 2.14.1; pyproject.toml pins the same."""

BATCH = 16
"""Most images that a program takes at once. Its memory is planned for as many."""

INFERENCE, METADATA = "forward", "metadata"


def require_executorch() -> None:
    """Raises BadData where the package is not installed."""
    if importlib.util.find_spec("executorch") is None:
        raise BadData(
            f"--to executorch needs the package executorch, which is not installed; "
            f"`pip install executorch=={VERSION}` (340 MB), or export to onnx"
        )


def program(portable: Portable, size: int, about: dict[str, str]) -> bytes:
    """The .pte file of `portable` for XNNPACK, with 1 to BATCH images of `size` x `size`; `about` is its metadata."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import ExecutorchBackendConfig, to_edge_transform_and_lower
    from executorch.exir.passes.sym_shape_eval_pass import ConstraintBasedSymShapeEvalPass

    with quiet():
        exported = torch.export.export(
            portable.eval(),
            (torch.zeros(BATCH, 3, size, size),),
            dynamic_shapes={INPUT: {0: torch.export.Dim("batch", min=1, max=BATCH)}},
        )
        # ExecuTorch's lowering of a split takes the example's batch for the only one.
        sliced = exported.run_decompositions({torch.ops.aten.split.Tensor: in_slices})
        lowered = to_edge_transform_and_lower(
            sliced, partitioner=[XnnpackPartitioner()], constant_methods={METADATA: json.dumps(about)}
        )
        # By the range of the batch, not by the example's.
        planned = ExecutorchBackendConfig(sym_shape_eval_pass=ConstraintBasedSymShapeEvalPass())
        return bytes(lowered.to_executorch(planned).buffer)


def in_slices(maps: Tensor, each: int, dim: int = 0) -> list[Tensor]:
    """`maps.split(each, dim)`, every piece cut out by itself."""
    length = maps.shape[dim]
    return [torch.ops.aten.slice.Tensor(maps, dim, start, start + each) for start in range(0, length, each)]


def answer(encoded: bytes) -> Callable[[Tensor], Tensor]:
    """What the program says, in ExecuTorch's own runtime: images float32 [N, 3, S, S] in 0..1, any N, to logits [N, K]."""
    method = loaded(encoded, INFERENCE)

    def look(images: Tensor) -> Tensor:
        # Copied, because the program writes every answer into the same memory.
        return torch.cat([method.execute([few.contiguous()])[0].clone() for few in images.split(BATCH)])

    return look


def metadata_of(encoded: bytes) -> dict[str, str]:
    """What `program` was told as `about`."""
    return json.loads(loaded(encoded, METADATA).execute([])[0])


def loaded(encoded: bytes, method: str) -> Any:
    """A method of a program."""
    from executorch.runtime import Runtime

    return Runtime.get().load_program(encoded).load_method(method)
