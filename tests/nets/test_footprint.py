import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from bantam.nets.blocks import Residual, SqueezeExcite, channel_shuffle
from bantam.nets.footprint import disk_bytes, footprint
from bantam.nets.students import STUDENTS, describe
from bantam.nets.teachers import build_teacher

PIXELS = 8 * 8
IMAGE = 4 * 3 * PIXELS  # bytes


def maps(channels: int, pixels: int = PIXELS) -> int:
    """Bytes of float32 maps."""
    return 4 * channels * pixels


class Functional(nn.Module):
    """What a count by modules would miss: a convolution and a product without a module of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(5, 3, 3, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(images, self.weight, stride=2, padding=1).flatten(2).mean(2) @ torch.zeros(5, 7)


def twice(layer: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 3, 1), layer, layer)


@pytest.mark.parametrize(
    ("net", "macs"),
    [
        (nn.Conv2d(3, 5, 3, padding=1), PIXELS * 3 * 5 * 9),
        (nn.Conv2d(3, 6, 5, stride=2, padding=2, groups=3), 16 * 6 * 1 * 25),
        (nn.Sequential(nn.Flatten(), nn.Linear(3 * PIXELS, 7)), 3 * PIXELS * 7),
        (nn.Sequential(nn.Conv2d(3, 4, 1), SqueezeExcite(4, 2)), PIXELS * 3 * 4 + 4 * 2 + 2 * 4),
        (Functional(), 16 * 3 * 5 * 9 + 5 * 7),
        (twice(nn.Conv2d(3, 3, 3, padding=1)), PIXELS * (9 + 2 * 81)),
        (nn.Sequential(nn.BatchNorm2d(3), nn.ReLU(), nn.AvgPool2d(2)), 0),
    ],
    ids=["convolution", "grouped", "linear", "squeeze-excite", "functional", "shared", "elementwise"],
)
def test_macs_are_those_of_the_formula(net: nn.Module, macs: int):
    assert footprint(net, 8).macs == macs


@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("name", STUDENTS)
def test_macs_of_every_family_are_half_of_the_flops_that_torch_counts(name: str, size: int):
    net = describe(name, 60_000, 11, size).shipped_net()
    assert footprint(net, size).macs == flops(net, size) // 2


@pytest.mark.parametrize("name", STUDENTS)
def test_macs_of_every_family_are_those_of_its_layers(name: str):
    net = describe(name, 60_000, 11, 64).shipped_net()
    counted, total = footprint(net, 64).macs, 0

    def add(module: nn.Module, _inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal total
        weight = module.weight
        assert isinstance(weight, torch.Tensor)
        total += output.numel() * weight.numel() // len(weight)  # each output is a product with one row of weights

    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(add)
    with torch.no_grad():
        net(torch.zeros(1, 3, 64, 64))
    assert counted == total > 0


def test_attention_is_counted_although_the_fused_kernels_have_no_formula():
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.layer = nn.Conv2d(3, 16, 2, 2), layer

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.layer(self.patches(images).flatten(2).transpose(1, 2))

    # 16 tokens: patches, query-key-value, attention twice, its projection, the two layers of the perceptron.
    expected = 16 * 12 * 16 + 16 * 16 * 48 + 2 * 16 * 16 * 16 + 16 * 16 * 16 + 2 * 16 * 16 * 32
    fast = torch.backends.mha.get_fastpath_enabled()
    assert footprint(Net().requires_grad_(False), 8).macs == expected
    assert torch.backends.mha.get_fastpath_enabled() is fast


def flops(net: nn.Module, size: int) -> int:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, 3, size, size))
    return counter.get_total_flops()


def conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1)


class Gate(nn.Module):
    """Half of the maps, after an activation, times the other half: views of one memory."""

    def forward(self, both: torch.Tensor) -> torch.Tensor:
        gate, value = both.chunk(2, 1)
        return functional.hardswish(gate) * value


class Dense(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = conv(4, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return torch.cat((inputs, self.layer(inputs)), 1)


class Shuffle(nn.Module):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return channel_shuffle(inputs, 2)


class Hoarder(nn.Module):
    """Keeps a result that nobody reads: an engine that plans its memory would not."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([conv(3, 16), conv(16, 2), conv(2, 2), conv(2, 2)])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        seen = [images]
        for layer in self.layers:
            seen.append(layer(seen[-1]))
        return seen[-1]


