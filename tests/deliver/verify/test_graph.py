"""A graph is weighed by every number in it, and what is no pure graph of core operators is refused."""

import io
import json
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

from bantam.deliver.verify import clean_room, graph
from bantam.errors import BadPackage
from bantam.nets import budget
from bantam.nets.fold import deploy
from bantam.nets.students import STUDENTS, describe

Values = list[list[Any]]


def handed(values: Values, tensors: dict[str, Tensor], parameters: list[str] | None = None, **about: Any) -> bytes:
    """A handed over file: `values` after the input, the last of which answers."""
    plain = {"shape": [3, 4, 4], "values": [["input"], *values], "output": len(values)}
    said = {"graphs": [plain], "unique": 1, "torchsummary": 1, "hints": {}, "inputs": 0, **about}
    said["parameters"] = list(tensors) if parameters is None else parameters
    return save(tensors, {"about": json.dumps(said)})


def call(name: str, *arguments: Any, **keywords: Any) -> list[Any]:
    return ["call", name, list(arguments), keywords]


def at(number: int) -> dict[str, int]:
    return {"value": number}


def weighed(values: Values, tensors: dict[str, Tensor], parameters: list[str] | None = None) -> graph.Weighed:
    return graph.weigh(graph.read(handed(values, tensors, parameters)))


ADDED = [["tensor", "w"], call("add.Tensor", at(0), at(1))]


@pytest.mark.parametrize(
    ("tensor", "count"),
    [
        (torch.zeros(100), 100),
        (torch.zeros(100, dtype=torch.float64), 200),
        (torch.zeros(100, dtype=torch.int64), 200),
        (torch.zeros(100, dtype=torch.float16), 100),
        (torch.zeros(100, dtype=torch.bool), 100),
    ],
)
def test_a_tensor_weighs_its_numbers_and_more_than_four_bytes_weigh_more(tensor: Tensor, count: int) -> None:
    assert weighed(ADDED, {"w": tensor}).counted == count
    beside = weighed(ADDED, {"w": tensor}, parameters=[])
    assert (beside.parameters, beside.beside) == (1, count)
    assert beside.counted == 1 + count - graph.FREE_NUMBERS


def test_fractions_and_long_texts_weigh_too() -> None:
    values = [call("mul.Tensor", at(number), 1 / (number + 3)) for number in range(100)]
    assert weighed(values, {}).beside == 100
    integers = torch.randint(0, 10**9, (4000,), generator=torch.Generator().manual_seed(0)).tolist()
    values = [call("mul.Tensor", at(number), integer) for number, integer in enumerate(integers)]
    assert weighed(values, {}).text > 2000


BATCHNORM = [
    *(["tensor", name] for name in ("weight", "bias", "mean", "var")),
    call(graph.BATCH_NORM, at(0), at(1), at(2), at(3), at(4), 0.1, 1e-5),
    ["item", 5, 0],
]


