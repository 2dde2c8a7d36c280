import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from bantam.compress.integers import (
    INT4,
    INT8,
    calibrate,
    quantized,
)
from bantam.compress.qdq import shorten_names
from bantam.data import cache
from bantam.data.splits import IMAGENET
from bantam.deliver.export import TARGETS
from bantam.deliver.export.forms import (
    EXACT,
    INTEGER,
    Material,
    Parity,
    about,
    export,
    for_runtime,
    onnx_answer,
    onnx_session,
    plain_onnx,
    quantized_onnx,
    torchscript_answer,
)
from bantam.deliver.export.padding import parameters_in
from bantam.errors import BadData, ParityFailed
from bantam.nets.budget import weigh
from bantam.nets.fold import deploy
from bantam.nets.portable import Portable, with_weights
from bantam.nets.students import STUDENTS, describe
from bantam.runs.finished import open_run
from bantam.runs.shipped import Shipped


def student(family: str, classes: tuple[str, ...] = ("0", "1", "2")) -> tuple[torch.nn.Module, Shipped]:
    torch.manual_seed(0)
    described = describe(family, 60_000 if family == "sample" else 5_000, len(classes), 32)
    net = described.build()
    with torch.no_grad():
        net.train()(torch.randn(16, 3, 32, 32))
    return described.shipped_form(net), Shipped(described, IMAGENET, classes)


@pytest.fixture
def material(photographs: Path, tmp_path: Path) -> Material:
    net, shipped = student("mobilenet_v1")
    return Material(open_run(tmp_path), net, shipped, cache.open_splits(photographs, 32))


@pytest.fixture(scope="module")
def graph() -> onnx.ModelProto:
    return plain_onnx(*student("mobilenet_v1"))


def test_the_graph_says_what_it_wants_and_takes_any_batch(graph: onnx.ModelProto):
    net, shipped = student("mobilenet_v1")
    session = onnx_session(graph.SerializeToString())
    told = session.get_modelmeta().custom_metadata_map
    assert json.loads(told["classes"]) == ["0", "1", "2"]
    preprocessing = json.loads(told["preprocessing"])
    assert preprocessing["range"] == [0.0, 1.0]
    assert preprocessing["size"] == [32, 32]
    count = weigh(net, 32).counted
    assert told == about(shipped, "float32", parameters_counted=count, parameters_in_file=count)
    answer = onnx_answer(graph.SerializeToString())
    for images in (torch.rand(1, 3, 32, 32), torch.rand(5, 3, 32, 32)):
        mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET.mean, IMAGENET.std))
        with torch.no_grad():
            assert torch.allclose(answer(images), net((images - mean) / std), atol=1e-5)


def test_a_graph_for_the_runtime_has_zeros_and_says_so(graph: onnx.ModelProto):
    net, shipped = student("mobilenet_v1")
    filled = for_runtime(graph, net, shipped)
    told = {item.key: item.value for item in filled.metadata_props}
    counted, in_file = int(told["parameters_counted"]), int(told["parameters_in_file"])
    assert counted == weigh(net, 32).counted
    assert counted < in_file == parameters_in(filled)
    images = torch.rand(5, 3, 32, 32)
    plain, fast = (onnx_answer(model.SerializeToString()) for model in (graph, filled))
    assert torch.allclose(plain(images), fast(images), atol=1e-5)
    widths = [item.dims[0] for item in filled.graph.initializer if len(item.dims) == 4]
    assert {width % 16 for width in widths} == {0}


def test_other_weights_in_the_same_graph_are_another_export(graph: onnx.ModelProto):
    net, shipped = student("mobilenet_v1")
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(0.9)
    other = Portable(net, IMAGENET.mean, IMAGENET.std).eval()
    answer = onnx_answer(with_weights(graph, other, about(shipped, "x")).SerializeToString())
    images = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(answer(images), other(images), atol=1e-5)


