import json
import re
import subprocess
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from bantam.cli.main import app
from bantam.compress.device import DeviceStudent
from bantam.compress.integers import INT8, layers_of, quantized
from bantam.data import cache
from bantam.deliver.export import c, c_text, compiled
from bantam.deliver.export.c import CFile, c_file, compare_all, require_equal
from bantam.deliver.export.c_source import source_of
from bantam.deliver.export.c_text import Facts, header_of
from bantam.deliver.export.compiled import SANITIZED, STRICT, Compiled, compiler
from bantam.deliver.export.forms import Material, export
from bantam.errors import BadData, ParityFailed
from bantam.nets.device.arena import plan
from bantam.nets.device.needs import constants
from bantam.nets.pruned import widths_of
from bantam.nets.students import STUDENTS
from bantam.runs import checkpoint, runfolder
from bantam.runs.finished import open_run
from device_students import bytes_of, described, images, in_bytes
from tiny_student import tiny_student

needs_compiler = pytest.mark.skipif(compiler() is None, reason="there is no C compiler (cc, gcc or clang)")

NAMES = ("a", "b", "c", "d", "e")


def file_of(student: DeviceStudent, size: int, threshold: float = 0.9, names: tuple[str, ...] = NAMES) -> CFile:
    return CFile(student, plan(student.program), Facts("a student", names, size, threshold, "not checked"))


@pytest.fixture
def material(photographs: Path, tmp_path: Path) -> Material:
    net, shipped = tiny_student()
    return Material(open_run(tmp_path), net, shipped, cache.open_splits(photographs, 32))


@needs_compiler
@pytest.mark.parametrize("family", STUDENTS)
def test_every_family_says_in_c_what_its_simulation_says(family: str):
    size = described(family).size
    made = file_of(in_bytes(family), size)
    shown = images(6, size)
    compare_all(Compiled(*made.files(), STRICT).answers(shown, 5), made.expected(shown, 0.9))


@needs_compiler
def test_a_pruned_student_says_in_c_what_its_simulation_says():
    whole = described("mobilenet_v1")
    net = whole.build()
    last = f"stages.{len(net.stages) - 1}.1.1"
    conv = net.get_submodule(f"{last}.0")
    assert isinstance(conv, torch.nn.Conv2d)
    stays, inputs = torch.arange(conv.out_channels - 2), torch.arange(conv.in_channels)
    kept = {f"{last}.0": (stays, inputs), f"{last}.1": (stays, stays), "head": (torch.arange(5), stays)}
    made = file_of(bytes_of(replace(whole, pruned=widths_of(net, kept))), whole.size)
    assert made.student.layers[max(made.student.layers)].weight.shape[1] == conv.out_channels - 2
    shown = images(6, whole.size)
    compare_all(Compiled(*made.files(), STRICT).answers(shown, 5), made.expected(shown, 0.9))


@needs_compiler
def test_what_was_trained_on_integers_keeps_its_integers(own_run: Path, photographs: Path):
    run = open_run(own_run)
    net, shipped = run.whole_way()
    trained = quantized(net, INT8)
    with torch.no_grad():  # as a training moves them
        for layer in layers_of(trained).values():
            layer.weight_scale.mul_(0.9)
            layer.layer.weight.mul_(0.97)
    checkpoint.save_weights(run.quantized / "int8-qat" / runfolder.BEST, trained.state_dict())
    runfolder.write(run.quantized / runfolder.QUANTIZATION, {"chosen": {"int8": "int8-qat"}})
    made = c_file(Material(run, net, shipped, cache.open_splits(photographs, 32)))

    def told(weights: Iterable[torch.Tensor]) -> list[list[int]]:
        return sorted(weight.flatten().tolist() for weight in weights)

    assert told(layer.weight for layer in made.student.layers.values()) == told(
        layer.integers() for layer in layers_of(trained).values()
    )
    shown = images(6, shipped.student.size)
    compare_all(Compiled(*made.files(), STRICT).answers(shown, 3), made.expected(shown, 0.9))


