import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from bantam.compress import integers, packed
from bantam.compress.integers import (
    CLIPS,
    INT4,
    INT8,
    Precision,
    QuantizedLayer,
    calibrate,
    calibration_batches,
    correct_biases,
    input_range,
    layers_of,
    post_training,
    quantized,
    unquantized,
    weight_scales,
)
from bantam.compress.qdq import Writer
from bantam.compress.qdq import packed as pack
from bantam.compress.qdq import unpacked as unpack
from bantam.data.augment import plain
from bantam.data.splits import IMAGENET, LabelledSplit, UnlabelledSplit
from bantam.errors import BadCheckpoint, SplitLeak
from bantam.nets.fold import deploy
from bantam.nets.output import StagedNet
from bantam.nets.students import STUDENTS, describe


def trained_like(family: str) -> StagedNet:
    """A small net with BatchNorm statistics of its own."""
    torch.manual_seed(0)
    net = describe(family, 60_000 if family == "sample" else 5_000, 3, 32).build()
    with torch.no_grad():
        for _ in range(3):
            net.train()(torch.randn(16, 3, 32, 32))
    return net.eval()


def batches() -> list[Tensor]:
    return list(torch.randn(4, 16, 3, 32, 32, generator=torch.Generator().manual_seed(1)))


def test_a_layer_computes_with_its_integers():
    torch.manual_seed(0)
    layer = QuantizedLayer(nn.Conv2d(3, 5, 3), 8)
    layer.set_input(-10.0, 20.0)
    inputs = 10 * torch.randn(2, 3, 8, 8)
    # The plain reference: integers in float64, as an integer kernel adds them up.
    scale, zero = float(layer.input_scale), int(layer.input_zero)
    steps = (inputs.double() / scale).round().add(zero).clamp(0, 255) - zero
    assert layer.layer.bias is not None
    bias = layer.layer.bias.detach()
    step = scale * layer.weight_scale.double()  # [5]
    whole = (bias.double() / step).round()
    assert torch.equal(layer.bias_integers(bias), whole.int())
    assert float((whole * step - bias.double()).abs().max()) > 4e-5  # a bias that is not rounded would be seen
    sums = nn.functional.conv2d(steps, layer.integers().double(), whole)
    assert torch.allclose(layer(inputs).double(), sums * step[:, None, None], atol=1e-5)
    assert int(layer.integers().abs().max()) <= 127


def test_the_gradient_is_the_identitys_inside_the_grid():
    layer = QuantizedLayer(nn.Linear(2, 1, bias=False), 8)
    layer.set_input(0.0, 1.0)
    inputs = torch.tensor([[0.5, 7.0]], requires_grad=True)  # the second is outside
    layer(inputs).sum().backward()
    assert inputs.grad is not None
    assert inputs.grad[0, 0] == pytest.approx(float(layer.weight()[0, 0].detach()))
    assert inputs.grad[0, 1] == 0


def test_a_bias_on_its_grid_learns_as_if_it_were_not():
    layer = QuantizedLayer(nn.Linear(2, 3), 8)
    layer.set_input(0.0, 100.0)
    bias = layer.layer.bias
    assert bias is not None
    used = layer.bias()
    assert used is not None
    assert not torch.equal(used, bias)
    (used * torch.tensor([1.0, -2.0, 3.0])).sum().backward()
    assert bias.grad is not None
    assert bias.grad.tolist() == [1.0, -2.0, 3.0]
    layer.quantizes_input = False
    assert layer.bias() is bias
    assert QuantizedLayer(nn.Linear(2, 3, bias=False), 8).bias() is None


def test_a_bias_beyond_int32_ends_there():
    layer = QuantizedLayer(nn.Linear(1, 1), 8)
    layer.set_input(0.0, 1e-6)
    assert layer.bias_integers(torch.tensor([1e9])).tolist() == [2**31 - 1]
    assert layer.bias_integers(torch.tensor([-1e9])).tolist() == [1 - 2**31]


