"""Every form that is timed is the student."""

import io

import pytest
import torch
from PIL import Image

from bantam.data.augment import plain
from bantam.data.splits import IMAGENET
from bantam.deliver.export import speeds
from bantam.deliver.export.forms import PIXELS
from bantam.runs.finished import open_run
from tiny_student import tiny_student


@pytest.fixture(scope="module")
def forms(tmp_path_factory: pytest.TempPathFactory):
    return speeds.answers_of(open_run(tmp_path_factory.mktemp("run")), *tiny_student())


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


def test_the_text_has_both_lines_of_each_form_and_a_column_for_each_thing_within_80_columns() -> None:
    rows = [
        speeds.Speed(form, what, batch, 2345.6, (1012.34, 4012.34))
        for what, batch in ((speeds.NET_ALONE, 1), (speeds.NET_ALONE, 64), (speeds.FILE_TO_CLASS, 1))
        for form in ("PyTorch", "ONNX Runtime without zeros")
    ]
    text = speeds.speeds_text(rows).splitlines()
    what, head, *lines = text
    assert what.split() == ["net", "alone", "net", "alone", "file", "to", "class"]
    assert head.split("  ")[0] == "form"
    assert [column.strip() for column in head.split("  ") if column][1:] == [
        "1 image, ms",
        "64 images, ms",
        "1 image, ms",
    ]
    assert [line.split("  ")[0] for line in lines] == ["PyTorch", "", "ONNX Runtime without zeros", ""]
    assert all(line.count("2,350") == 3 for line in lines[::2])
    assert all(line.count("(1,010 to 4,010)") == 3 for line in lines[1::2])
    assert max(map(len, text)) <= 80