@needs_compiler
@pytest.mark.parametrize("threshold", [0.0, 0.3, 2.0])
def test_an_image_leaves_at_the_exit_that_is_sure(threshold: float):
    made = file_of(in_bytes("mobilenet_v1", (1, 3)), 16, threshold)
    shown = images(12)
    scores, left = made.expected(shown, threshold)
    assert {0.0: {0}, 0.3: {0, 1, 2}, 2.0: {2}}[threshold] >= set(left.tolist())
    compare_all(Compiled(*made.files()).answers(shown, 5), (scores, left))
    never = Compiled(*made.files(), (*STRICT, "-DBANTAM_SURE=2.0f"))
    compare_all(never.answers(shown, 5), made.expected(shown, 2.0))


@needs_compiler
@pytest.mark.parametrize("family", ["largekernel", "mobilenet_v3"])
def test_vectorised_code_says_the_same(family: str):
    made = file_of(in_bytes(family), 16)
    fast = ("-std=gnu11", "-O3", "-march=native")  # with fused products and sums, if nobody forbade them
    shown = images(6)
    compare_all(Compiled(*made.files(), fast).answers(shown, 5), made.expected(shown, 0.9))


@needs_compiler
def test_rearranged_sums_are_refused_by_the_file_itself():
    made = file_of(in_bytes("mobilenet_v1"), 16)
    with pytest.raises(ParityFailed, match="without -ffast-math"):
        Compiled(*made.files(), ("-std=c99", "-O2", "-ffast-math"))


@needs_compiler
def test_a_file_that_reads_what_it_must_not_is_found():
    made = file_of(in_bytes("mobilenet_v1"), 16)
    source, header = made.files()
    assert b"arena[" in source
    small = re.sub(rb"arena\[(\d+)\]", lambda found: b"arena[%d]" % (int(found[1]) - 1), source)
    if not compiled.can_watch():
        pytest.skip("the compiler has no sanitizers")
    with pytest.raises(ParityFailed, match="does not pass"):
        Compiled(small, header, SANITIZED).answers(images(2), 5)


def test_the_constants_are_those_that_were_planned():
    student = in_bytes("largekernel")
    made = file_of(student, 16)
    sizes = {"int8_t": 1, "uint8_t": 1, "uint16_t": 2, "int32_t": 4, "float": 4}
    source = made.files()[0].decode()
    arrays = re.findall(r"static const (\w+) \w+\[[^=]*\] = \{\n(.*?)\n\};", source, re.DOTALL)
    found = sum(sizes[kind] * len(re.findall(r"[-\w.+]+", body)) for kind, body in arrays)
    assert found + 16 * len(student.program.maps) == constants(student.program, made.arena)


def test_the_file_repeats_its_header_and_needs_nothing_else():
    made = file_of(in_bytes("mobilenet_v1"), 16)
    source, header = (text.decode() for text in made.files())
    assert source.startswith(header.rstrip())
    assert set(re.findall(r"#include (\S+)", source)) == {"<stdint.h>", "<float.h>"}
    with_exits = source_of(in_bytes("mobilenet_v1", (1, 3)), plan(in_bytes("mobilenet_v1", (1, 3)).program), made.facts)
    assert set(re.findall(r"#include (\S+)", with_exits)) == {"<stdint.h>", "<float.h>", "<string.h>"}
    assert "malloc" not in source


def test_only_the_kernels_that_are_used_are_there():
    text = file_of(in_bytes("mobilenet_v1"), 16).files()[0].decode()
    assert "static void depthwise(" in text
    assert "hardswish" not in text
    assert "static void largest(" not in text