def test_the_written_biases_are_the_simulations():
    net = trained_like("mobilenet_v1")
    form = quantized(net, INT8)
    calibrate(form, batches())
    weights = {f"net.{name}": value for name, value in unquantized(form).state_dict().items()}
    nodes = [
        onnx.helper.make_node("Gemm", ["x", f"net.{name}.weight", f"net.{name}.bias"], [name], transB=1)
        for name, layer in layers_of(form).items()
        if isinstance(layer.layer, nn.Linear)
    ]
    given = [onnx.numpy_helper.from_array(value.numpy(), name) for name, value in weights.items()]
    graph = onnx.helper.make_graph(nodes, "g", [], [], given)
    writer = Writer(graph)
    for node, layer in zip(
        nodes, (one for one in layers_of(form).values() if isinstance(one.layer, nn.Linear)), strict=True
    ):
        writer.layer(node, layer)
        stored = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
        integers, scale = (stored[node.input[2].removesuffix(".d") + end] for end in (".q", ".s"))
        bias = layer.bias()
        assert bias is not None
        assert integers.dtype == np.int32
        np.testing.assert_allclose(integers * scale.astype(np.float64), bias.detach().numpy(), rtol=1e-6)


def test_zero_is_on_the_grid_and_a_relus_grid_starts_there():
    layer = QuantizedLayer(nn.Linear(1, 1), 8)
    layer.set_input(0.3, 2.55)
    assert int(layer.input_zero) == 0
    assert float(layer.input_scale) == pytest.approx(0.01)
    layer.set_input(-1.0, 1.0)
    assert layer(torch.zeros(1, 1)).item() == pytest.approx(layer.layer(torch.zeros(1, 1)).item(), abs=1e-4)


def test_the_chosen_grids_have_the_least_error():
    weight = torch.randn(4, 6, generator=torch.Generator().manual_seed(2))
    scales = weight_scales(weight, 7)
    for row, scale in zip(weight, scales, strict=True):
        errors = [
            float(((row / step).round().clamp(-7, 7) * step - row).square().sum())
            for step in (row.abs().max() * CLIPS / 7)
        ]
        mine = float(((row / scale).round().clamp(-7, 7) * scale - row).square().sum())
        assert mine == pytest.approx(min(errors), rel=1e-4)
    values = torch.cat((torch.rand(5_000), torch.tensor([100.0])))
    assert input_range(values, CLIPS[:1]) == (0.0, 100.0)
    low, high = input_range(torch.cat((torch.rand(200_000) * 10, torch.tensor([13.0]))), CLIPS)
    assert low == 0
    assert 9.5 < high < 13


@pytest.mark.parametrize("family", STUDENTS)
def test_eight_bits_stay_near_and_names_stay(family: str):
    net = trained_like(family)
    student = quantized(net, INT8)
    calibrate(student, batches())
    plain = deploy(net)
    images = batches()[0]
    with torch.no_grad():
        expected, found = plain(images), student(images)
    assert float((expected - found).abs().max()) < 0.1 * float(expected.std()) + 0.05
    assert all(layer.quantizes_input for layer in layers_of(student).values())
    restored = unquantized(student)
    assert restored.state_dict().keys() == plain.state_dict().keys()
    for name, layer in layers_of(student).items():
        bias, computed = restored.get_submodule(name).bias, layer.bias()
        assert (bias is None) == (computed is None)
        assert bias is None or torch.equal(bias, computed)  # pyright: ignore[reportArgumentType]


def test_light_layers_keep_eight_bits():
    bits = {name: layer.bits for name, layer in layers_of(quantized(trained_like("mobilenet_v1"), INT4)).items()}
    assert bits["stages.0.0.0"] == 8  # sees the image
    assert bits["stages.0.1.0.0"] == 8  # depthwise
    assert bits["stages.0.1.1.0"] == 4
    assert bits["head"] == 4


