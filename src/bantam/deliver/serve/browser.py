"""The student for the browser: as an ONNX graph, and the files of ONNX Runtime Web that run it there."""

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from bantam.deliver.predict import Shipped

RUNTIME = Path(__file__).parent / "static" / "ort"
"""Where `make web` puts the runtime; it is 14 MB and not part of the repository."""

RUNTIME_FILES = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")


def runtime_is_here() -> bool:
    """Whether `make web` has been run."""
    return all((RUNTIME / name).is_file() for name in RUNTIME_FILES)


class Normalised(nn.Module):
    """A net with its normalisation in front: takes RGB in 0..1, [N, 3, S, S]."""

    mean: Tensor
    std: Tensor

    def __init__(self, net: nn.Module, shipped: Shipped) -> None:
        super().__init__()
        self.net = net
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(shipped.normalisation, name)).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.net((images - self.mean) / self.std)  # [N, K]


def as_onnx(net: nn.Module, shipped: Shipped) -> bytes:
    """An ONNX graph: `images` float32 [N, 3, S, S], RGB in 0..1, to `logits` [N, K], for any N."""
    size = shipped.student.size
    program = torch.onnx.export(
        Normalised(copy.deepcopy(net), shipped).eval(),
        (torch.rand(2, 3, size, size),),
        dynamo=True,
        opset_version=18,
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("n", min=1, max=4096)},),
        verbose=False,
    )
    assert program is not None
    return program.model_proto.SerializeToString()
