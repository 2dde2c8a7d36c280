"""Programs for ExecuTorch answer as PyTorch does; without the package the refusal is one line."""

import importlib.util
from pathlib import Path

import pytest
import torch

from bantam.data import cache
from bantam.data.splits import IMAGENET
from bantam.deliver.export import executorch as pte
from bantam.deliver.export.forms import (
    Material,
    about,
    export,
    portable,
    target_of,
)
from bantam.errors import BadData
from bantam.nets.budget import weigh
from bantam.nets.students import STUDENTS, describe
from bantam.runs.finished import open_run
from bantam.runs.shipped import Shipped

HERE = importlib.util.find_spec("executorch") is not None
needs_executorch = pytest.mark.skipif(
    not HERE, reason=f"executorch is not installed: pip install executorch=={pte.VERSION}"
)


def student(family: str) -> tuple[torch.nn.Module, Shipped]:
    torch.manual_seed(0)
    described = describe(family, 60_000 if family == "sample" else 5_000, 3, 32)
    net = described.build()
    with torch.no_grad():
        net.train()(torch.randn(16, 3, 32, 32))
    return described.shipped_form(net), Shipped(described, IMAGENET, ("0", "1", "2"))


def test_without_the_package_it_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(BadData, match=f"pip install executorch=={pte.VERSION}") as refused:
        target_of("executorch")
    assert "\n" not in str(refused.value)
    assert "onnx" in str(refused.value)


def test_the_version_that_is_named_is_the_pinned_one() -> None:
    pyproject = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    assert f'executorch = ["executorch=={pte.VERSION}"]' in pyproject


@needs_executorch
def test_a_program_passes_the_gate_and_says_what_it_wants(photographs: Path, tmp_path: Path) -> None:
    net, shipped = student("largekernel")
    splits = cache.open_splits(photographs, 32)
    parity = export(Material(open_run(tmp_path), net, shipped, splits), "executorch", tmp_path / "student.pte")
    assert parity.n == 30
    assert parity.agreement == 1
    assert parity.difference < 1e-4
    runtime = pte.Runtime((tmp_path / "student.pte").read_bytes())
    count = weigh(net, 32).counted
    assert runtime.metadata() == about(shipped, "float32", parameters_counted=count, parameters_in_file=count)


@needs_executorch
@pytest.mark.slow
@pytest.mark.parametrize("family", STUDENTS)
def test_every_family_becomes_a_program(family: str) -> None:
    net, shipped = student(family)
    whole = portable(net, shipped)
    images = torch.rand(3, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(pte.Runtime(pte.program(whole, 32, {}))(images), whole(images), atol=1e-4)