def statistics(size: int = 3, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    tensors = {name: torch.ones(3) for name in ("weight", "bias")}
    return tensors | {name: torch.ones(size, dtype=dtype) for name in ("mean", "var")}


def test_a_batchnorm_s_statistics_are_free_and_nothing_else_is() -> None:
    assert weighed(BATCHNORM, statistics(), ["weight", "bias"]) == graph.Weighed(6, 6, 2, 0)
    used = [*BATCHNORM, call("add.Tensor", at(6), at(3))]
    assert weighed(used, statistics(), ["weight", "bias"]).beside == 3 + 2
    without = [row if row[0] != "call" else call(graph.BATCH_NORM, at(0), None, None, at(3), at(4), 0.1, 1e-5)
               for row in BATCHNORM]  # fmt: skip
    assert weighed(without, statistics(), ["weight", "bias"]).beside == 6 + 2
    assert weighed(BATCHNORM, statistics(900), ["weight", "bias"]).beside == 1800 + 2


def test_statistics_that_are_not_float32_are_refused() -> None:
    with pytest.raises(BadPackage, match="not float32"):
        weighed(BATCHNORM, statistics(dtype=torch.float64), ["weight", "bias"])


def test_a_weight_counts_at_each_operator_that_takes_it() -> None:
    convolution = call("convolution.default", at(0), at(1), None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1)
    twice = [["tensor", "w"], convolution, call("convolution.default", at(2), *convolution[2][1:])]
    assert weighed(twice, {"w": torch.ones(3, 3, 1, 1)}) == graph.Weighed(9, 18, 0, 0)
    behind = [["tensor", "w"], call("permute.default", at(1), [1, 0]), call("mm.default", at(0), at(2))]
    assert weighed(behind, {"w": torch.ones(5, 4)}).called == 20


@pytest.mark.parametrize("name", ["sample", "mobilenet_v3", "recurrent"])
def test_the_counts_are_those_of_the_modules_and_the_answers_too(name: str) -> None:
    net = describe(name, 60_000, 5, 64).build().eval()
    net = deploy(net) if STUDENTS[name].folds else net
    tensors: dict[str, Tensor] = {}
    plain = clean_room.graph_of(net, (3, 64, 64), tensors)
    about = {"graphs": [plain], "parameters": list(tensors), "unique": 1, "torchsummary": 1, "hints": {}, "inputs": 0}
    own = {clean_room.key(parameter) for parameter in net.parameters()}
    about["parameters"] = [key for key, tensor in tensors.items() if clean_room.key(tensor) in own]
    written = {key: tensor.detach().clone().contiguous() for key, tensor in tensors.items()}
    read = graph.read(save(written, {"about": json.dumps(about)}))
    weight, expected = graph.weigh(read), budget.weigh(net, 64)
    assert (weight.parameters, weight.called) == (expected.unique, expected.torchsummary)
    assert weight.counted == expected.counted
    graph.check_runs(read, 5, clean_room.BATCH)
    images = torch.rand(clean_room.BATCH, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(graph.answer(read.graphs[0], read.tensors, images), net(images))


@pytest.mark.parametrize(
    "name",
    ["rand.default", "bernoulli.default", "as_strided.default", "empty.memory_format", "add_.Tensor",
     "nonzero.default",
     "_local_scalar_dense.default", "no_such.default", "add", "__class__.default", "add.__class__"],
)  # fmt: skip
def test_operators_that_are_no_pure_functions_are_refused(name: str) -> None:
    with pytest.raises(BadPackage, match="no pure function"):
        graph.read(handed([call(name, at(0))], {}))


def pickled() -> bytes:
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(3)}, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x" * 100,
        pickled(),
        save({"w": torch.ones(3)}),
        save({}, {"about": "[" * 100_000}),
        handed([call("add.Tensor", at(0), at(7))], {}),
        handed([call("add.Tensor", at(0), at(-1))], {}),
        handed([["tensor", "none"]], {}),
        handed([["code", "import os"]], {}),
        handed([call("add.Tensor", at(0), {"dtype": "load"})], {}),
        handed([call("add.Tensor", at(0), "x" * 1000)], {}),
        handed([], {}, inputs=10**9),
        handed([call("relu.default", at(0))] * 6000, {}),
    ],
)
def test_what_is_no_graph_is_refused_in_one_line(data: bytes) -> None:
    with pytest.raises(BadPackage) as refused:
        graph.read(data)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("counts", [(-5, 3), (3, 0), (True, 3), (1.5, 3), ("7", 3), (None, 3)])
def test_counts_that_no_net_has_are_refused(counts: tuple[Any, Any]) -> None:
    with pytest.raises(BadPackage):
        graph.read(handed(ADDED, {"w": torch.ones(3)}, unique=counts[0], torchsummary=counts[1]))


def test_the_code_s_own_counts_can_only_raise_the_weight() -> None:
    read = graph.read(handed(ADDED, {"w": torch.ones(30)}, unique=50, torchsummary=70))
    assert (graph.weigh(read).parameters, graph.weigh(read).called) == (50, 70)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([call("relu.default", at(0)), call("repeat.default", at(1), [1, 1, 100_000, 100_000])], "more"),
        ([call("relu.default", at(0), 1, 2, 3)], "does not run"),
        ([call("mean.dim", at(0), [1, 2, 3])], "one row of logits"),
        ([call("mean.dim", at(0), [2, 3])], "answers with 3 classes"),
    ],
)
def test_a_graph_that_would_not_answer_is_refused_before_it_runs(values: Values, reason: str) -> None:
    with pytest.raises(BadPackage, match=reason):
        graph.check_runs(graph.read(handed(values, {})), 5, 16)


def test_the_answers_are_the_graph_s() -> None:
    net = nn.Linear(4, 2)
    values = [["tensor", "w"], call("permute.default", at(1), [1, 0]), call("mean.dim", at(0), [1, 2]),
              ["tensor", "b"], call("addmm.default", at(4), at(3), at(2))]  # fmt: skip
    read = graph.read(handed(values, {"w": net.weight.detach().clone(), "b": net.bias.detach().clone()}))
    images = torch.rand(3, 3, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(graph.answer(read.graphs[0], read.tensors, images), net(images.mean((1, 2))))
