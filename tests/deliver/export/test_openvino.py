"""OpenVINO's pair of files answers as PyTorch does; without the package the refusal is one line."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch

from bantam.data import cache
from bantam.data.splits import IMAGENET
from bantam.deliver.export import forms
from bantam.deliver.export import openvino as ir
from bantam.deliver.export.forms import Material, Parity, export, target_of
from bantam.errors import BadData, ParityFailed
from bantam.nets.portable import Portable
from bantam.nets.students import describe
from bantam.runs.finished import open_run
from bantam.runs.shipped import Shipped

needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None,
    reason=f"openvino is not installed: pip install openvino=={ir.VERSION}",
)


@pytest.fixture
def material(photographs: Path, tmp_path: Path) -> Material:
    torch.manual_seed(0)
    described = describe("mobilenet_v1", 5_000, 3, 32)
    net = described.build()
    with torch.no_grad():
        net.train()(torch.randn(16, 3, 32, 32))
    shipped = Shipped(described, IMAGENET, ("0", "1", "2"))
    return Material(open_run(tmp_path), described.shipped_form(net), shipped, cache.open_splits(photographs, 32))


def test_without_the_package_it_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(BadData, match=f"pip install openvino=={ir.VERSION}") as refused:
        target_of("openvino")
    assert "\n" not in str(refused.value)
    assert "onnx" in str(refused.value)


def test_the_version_that_is_named_is_the_pinned_one() -> None:
    pyproject = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    assert f'openvino = ["openvino=={ir.VERSION}"]' in pyproject


def pair_of(encode: Callable[[Material], tuple[bytes, bytes]]) -> forms.Target:
    """A format of two files; what they say is not looked at."""
    return forms.Target(encode, lambda graph, weights: lambda images: images, forms.EXACT, ".a", beside=(".b",))


def test_two_files_are_written_together_or_not_at_all(material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    files, passes = [(b"graph", b"weights"), (b"new graph", b"new weights")], Parity(0, 1, 1, 1, 30)
    target = pair_of(lambda _: files.pop(0))
    monkeypatch.setitem(forms.TARGETS.found, "torchscript", target)
    monkeypatch.setattr(forms, "compare", lambda *_: passes)
    graph, weights = material.run.folder / "student.a", material.run.folder / "student.b"
    export(material, "torchscript", graph)
    assert (graph.read_bytes(), weights.read_bytes()) == (b"graph", b"weights")

    monkeypatch.setattr(forms, "compare", lambda *_: Parity(1, 1, 1, 1, 30))
    with pytest.raises(ParityFailed):
        export(material, "torchscript", graph)
    assert (graph.read_bytes(), weights.read_bytes()) == (b"graph", b"weights")


def test_a_kill_between_two_files_leaves_no_graph_of_other_weights(
    material: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = (b"new graph", b"new weights")
    target = pair_of(lambda _: files)
    monkeypatch.setitem(forms.TARGETS.found, "torchscript", target)
    monkeypatch.setattr(forms, "compare", lambda *_: Parity(0, 1, 1, 1, 30))
    graph, weights = material.run.folder / "student.a", material.run.folder / "student.b"
    graph.write_bytes(b"graph")
    weights.write_bytes(b"weights")
    whole = forms.replacing

    def killed(path: Path):
        if path == graph:
            raise KeyboardInterrupt
        return whole(path)

    monkeypatch.setattr(forms, "replacing", killed)
    with pytest.raises(KeyboardInterrupt):
        export(material, "torchscript", graph)
    assert not graph.exists()


@needs_openvino
def test_a_pair_passes_the_gate_and_says_what_it_wants(material: Material) -> None:
    path = material.run.folder / "student.xml"
    parity = export(material, "openvino", path)
    assert (parity.n, parity.agreement) == (30, 1)
    assert parity.difference < 1e-4
    answer = ir.Runtime(path.read_bytes(), path.with_suffix(".bin").read_bytes(), threads=1)
    net = Portable(material.net, IMAGENET.mean, IMAGENET.std).eval()
    for images in (torch.rand(1, 3, 32, 32), torch.rand(5, 3, 32, 32)):
        with torch.no_grad():
            torch.testing.assert_close(answer(images), net(images), rtol=0, atol=1e-4)
    told = {item.tag: item.get("value", "") for item in ElementTree.parse(path).findall("rt_info/framework/*")}
    assert json.loads(told["classes"]) == ["0", "1", "2"]
    assert int(told["parameters_counted"]) < int(told["parameters_in_file"])