def test_corrected_biases_restore_the_means():
    net = trained_like("mobilenet_v1")
    student = quantized(net, Precision(dense=2, light=2, inputs=False))
    images = torch.cat(batches())
    with torch.no_grad():
        wanted = deploy(net)(images).mean(0)
        before = float((student(images).mean(0) - wanted).abs().max())
        correct_biases(student, net, images)
        after = float((student(images).mean(0) - wanted).abs().max())
    assert before > 0.01
    assert after < 1e-4


@torch.no_grad()
def sure_net() -> StagedNet:
    """A net whose answers differ from image to image, so that ways to quantize it differ by more than rounding."""
    net = trained_like("mobilenet_v1")
    logits = deploy(net)(torch.cat(batches()))
    stretch = 0.5 / logits.std(0).mean()
    net.head.bias.sub_(logits.mean(0)).mul_(stretch)
    net.head.weight.mul_(stretch)
    return net


def ways_by_hand(
    net: StagedNet, precision: Precision, fitted: list[Tensor], held: list[Tensor]
) -> dict[str, tuple[float, StagedNet]]:
    """Every way to quantize `net` with ranges and biases of `fitted`: how far off it is on `held`, and its net."""
    found: dict[str, tuple[float, StagedNet]] = {}
    for ends, clips in (("least squared error", CLIPS), ("largest value", CLIPS[:1])):
        for told in ("as they were", "corrected"):
            student = quantized(net, precision)
            if precision.inputs:
                calibrate(student, fitted, clips)
            if told == "corrected":
                correct_biases(student, net, torch.cat(fitted))
            divergences = []
            for batch in held:
                p, q = deploy(net)(batch).double().softmax(1), student(batch).double().softmax(1)
                divergences.append(float((p * (p / q).log()).sum(1).mean()))
            found[f"ranges by {ends}, biases {told}"] = sum(divergences) / len(divergences), student
    return found


@pytest.mark.parametrize("scales", [(1, 4, 1, 4), (4, 1, 4, 1)], ids=str)
@torch.no_grad()
def test_post_training_fits_on_one_half_and_takes_the_nearest_way_of_the_other(scales: tuple[int, ...]):
    """With halves of different range each half has another best way, and other ranges."""
    net = sure_net()
    given = [scale * batch for scale, batch in zip(scales, batches(), strict=True)]
    ways = ways_by_hand(net, INT8, given[::2], given[1::2])
    best = min(ways, key=lambda way: ways[way][0])
    assert all(divergence > 1.01 * ways[best][0] for way, (divergence, _) in ways.items() if way != best)
    student, way = post_training(net, INT8, given)
    assert way == best
    assert all(torch.equal(value, ways[best][1].state_dict()[name]) for name, value in student.state_dict().items())


@torch.no_grad()
def test_weights_alone_have_no_ranges_to_choose():
    net, given = sure_net(), batches()
    ways = ways_by_hand(net, INT4, given[::2], given[1::2])
    best = min(ways, key=lambda way: ways[way][0])
    student, way = post_training(net, INT4, given)
    assert way == best == "ranges by least squared error, biases corrected"
    assert torch.equal(student(given[0]), ways[best][1](given[0]))
    # One batch is all there is to fit on and to compare by.
    alone = ways_by_hand(net, INT4, given[:1], given[:1])
    student, way = post_training(net, INT4, given[:1])
    assert way == min(alone, key=lambda way: alone[way][0])
    assert torch.equal(student(given[0]), alone[way][1](given[0]))


def test_calibration_refuses_the_evaluation_split():
    unlabelled = UnlabelledSplit(torch.zeros(2, 8, 8, 3, dtype=torch.uint8), ("0", "1"))
    with pytest.raises(SplitLeak, match="calibration"):
        calibration_batches(unlabelled, 8, IMAGENET)  # pyright: ignore[reportArgumentType]


def test_four_bits_are_packed_two_to_a_byte():
    integers = torch.tensor([-7, 7, 0, -1, 3], dtype=torch.int8).numpy()
    assert pack(integers) == bytes([0x79, 0xF0, 0x03])
    assert unpack(pack(integers), 5).tolist() == integers.tolist()


