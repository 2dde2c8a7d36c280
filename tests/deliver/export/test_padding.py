"""Padded graphs answer as before, and are padded wherever their channels can be followed."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from bantam.deliver.export.forms import onnx_session
from bantam.deliver.export.padding import padded, parameters_in

SIDE = 6


class Maker:
    """Writes a graph node by node; every method takes and gives names of tensors."""

    def __init__(self, kind: type) -> None:
        self.random, self.kind = np.random.default_rng(0), kind
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, NDArray[Any]] = {}

    def constant(self, array: NDArray[Any]) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = array
        return name

    def numbers(self, *shape: int) -> str:
        return self.constant(self.random.normal(size=shape).astype(self.kind))

    def node(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        names = [f"t{len(self.nodes)}.{number}" for number in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, **attributes))
        return names[0] if outputs == 1 else names

    def conv(self, maps: str, inputs: int, outputs: int, kernel: int = 1, group: int = 1) -> str:
        weights = self.numbers(outputs, inputs // group, kernel, kernel), self.numbers(outputs)
        return self.again(maps, weights, kernel, group)

    def again(self, maps: str, weights: tuple[str, str], kernel: int = 1, group: int = 1) -> str:
        return self.node("Conv", maps, *weights, group=group, kernel_shape=[kernel] * 2, pads=[kernel // 2] * 4)

    def depthwise(self, maps: str, channels: int) -> str:
        return self.node("Relu", self.conv(maps, channels, channels, 3, channels))

    def mean(self, maps: str, keep: int = 0) -> str:
        return self.node("ReduceMean", maps, self.constant(np.array([2, 3])), keepdims=keep)

    def model(self, output: str) -> onnx.ModelProto:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.kind))
        images = helper.make_tensor_value_info("images", kind, ["n", 3, SIDE, SIDE])
        answers = helper.make_tensor_value_info(output, kind, ["n", "k"])
        constants = [numpy_helper.from_array(array, name) for name, array in self.constants.items()]
        graph = helper.make_graph(self.nodes, "g", [images], [answers], constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def separable(make: Maker, images: str) -> str:
    maps = make.depthwise(make.conv(images, 3, 22, 3), 22)
    return make.depthwise(make.conv(maps, 22, 37), 37)


def gated(make: Maker, images: str) -> str:
    maps = make.conv(images, 3, 22, 3)
    gate, value = make.node("Split", make.conv(make.depthwise(maps, 22), 22, 44), outputs=2, axis=1, num_outputs=2)
    return make.node("Add", maps, make.conv(make.node("Mul", make.node("HardSwish", gate), value), 22, 22))


def split_unevenly(make: Maker, images: str) -> str:
    maps = make.depthwise(make.conv(images, 3, 45), 45)
    sizes = make.constant(np.array([9, 20, 16]))
    first, second, third = make.node("Split", maps, sizes, outputs=3, axis=1)
    return make.node("Concat", third, make.depthwise(second, 20), first, axis=1)


def split_what_others_read(make: Maker, images: str) -> str:
    maps = make.conv(images, 3, 22)
    first, second = make.node("Split", maps, outputs=2, axis=1, num_outputs=2)
    return make.node("Concat", make.depthwise(maps, 22), make.node("Mul", first, second), axis=1)


def split_into_a_smaller_rest(make: Maker, images: str) -> str:
    maps = make.depthwise(make.conv(images, 3, 25), 25)
    parts = make.node("Split", make.conv(maps, 25, 25), outputs=3, axis=1, num_outputs=3)  # 9, 9, 7
    return make.node("Concat", make.node("Add", parts[0], parts[1]), make.depthwise(parts[2], 7), axis=1)


def squeezed(make: Maker, images: str) -> str:
    maps = make.depthwise(make.conv(images, 3, 22), 22)
    squeezed = make.node("HardSwish", make.conv(make.mean(maps, keep=1), 22, 5))
    return make.node("Mul", maps, make.node("HardSigmoid", make.conv(squeezed, 5, 22)))


def joined(make: Maker, images: str) -> str:
    both = make.node("Concat", make.conv(images, 3, 9), make.conv(images, 3, 22), axis=1)
    return make.node("Concat", make.depthwise(both, 31), both, axis=1)


def joined_and_added(make: Maker, images: str) -> str:
    """Runs of 9 and 22 channels meet one of 31."""
    both = make.node("Concat", make.conv(images, 3, 9), make.conv(images, 3, 22), axis=1)
    return make.depthwise(make.node("Add", both, make.conv(images, 3, 31)), 31)


def crossed(make: Maker, images: str) -> str:
    """The same channels in two orders, added up: no two of them stay side by side."""
    one, other = make.conv(images, 3, 9), make.conv(images, 3, 9)
    back = make.node("Add", make.node("Concat", one, other, axis=1), make.node("Concat", other, one, axis=1))
    return make.depthwise(back, 18)


def sliced(make: Maker, images: str) -> str:
    maps = make.node("Relu", make.conv(images, 3, 23))
    settings = [make.constant(np.array([number])) for number in (0, 11, 1)]
    some = make.node("Slice", maps, *settings)
    rest = make.node("Slice", maps, settings[1], make.constant(np.array([2**62])), settings[2])
    return make.node("Concat", maps, make.depthwise(some, 11), make.depthwise(rest, 12), axis=1)


def ended(make: Maker, images: str) -> str:
    """Only the last 12 of 23 channels go on, so the 11 before them are a run of their own."""
    settings = [make.constant(np.array([number])) for number in (11, 23, 1)]
    return make.depthwise(make.node("Slice", make.node("Relu", make.conv(images, 3, 23)), *settings), 12)


def shared_in_a_chain(make: Maker, images: str) -> str:
    """One layer sees runs of 9 and 13 channels, and then what it made of them."""
    weights = make.numbers(22, 22, 1, 1), make.numbers(22)
    both = make.node("Concat", make.conv(images, 3, 9), make.conv(images, 3, 13), axis=1)
    return make.depthwise(make.again(make.again(both, weights), weights), 22)


def shuffled(make: Maker, images: str) -> str:
    maps = make.node("Concat", make.conv(images, 3, 11), make.depthwise(make.conv(images, 3, 11), 11), axis=1)
    dealt = make.node("Reshape", maps, make.constant(np.array([0, 2, 11, SIDE, SIDE])))
    dealt = make.node("Transpose", dealt, perm=[0, 2, 1, 3, 4])
    return make.depthwise(make.node("Reshape", dealt, make.constant(np.array([0, 22, SIDE, SIDE]))), 22)


def shared(make: Maker, images: str) -> str:
    maps, weights = make.conv(images, 3, 22), (make.numbers(22, 22, 1, 1), make.numbers(22))
    own = make.numbers(22, 1, 3, 3), make.numbers(22)
    for _ in range(3):
        maps = make.node("Add", maps, make.again(make.again(maps, own, 3, 22), weights))
    return maps


def shared_with_what_is_not_followed(make: Maker, images: str) -> str:
    weights = make.numbers(22, 22, 1, 1), make.numbers(22)
    maps = make.depthwise(make.conv(images, 3, 22), 22)
    turned = make.node("Transpose", maps, perm=[0, 1, 3, 2])
    return make.depthwise(make.node("Add", make.again(maps, weights), make.again(turned, weights)), 22)


def grouped(make: Maker, images: str) -> str:
    return make.conv(make.depthwise(make.conv(images, 3, 22), 22), 22, 22, 3, group=2)


def judged_together(make: Maker, images: str) -> str:
    maps = make.depthwise(make.conv(images, 3, 22), 22)
    return make.node("Mul", maps, make.node("Softmax", maps, axis=1))


def scaled(make: Maker, images: str) -> str:
    maps = make.node("Mul", make.conv(images, 3, 22), make.numbers(22, 1, 1))
    maps = make.node("Add", make.numbers(22, 1, 1), maps)
    limits = [make.constant(np.array(limit, make.kind)) for limit in (0, 6)]
    return make.depthwise(make.node("Clip", make.node("Sub", maps, limits[1]), *limits), 22)


def normalised(make: Maker, images: str) -> str:
    statistics = [make.numbers(22), make.numbers(22), make.numbers(22), make.constant(np.full(22, 0.5, make.kind))]
    return make.depthwise(make.node("BatchNormalization", make.conv(images, 3, 22), *statistics), 22)


def pooled(make: Maker, images: str) -> str:
    maps = make.node("MaxPool", make.depthwise(make.conv(images, 3, 22), 22), kernel_shape=[3, 3], strides=[2, 2])
    return make.node("AveragePool", maps, kernel_shape=[2, 2])


GRAPHS: tuple[Callable[[Maker, str], str], ...] = (
    separable, gated, split_unevenly, split_what_others_read, split_into_a_smaller_rest, squeezed, joined,
    joined_and_added, crossed, sliced, ended, shuffled, shared, shared_in_a_chain,
    shared_with_what_is_not_followed, grouped, judged_together,
    scaled, normalised, pooled,
)  # fmt: skip


def model_of(build: Callable[[Maker, str], str], kind: type = np.float64) -> onnx.ModelProto:
    """The graph with a classifier of 7 classes behind it."""
    make = Maker(kind)
    maps = make.mean(build(make, "images"))
    width = ReferenceEvaluator(make.model(maps)).run(None, {"images": np.zeros((1, 3, SIDE, SIDE), kind)})[0].shape[1]
    return make.model(make.node("Gemm", maps, make.numbers(7, width), make.numbers(7), transB=1))


def weights_of(model: onnx.ModelProto, kind: str = "Conv") -> list[list[int]]:
    """The shapes of the weights in the order of the layers."""
    shapes = {item.name: list(item.dims) for item in model.graph.initializer}
    return [shapes[node.input[1]] for node in model.graph.node if node.op_type == kind]


@pytest.mark.parametrize("build", GRAPHS, ids=lambda build: build.__name__)
def test_a_padded_graph_answers_as_before(build) -> None:
    plain = model_of(build)
    filled = padded(plain)
    images = np.random.default_rng(1).normal(size=(3, 3, SIDE, SIDE))
    before, after = (ReferenceEvaluator(model).run(None, {"images": images})[0] for model in (plain, filled))
    # In float64: what differs is the order of sums alone.
    np.testing.assert_allclose(after, before, rtol=1e-12, atol=1e-12 * np.abs(before).max())
    assert parameters_in(plain) <= parameters_in(filled)


@pytest.mark.parametrize("build", [separable, gated, squeezed, sliced, shared], ids=lambda build: build.__name__)
def test_onnx_runtime_answers_as_before_too(build) -> None:
    plain = model_of(build, np.float32)
    images = np.random.default_rng(1).normal(size=(3, 3, SIDE, SIDE)).astype(np.float32)
    before, after = (
        onnx_session(model.SerializeToString()).run(None, {"images": images})[0] for model in (plain, padded(plain))
    )
    np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-5 * float(np.abs(before).max()))


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (separable, [[32, 3, 3, 3], [32, 1, 3, 3], [48, 32, 1, 1], [48, 1, 3, 3]]),
        # The gate's convolution is two, and each is as wide as what it gates.
        (gated, [[32, 3, 3, 3], [32, 1, 3, 3], [32, 32, 1, 1], [32, 32, 1, 1], [32, 32, 1, 1]]),
        # 9 and 20 channels get zeros of their own, 16 need none.
        (split_unevenly, [[64, 3, 1, 1], [64, 1, 3, 3], [32, 1, 3, 3]]),
        (joined, [[16, 3, 1, 1], [32, 3, 1, 1], [48, 1, 3, 3]]),
        (sliced, [[32, 3, 1, 1], [16, 1, 3, 3], [16, 1, 3, 3]]),
        (ended, [[32, 3, 1, 1], [16, 1, 3, 3]]),
        (shared_in_a_chain, [[16, 3, 1, 1], [16, 3, 1, 1], *[[32, 32, 1, 1]] * 2, [32, 1, 3, 3]]),
        (shared, [[32, 3, 1, 1], *[[32, 1, 3, 3], [32, 32, 1, 1]] * 3]),
        # What is dealt out keeps its channels; what comes before that gets zeros.
        (shuffled, [[11, 3, 1, 1], [11, 3, 1, 1], [11, 1, 3, 3], [22, 1, 3, 3]]),
        (grouped, [[22, 3, 1, 1], [22, 1, 3, 3], [22, 11, 3, 3]]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_channels_are_filled_up_where_they_can_be_followed(build, expected: list[list[int]]) -> None:
    assert weights_of(padded(model_of(build))) == expected


def test_the_inputs_and_the_classes_stay() -> None:
    filled = padded(model_of(separable))
    assert weights_of(filled, "Gemm") == [[7, 48]]
    assert [dim.dim_value for dim in filled.graph.input[0].type.tensor_type.shape.dim][1:] == [3, SIDE, SIDE]


def test_a_graph_that_gains_nothing_stays_as_it_is() -> None:
    def dense(make: Maker, images: str) -> str:
        return make.conv(make.conv(images, 3, 22), 22, 37, 3)

    def wide_enough(make: Maker, images: str) -> str:
        return make.depthwise(make.conv(make.depthwise(make.conv(images, 3, 32), 32), 32, 22), 22)

    assert weights_of(padded(model_of(dense))) == [[22, 3, 1, 1], [37, 22, 3, 3]]
    assert weights_of(padded(model_of(wide_enough)))[-1] == [32, 1, 3, 3]


def test_a_graph_is_not_changed_in_place_and_padding_twice_is_padding_once() -> None:
    plain = model_of(gated)
    before = plain.SerializeToString()
    once = padded(plain)
    assert plain.SerializeToString() == before
    assert padded(once).SerializeToString() == once.SerializeToString()


def test_parameters_are_those_of_layers_alone() -> None:
    plain = model_of(separable)
    assert parameters_in(plain) == 22 * 28 + 22 * 10 + 37 * 23 + 37 * 10 + 7 * 38
    assert parameters_in(padded(plain)) == 32 * 28 + 32 * 10 + 48 * 33 + 48 * 10 + 7 * 49
