"""The graph that leaves computes what the net answers, or it does not leave."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from bantam.data import cache
from bantam.data.splits import IMAGENET
from bantam.deliver.export.forms import Material, export
from bantam.errors import ParityFailed
from bantam.nets.output import Output, StagedNet
from bantam.nets.portable import Portable
from bantam.nets.students import describe
from bantam.runs.finished import open_run
from bantam.runs.shipped import Shipped


class Otherwise(StagedNet):
    """Shows whoever writes down its graph other logits than it answers with."""

    def observe(self, images: Tensor) -> Output:
        output = super().observe(images)
        traced = torch.jit.is_tracing() or torch.compiler.is_compiling()
        return output._replace(logits=output.logits.flip(1)) if traced else output


@pytest.mark.parametrize(("to", "name"), [("onnx", "student.onnx"), ("torchscript", "student.pt")])
def test_a_net_that_traces_otherwise_than_it_answers_does_not_leave(
    to: str, name: str, photographs: Path, tmp_path: Path
):
    torch.manual_seed(0)
    described = describe("mobilenet_v1", 5_000, 3, 32)
    net = described.shipped_form(described.build().eval())
    material = Material(
        open_run(tmp_path), net, Shipped(described, IMAGENET, ("0", "1", "2")), cache.open_splits(photographs, 32)
    )
    if to == "torchscript":  # that an honest net leaves as ONNX is tested where exports are
        assert export(material, to, tmp_path / "honest.pt").agreement == 1
    net.__class__ = Otherwise
    with pytest.raises(ParityFailed, match="does not compute what PyTorch does"):
        export(material, to, tmp_path / name)
    assert not (tmp_path / name).exists()


def test_the_graph_normalises_as_training_does():
    seen: list[Tensor] = []

    class Seeing(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(images)
            return images.mean((2, 3))

    mean, std = (0.1, 0.5, 0.9), (0.2, 0.5, 1.5)
    images = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    Portable(Seeing(), mean, std)(images)
    expected = (images.double() - torch.tensor(mean).double()[:, None, None]) / torch.tensor(std).double()[
        :, None, None
    ]
    torch.testing.assert_close(seen[0].double(), expected, rtol=1e-6, atol=1e-6)