@pytest.mark.parametrize("family", ["mobilenet_v1", "recurrent", "sample"])
def test_a_packed_file_gives_the_net_back(family: str):
    net = trained_like(family)
    description = describe(family, 60_000 if family == "sample" else 5_000, 3, 32)
    shipped = description.shipped_form(net)
    student = quantized(shipped, INT4)
    data = packed.dumps(student, description.to_json())
    again, told = packed.loads(data)
    assert told == description.to_json()
    with torch.no_grad():
        assert torch.allclose(again(batches()[0]), student(batches()[0]), atol=1e-5)
    for damaged in (b"", data[:-1], data + b"0", b"PK" + data, data[:40]):
        with pytest.raises(BadCheckpoint, match="not a packed student"):
            packed.loads(damaged)


def test_a_depthwise_layer_is_light_from_two_channels_on():
    convolutions = [nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 3, groups=2), nn.Conv2d(2, 1, 1), nn.Conv2d(1, 4, 1)]
    bits = [layer.bits for layer in layers_of(quantized(StagedNet(convolutions, 4, 2).eval(), INT4)).values()]
    assert bits == [8, 8, 4, 4, 4]


def test_the_range_holds_the_ends_that_are_not_sampled():
    net = quantized(StagedNet([nn.Conv2d(3, 2, 1)], 2, 2).eval(), INT8)
    images = torch.zeros(4, 3, 128, 128)  # 12 times as many values as are sampled
    images.view(-1)[5], images.view(-1)[7] = -3.0, 5.0
    calibrate(net, [images], CLIPS[:1])
    first = next(iter(layers_of(net).values()))
    assert float(first.input_scale) == pytest.approx(8 / 255)
    assert int(first.input_zero) == round(3 * 255 / 8)


def test_calibration_images_are_spread_evenly_over_the_split():
    images = torch.randint(256, (10, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    split = LabelledSplit("training", images, torch.zeros(10, dtype=torch.int64), tuple("0123456789"), ("a", "b"))
    (batch,) = calibration_batches(split, 8, IMAGENET, 4)
    assert torch.equal(batch, plain(images[[0, 3, 6, 9]], 8, IMAGENET.mean, IMAGENET.std))
    zeros = torch.zeros(600, dtype=torch.int64)
    many = LabelledSplit("training", images[zeros], zeros, tuple(map(str, range(600))), ("a", "b"))
    assert [len(batch) for batch in calibration_batches(many, 8, IMAGENET)] == [64] * 8


def test_a_grid_may_end_far_below_the_largest_value() -> None:
    """Many values that fill less than half of the range of one: a finer step for them is worth cutting that one off."""
    weight = torch.cat([torch.linspace(-0.4, 0.4, 9_999, dtype=torch.float64), torch.ones(1, dtype=torch.float64)])
    step = float(weight_scales(weight[None, :, None, None], 7)[0])
    assert 0.4 / 7 <= step < 0.5 / 7


def test_a_layer_without_a_grid_for_its_input_says_so_with_zeros() -> None:
    layer = QuantizedLayer(nn.Linear(2, 1), 8)
    assert (float(layer.input_scale), int(layer.input_zero), layer.quantizes_input) == (0.0, 0, False)


@pytest.mark.parametrize(("precision", "ways"), [(INT8, 4), (INT4, 2)])
def test_ranges_by_the_largest_value_are_tried_where_inputs_have_ranges(
    precision: integers.Precision, ways: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[integers.Precision] = []
    whole = integers.quantized

    def counted(net: StagedNet, wanted: integers.Precision) -> StagedNet:
        made.append(wanted)
        return whole(net, wanted)

    monkeypatch.setattr(integers, "quantized", counted)
    torch.manual_seed(0)
    net = describe("mobilenet_v1", 5_000, 3, 32).build().eval()
    post_training(net, precision, [torch.randn(2, 3, 32, 32) for _ in range(2)])
    assert made == [precision] * ways