@pytest.mark.parametrize(
    ("net", "peak"),
    [
        (conv(3, 5), IMAGE + maps(5)),
        (nn.Sequential(conv(3, 4), conv(4, 2)), IMAGE + maps(4)),
        (nn.Sequential(conv(3, 4), conv(4, 8), conv(8, 2)), maps(4) + maps(8)),
        (nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 1)), IMAGE + maps(8)),
        (nn.Sequential(conv(3, 8), nn.ReLU(inplace=True), conv(8, 1)), IMAGE + maps(8)),
        (nn.Sequential(conv(3, 8), nn.Hardswish(), conv(8, 1)), IMAGE + maps(8)),
        (nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), conv(8, 1)), IMAGE + maps(8)),
        # A residual of 4 channels, kept while 16 inner ones become 16 others and then 4.
        (
            nn.Sequential(conv(3, 4), Residual(nn.Sequential(conv(4, 16), conv(16, 16), conv(16, 4)))),
            maps(4) + maps(16) + maps(16),
        ),
        # At the concatenation: 4 and 2 are read, 6 written.
        (nn.Sequential(conv(3, 4), Dense()), maps(4) + maps(2) + maps(6)),
        # The activation of one half is new, both halves are still there, and the product overwrites.
        (nn.Sequential(conv(3, 8), Gate()), maps(8) + maps(4)),
        # Channels change places, which cannot be done in the same memory.
        (nn.Sequential(conv(3, 8), Shuffle()), maps(8) + maps(8)),
        # The places of the maxima (int64) are not kept.
        (nn.Sequential(conv(3, 16), nn.MaxPool2d(2)), maps(16) + maps(16, 16)),
        (Hoarder(), IMAGE + maps(16)),
    ],
    ids=[
        "one", "shrinking", "middle", "relu", "relu in place", "hard-swish", "batch-norm", "residual", "dense", "gate",
        "shuffle", "pooling", "hoarder",
    ],
)  # fmt: skip
def test_the_peak_of_the_activations_is_the_sum_worked_out_by_hand(net: nn.Module, peak: int):
    assert footprint(net, 8).activation_bytes == peak


@pytest.mark.parametrize("name", STUDENTS)
def test_the_peak_of_every_family_lies_between_one_layer_and_all_layers(name: str):
    net = describe(name, 60_000, 11, 64).shipped_net()
    pairs: list[tuple[int, int]] = []

    def note(_module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        pairs.append((inputs[0].numel(), output.numel()))

    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(note)
    with torch.no_grad():
        net(torch.zeros(1, 3, 64, 64))
    peak = footprint(net, 64).activation_bytes
    assert 4 * max(read + written for read, written in pairs) <= peak
    assert peak < 4 * sum(itertools.chain.from_iterable(pairs))


def test_half_precision_takes_half_the_memory():
    net = nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 2))
    assert footprint(net.bfloat16(), 8).activation_bytes == (IMAGE + maps(8)) // 2


def test_inference_mode_hides_nothing():
    net = describe("mobilenet_v1", 5000, 3, 32).build()
    expected = footprint(net, 32)
    with torch.inference_mode():
        assert footprint(net, 32) == expected
    assert expected.macs > 0


def test_counting_changes_nothing_in_the_net():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.ReLU(inplace=True)).train()
    net[1].eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    random = torch.get_rng_state()
    footprint(net, 8)
    assert [module.training for module in net] == [True, False, True, True]
    assert torch.equal(torch.get_rng_state(), random)
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_residual_net_of_torchvision_is_counted_as_published():
    # He et al., 2016, table 1: 1.8 billion; 1,813,566,976 with 11 instead of 1,000 classes.
    assert footprint(build_teacher("resnet18", 11), 224).macs == 1_813_566_976


def test_disk_bytes_are_those_of_the_file(tmp_path):
    net = describe("mobilenet_v1", 60_000, 11, 64).shipped_net()
    with open(tmp_path / "weights", "wb") as file:
        torch.save(net.state_dict(), file)
    assert disk_bytes(net) == (tmp_path / "weights").stat().st_size > 4 * 59_000