@pytest.mark.parametrize("precision", [INT8, INT4], ids=["int8", "int4"])
def test_integers_in_onnx_runtime_are_those_that_pytorch_simulates(graph: onnx.ModelProto, precision):
    net, shipped = student("mobilenet_v1")
    form = quantized(net, precision)
    if precision.inputs:
        calibrate(form, [4 * torch.randn(64, 3, 32, 32)])  # wide grids, whose steps a bias feels
    encoded = quantized_onnx(form, graph, shipped, "integers")
    told = onnx_session(encoded).get_modelmeta().custom_metadata_map
    counted = weigh(net, 32).counted
    assert int(told["parameters_counted"]) == counted
    # Integers of 4 bits are for size and have no zeros.
    assert (int(told["parameters_in_file"]) > counted) == (precision is INT8)
    answer, images = onnx_answer(encoded), torch.rand(64, 3, 32, 32)
    simulated = Portable(form, IMAGENET.mean, IMAGENET.std).eval()
    with torch.no_grad():
        expected = simulated(images)
    apart = (answer(images) - expected).abs().amax(1) / expected.abs().max()  # [64]
    # A sum beside a tie may be rounded to the other side: that moves a logit by a few steps of the grid, and no more.
    assert int((apart > 1e-5).sum()) <= (3 if precision.inputs else 0)
    assert float(apart.max()) < 0.05
    assert torch.equal(answer(images).argmax(1), expected.argmax(1))
    kinds = {item.data_type for item in onnx.load_from_string(encoded).graph.initializer}
    assert (onnx.TensorProto.UINT8 if precision.inputs else onnx.TensorProto.INT4) in kinds
    assert len(encoded) < len(graph.SerializeToString())


def test_names_in_an_integer_file_take_little_of_it(graph: onnx.ModelProto):
    net, shipped = student("mobilenet_v1")
    form = quantized(net, INT8)
    calibrate(form, [torch.randn(8, 3, 32, 32)])
    written = onnx.load_from_string(quantized_onnx(form, graph, shipped, "integers")).graph
    assert [item.name for item in (*written.input, *written.output)] == ["images", "logits"]
    names = [item.name for item in written.initializer] + [name for node in written.node for name in node.output]
    assert len(set(names)) == len(names)
    assert {name for name in names if len(name) > 2} == {"logits"}
    assert not any(node.name for node in written.node)


def test_short_names_leave_the_inputs_and_outputs_theirs():
    node = onnx.helper.make_node("Add", ["a", "weight"], ["sum"], name="add")
    end = onnx.helper.make_node("Relu", ["sum"], ["b"])
    sides = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("a", "b")]
    weight = onnx.numpy_helper.from_array(np.zeros(1, np.float32), "weight")
    graph = onnx.helper.make_graph([node, end], "g", sides[:1], sides[1:], [weight])
    shorten_names(graph)
    assert [(list(node.input), list(node.output)) for node in graph.node] == [(["a", "c"], ["d"]), (["d"], ["b"])]
    assert graph.initializer[0].name == "c"