@needs_compiler
def test_names_of_classes_are_strings_whatever_they_are(tmp_path: Path):
    names = ('a "b"', "c\\d*/", "Käse", "x??/", "e\n")
    student = in_bytes("mobilenet_v1")
    header = header_of(student, replace(file_of(student, 16).facts, classes=names, title="a */ student"))
    (tmp_path / "student.h").write_text(header)
    (tmp_path / "main.c").write_text(
        '#include <stdio.h>\n#include "student.h"\nstatic const char *const names[] = BANTAM_CLASS_NAMES;\n'
        'int main(void) { for (int k = 0; k < BANTAM_CLASSES; k++) printf("%s|", names[k]); return 0; }\n'
    )
    words = [compiler() or "", *STRICT, "main.c", "-o", "main"]
    subprocess.run(words, cwd=tmp_path, check=True)
    told = subprocess.run([tmp_path / "main"], capture_output=True, check=True).stdout.decode()
    assert told == "|".join((*names, ""))


def test_numbers_are_written_so_that_they_come_back():
    for value in (1.0, 0.1, 1e-20, 123456789.0, 2.0**-149 * 3, 1 / 3):
        (single,) = torch.tensor([value]).tolist()
        text = c_text.float_text(single)
        assert text.endswith("f")
        assert "." in text or "e" in text
        assert torch.tensor([float(text[:-1])]).tolist() == [single]


@needs_compiler
def test_an_export_is_checked_and_says_so(material: Material, tmp_path: Path):
    parity = export(material, "c", tmp_path / "student.c", program=True)
    assert parity.note.startswith("compiled, every score on 30 images is the simulation's, bit for bit")
    text = (tmp_path / "student.c").read_text()
    assert "Checked: compiled, every score on 30 images" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["main.c", "student.c", "student.h"]
    subprocess.run([compiler() or "", *STRICT, "main.c", "student.c", "-o", "main"], cwd=tmp_path, check=True)
    told = subprocess.run([tmp_path / "main"], capture_output=True, check=True, text=True).stdout
    expected = c_file(material).expected(c.images_of(material.splits.validation, 32)[:1], 0.9)[0]
    assert told == f"{int(expected.argmax())}\n"


@needs_compiler
def test_what_says_something_else_is_not_written(material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    kernels = c_text.kernels

    def wrong(body: str) -> list[str]:
        return [part.replace("255 - zero", "254 - zero") for part in kernels(body)]

    monkeypatch.setattr("bantam.deliver.export.c_source.kernels", wrong)
    with pytest.raises(ParityFailed, match="something else than its simulation on .* so nothing is written"):
        export(material, "c", tmp_path / "student.c", program=True)
    assert not list(tmp_path.iterdir())


def test_without_a_compiler_the_file_is_not_claimed_to_be_checked(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(c, "compiler", lambda: None)
    parity = export(material, "c", tmp_path / "student.c")
    assert parity.note.startswith("Not checked: there was no C compiler")
    assert "Not checked" in (tmp_path / "student.c").read_text()


@needs_compiler
def test_a_difference_of_one_bit_is_seen():
    made = file_of(in_bytes("mobilenet_v1"), 16)
    shown = images(3)
    scores, left = made.expected(shown, 0.9)
    scores[2, 1] = torch.nextafter(scores[2, 1], torch.tensor(9e9))
    with pytest.raises(ParityFailed, match="on 1 of 3 images"):
        require_equal(made, shown, (scores, left))


@pytest.mark.parametrize(
    ("to", "name", "said"),
    [("onnx", "x.onnx", "--example goes with forms that are source code"), ("c", "main.c", "--example writes main.c")],
)
def test_an_example_that_there_cannot_be(material: Material, tmp_path: Path, to: str, name: str, said: str):
    with pytest.raises(BadData, match=said):
        export(material, to, tmp_path / name, program=True)
    assert not list(tmp_path.iterdir())


@needs_compiler
def test_the_command_writes_into_a_folder(finished_run: Path, photographs: Path, tmp_path: Path):
    words = ["export", str(finished_run), "--data", str(photographs), "--to", "c", "--out", str(tmp_path / "device")]
    done = CliRunner().invoke(app, [*words, "--example", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["n"] == 30
    files = sorted((tmp_path / "device").iterdir())
    assert [path.name for path in files] == ["main.c", "student.c", "student.h"]
    assert told["bytes"] == sum(path.stat().st_size for path in files)
