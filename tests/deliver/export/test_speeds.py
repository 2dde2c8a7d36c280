"""Every form that is timed is the student."""

import io

import pytest
import torch
from PIL import Image

from bantam.data.augment import plain
from bantam.data.splits import IMAGENET
from bantam.deliver.export import speeds
from bantam.deliver.export.forms import PIXELS
from bantam.nets.students import describe
from bantam.runs.finished import open_run
from bantam.runs.shipped import Shipped


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory):
    torch.manual_seed(0)
    described = describe("mobilenet_v1", 5_000, 3, 32)
    net = described.build()
    with torch.no_grad():
        net.train()(torch.randn(16, 3, 32, 32))
    shipped = Shipped(described, IMAGENET, ("0", "1", "2"))
    return speeds.answers_of(open_run(tmp_path_factory.mktemp("run")), described.shipped_form(net), shipped)


def test_every_form_answers_as_the_net_does(forms) -> None:
    pixels = torch.randint(0, 256, (5, 32, 32, 3), dtype=torch.uint8)
    views = {mark: plain(pixels, 32, mark.mean, mark.std) for mark in (IMAGENET, PIXELS)}
    with torch.inference_mode():
        said = {form: answer(views[IMAGENET if form == "PyTorch" else PIXELS]) for form, answer in forms.items()}
    assert {"PyTorch", "ONNX Runtime without zeros", "ONNX Runtime", "ONNX Runtime int8"} <= said.keys()
    for form, logits in said.items():
        near = 0.1 if form == "ONNX Runtime int8" else 1e-5
        torch.testing.assert_close(logits, said["PyTorch"], rtol=0, atol=near)


def test_each_form_takes_its_turn_and_half_of_them_lie_between_the_quartiles() -> None:
    asked: list[str] = []
    rows = speeds.timed({name: lambda name=name: asked.append(name) for name in "ab"}, "what", 3, rounds=4)
    assert asked == list("aabb") * 5
    assert [(row.form, row.what, row.batch) for row in rows] == [("a", "what", 3), ("b", "what", 3)]
    assert all(row.quartiles_ms[0] <= row.median_ms <= row.quartiles_ms[1] for row in rows)


def test_the_photograph_is_one() -> None:
    image = Image.open(io.BytesIO(speeds.jpeg()))
    assert (image.format, image.size) == ("JPEG", (512, 384))
    assert speeds.jpeg() == speeds.jpeg()


def test_the_text_has_a_line_for_each_form_and_a_column_for_each_thing() -> None:
    rows = [
        speeds.Speed(form, what, batch, 2.0, (1.0, 4.0))
        for what, batch in (("net alone", 1), ("net alone", 64))
        for form in ("PyTorch", "ONNX Runtime")
    ]
    head, *lines = speeds.speeds_text(rows).splitlines()
    assert head.split("  ")[0] == "form"
    assert "net alone, 1 image " in head
    assert head.endswith("net alone, 64 images")
    assert [line.split("  ")[0] for line in lines] == ["PyTorch", "ONNX Runtime"]
    assert all(line.count("2.00 (1.00 to 4.00) ms") == 2 for line in lines)
