import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

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
    Material,
    about,
    export,
    float_onnx,
    onnx_answer,
    onnx_session,
    quantized_onnx,
    torchscript_answer,
)
from bantam.errors import BadData, ParityFailed
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
    return float_onnx(*student("mobilenet_v1"))


def test_the_graph_says_what_it_wants_and_takes_any_batch(graph: onnx.ModelProto):
    net, shipped = student("mobilenet_v1")
    session = onnx_session(graph.SerializeToString())
    told = session.get_modelmeta().custom_metadata_map
    assert json.loads(told["classes"]) == ["0", "1", "2"]
    preprocessing = json.loads(told["preprocessing"])
    assert preprocessing["range"] == [0.0, 1.0]
    assert preprocessing["size"] == [32, 32]
    assert told == about(shipped, "float32")
    answer = onnx_answer(graph.SerializeToString())
    for images in (torch.rand(1, 3, 32, 32), torch.rand(5, 3, 32, 32)):
        mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET.mean, IMAGENET.std))
        with torch.no_grad():
            assert torch.allclose(answer(images), net((images - mean) / std), atol=1e-5)


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


def test_a_file_that_passes_is_written_and_one_that_fails_is_not(material: Material, monkeypatch: pytest.MonkeyPatch):
    path = material.run.folder / "student.pt"
    parity = export(material, "torchscript", path)
    assert parity.n == 30
    assert parity.agreement == 1
    assert parity.difference < 1e-4
    extra = {"metadata.json": ""}
    torch.jit.load(io.BytesIO(path.read_bytes()), _extra_files=extra)
    assert json.loads(extra["metadata.json"]) == about(material.shipped, "float32")

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
    with pytest.raises(BadData, match='did you mean "onnx"'):
        export(material, "onxx", material.run.folder / "a.onnx")
    with pytest.raises(BadData, match="end in .onnx"):
        export(material, "onnx", material.run.folder / "a.pt")
    _, other = student("mobilenet_v1", ("a", "b", "c"))
    with pytest.raises(BadData, match="the photographs that it was trained on"):
        export(replace(material, shipped=other), "onnx", material.run.folder / "a.onnx")
    assert list(material.run.folder.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("family", STUDENTS)
def test_every_family_exports_and_quantizes(family: str):
    net, shipped = student(family)
    images = torch.rand(4, 3, 32, 32)
    plain = float_onnx(deploy(net), shipped)
    portable = Portable(net, IMAGENET.mean, IMAGENET.std).eval()
    with torch.no_grad():
        assert torch.allclose(onnx_answer(plain.SerializeToString())(images), portable(images), atol=1e-4)
    form = quantized(net, INT8)
    calibrate(form, [torch.randn(64, 3, 32, 32)])
    answer = onnx_answer(quantized_onnx(form, plain, shipped, "int8"))
    with torch.no_grad():
        expected = Portable(form, IMAGENET.mean, IMAGENET.std).eval()(images)
    assert np.abs((answer(images) - expected).numpy()).max() < 0.1