@pytest.mark.parametrize(
    ("n", "others", "lost", "passes"),
    [
        (16, 1, 1, True),  # 6%, of one image
        (8, 1, 1, True),  # 87.5% have the same class, but it is one image
        (8, 2, 0, False),
        (40, 4, 2, True),  # 5%, the standard error of four that changed
        (40, 4, 3, False),
        (4_432, 40, 44, True),  # 1%
        (4_432, 100, 45, False),
    ],
)
def test_integers_may_lose_a_hundredth_or_what_so_few_images_cannot_tell(n: int, others: int, lost: int, passes: bool):
    accuracies = {"accuracy": (n // 2 - lost) / n, "reference": (n // 2) / n}
    parity = Parity(difference=0.5, agreement=(n - others) / n, n=n, **accuracies)
    assert parity.passes(INTEGER) is passes
    assert not parity.passes(EXACT)
    assert not replace(parity, agreement=1.0, accuracy=parity.reference).passes(EXACT)
    assert replace(parity, difference=1e-3, agreement=1.0, accuracy=parity.reference).passes(EXACT)


def test_a_file_that_passes_is_written_and_one_that_fails_is_not(material: Material, monkeypatch: pytest.MonkeyPatch):
    path = material.run.folder / "student.pt"
    parity = export(material, "torchscript", path)
    assert parity.n == 30
    assert parity.agreement == 1
    assert parity.difference < 1e-4
    extra = {"metadata.json": ""}
    torch.jit.load(io.BytesIO(path.read_bytes()), _extra_files=extra)
    count = weigh(material.net, 32).counted
    expected = about(material.shipped, "float32", parameters_counted=count, parameters_in_file=count)
    assert json.loads(extra["metadata.json"]) == expected

    before = path.read_bytes()
    honest = TARGETS["torchscript"]
    lying = replace(honest, answer=lambda encoded: lambda images: torchscript_answer(encoded)(images).flip(1))
    monkeypatch.setitem(TARGETS.found, "torchscript", lying)
    with pytest.raises(ParityFailed, match="is not written") as caught:
        export(material, "torchscript", path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before
    with pytest.raises(ParityFailed):
        export(material, "torchscript", material.run.folder / "new.pt")
    assert not (material.run.folder / "new.pt").exists()


def test_bad_input_is_one_line_and_writes_nothing(material: Material):
    with pytest.raises(BadData, match='"onnx" is the nearest'):
        export(material, "onxx", material.run.folder / "a.onnx")
    for other, near in (("tflite", "executorch"), (".PTH", "torchscript"), ("coreml", "onnx"), ("int8", "onnx-int8")):
        with pytest.raises(BadData, match=f'"{near}" is the nearest'):
            export(material, other, material.run.folder / "a.onnx")
    with pytest.raises(BadData) as unknown:
        export(material, "pdf", material.run.folder / "a.onnx")
    assert "nearest" not in str(unknown.value)
    with pytest.raises(BadData, match="end in .onnx"):
        export(material, "onnx", material.run.folder / "a.pt")
    _, other = student("mobilenet_v1", ("a", "b"))
    with pytest.raises(BadData, match="the photographs that it was trained on"):
        export(replace(material, shipped=other), "onnx", material.run.folder / "a.onnx")
    assert list(material.run.folder.iterdir()) == []


def same_in_float64(plain: onnx.ModelProto, filled: onnx.ModelProto, images: torch.Tensor) -> None:
    """Padding changes the order of sums, and nothing else."""
    answers = []
    for model in (plain, filled):
        exact = onnx.ModelProto()
        exact.CopyFrom(model)
        for item in exact.graph.initializer:
            if item.data_type == onnx.TensorProto.FLOAT:
                array = onnx.numpy_helper.to_array(item).astype(np.float64)
                item.CopyFrom(onnx.numpy_helper.from_array(array, item.name))
        for side in (exact.graph.input[0], exact.graph.output[0]):
            side.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
        answers.append(ReferenceEvaluator(exact).run(None, {"images": images.double().numpy()})[0])
    np.testing.assert_allclose(answers[1], answers[0], rtol=0, atol=1e-12 * np.abs(answers[0]).max())


@pytest.mark.slow
@pytest.mark.parametrize("family", STUDENTS)
def test_every_family_exports_and_quantizes(family: str):
    net, shipped = student(family)
    images = torch.rand(4, 3, 32, 32)
    plain = plain_onnx(deploy(net), shipped)
    portable = Portable(net, IMAGENET.mean, IMAGENET.std).eval()
    filled = for_runtime(plain, net, shipped)
    for model in (plain, filled):
        with torch.no_grad():
            assert torch.allclose(onnx_answer(model.SerializeToString())(images), portable(images), atol=1e-4)
    same_in_float64(plain, filled, images)
    form = quantized(net, INT8)
    calibrate(form, [torch.randn(64, 3, 32, 32)])
    answer = onnx_answer(quantized_onnx(form, plain, shipped, "int8"))
    with torch.no_grad():
        expected = Portable(form, IMAGENET.mean, IMAGENET.std).eval()(images)
    assert np.abs((answer(images) - expected).numpy()).max() < 0.1
