"""The written code builds the same net as the one it was written from: names, weights, counts and answers."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from bantam.compress.channels import bundles, prune_to
from bantam.deliver.package.net_code import net_code
from bantam.errors import BadPackage
from bantam.nets import budget
from bantam.nets.output import StagedNet
from bantam.nets.students import STUDENTS, describe
from bantam.nets.students.mobilenet_v1 import build


def built(code: str) -> nn.Module:
    names = {"torch": torch, "Tensor": Tensor, "nn": nn, "functional": functional}
    exec(code, names)
    return names["get_student_model"]().eval()


def randomised(net: nn.Module) -> nn.Module:
    """`net` with BatchNorm statistics as after training, not 0 and 1."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
    return net


@pytest.mark.parametrize("family", STUDENTS)
def test_every_family_is_built_again_by_its_code(family: str) -> None:
    least = 60_000 if family == "sample" else 12_000
    student = describe(family, least, 7, 32)
    net = student.shipped_form(randomised(student.build()))
    code = net_code(net, "Return the student.")
    again = built(code)

    assert list(again.state_dict()) == list(net.state_dict())
    again.load_state_dict(net.state_dict(), strict=True)
    assert budget.weigh(again, 32) == budget.weigh(net, 32)
    images = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        assert torch.allclose(again(images), net(images), atol=1e-5, rtol=0)
    assert "bantam" not in code
    assert max(map(len, code.splitlines())) <= 120


@pytest.mark.parametrize("family", STUDENTS)
def test_the_net_is_written_the_same_for_every_initialisation(family: str) -> None:
    student = describe(family, 60_000, 11, 64)
    assert net_code(student.shipped_net(), "x") == net_code(student.shipped_net(), "x")


def test_folded_convolutions_are_written_by_the_course_s_own_words() -> None:
    code = net_code(describe("mobilenet_v1", 60_000, 11, 64).shipped_net(), "Return the student.")
    assert "conv(31, 31, groups=31), conv(31, 46, kernel=1)" in code
    assert "head=nn.Linear(123, 11)" in code


class Scaled(nn.Module):
    """Holds a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, maps: Tensor) -> Tensor:
        return maps * self.scale


class Secret(nn.Module):
    """Uses an attribute that is neither a layer nor plain."""

    def __init__(self) -> None:
        super().__init__()
        self.function = torch.tanh

    def forward(self, maps: Tensor) -> Tensor:
        return self.function(maps)


@pytest.mark.parametrize(("layer", "reason"), [(Scaled(), "weights of its own"), (Secret(), "self.function")])
def test_what_cannot_be_written_is_refused_by_name(layer: nn.Module, reason: str) -> None:
    net = StagedNet([nn.Sequential(nn.Conv2d(3, 4, 1), layer)], 4, 2)
    with pytest.raises(BadPackage, match=f"{type(layer).__name__}.*{reason}"):
        net_code(net, "x")


def test_an_unfolded_net_is_written_with_its_batchnorm() -> None:
    shape = {"stem": 4, "stages": [[4], [6]], "strides": [2, 1, 2]}
    net = randomised(build(shape, 3)).eval()
    again = built(net_code(net, "x"))
    again.load_state_dict(net.state_dict(), strict=True)
    images = torch.randn(2, 3, 16, 16)
    assert torch.allclose(again(images), net(images), atol=1e-5, rtol=0)


@pytest.mark.parametrize("family", ["largekernel", "ghostnet"])
def test_a_pruned_net_is_built_again_by_its_code(family: str) -> None:
    student = describe(family, 12_000, 7, 32)
    net = randomised(student.build()).eval()
    pruned = prune_to(student, net, bundles(student, net, "magnitude"), 6_000)
    shipped = pruned.student.shipped_form(pruned.net)
    again = built(net_code(shipped, "Return the student."))
    again.load_state_dict(shipped.state_dict(), strict=True)
    assert budget.weigh(again, 32).counted <= 6_000
    images = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(again(images), shipped(images), atol=1e-5, rtol=1e-5)
