"""The tables about pruned nets, integers and cascades, from files as the commands write them."""

import json
from pathlib import Path

import pytest

from bantam.compress.pruning_curve import Point, write_curve
from bantam.measure.accuracy import Accuracy
from compression_tables import cascade, dynamic, pruning_curve, quantization
from provenance import evidence

ENVIRONMENT = {
    "command": ["bantam", "prune", "strong"],
    "commit": "0123456789",
    "versions": {"torch": "2.14.1"},
    "onnxruntime": "1.32.0",
    "gpu": None,
    "cores": 2,
    "processor": "Fast (avx2)",
}
VERSIONS = ("torch", "torchvision", "numpy")
MADE = "on 2 cores, Fast (avx2); torch 2.14.1, commit 01234567."


def results(root: Path, name: str, value: object) -> Path:
    path = root / "benchmarks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return root


def point(method: str, ratio: float, *correct: int | None) -> Point:
    before, reestimated, finetuned = (None if hits is None else Accuracy(hits, 1000) for hits in correct)
    assert before is not None
    return Point(method, ratio, ratio, int(1000 * (1 - ratio)), None, before, reestimated, finetuned)


@pytest.mark.parametrize("of", ["teacher", "student"])
def test_a_curve_is_told_at_a_few_ratios(of: str, tmp_path: Path) -> None:
    points = [
        point("unstructured-global", 0.0, 700, None, None),
        point("unstructured-global", 0.05, 699, None, None),
        point("unstructured-global", 0.5, 500, None, None),
        point("structured-taylor", 0.0, 700, 690, None),
        point("structured-taylor", 0.9, 100, 200, 600),
    ]
    folder = tmp_path / "benchmarks" / f"pruning-{of}"
    write_curve(folder, points, {"title": "pruning a net", "environment": ENVIRONMENT})
    lines = pruning_curve(tmp_path, of).splitlines()
    assert lines[0] == "| ratio | unstructured-global | structured-taylor |"
    assert lines[2:5] == [
        "| 0 | 0.700 / - / - | 0.700 / 0.690 / - |",
        "| 0.5 | 0.500 / - / - | - |",
        "| 0.9 | - | 0.100 / 0.200 / 0.600 |",
    ]
    assert lines[6].startswith("Validation accuracy as pruned, BatchNorm re-estimated, fine-tuned; n = 1,000, standard")
    assert "errors up to 0.016. `bantam prune strong`" in lines[6]
    assert lines[6].endswith(MADE)
    assert lines[8] == f"![pruning a net](../results/benchmarks/pruning-{of}/curve.svg)"
    assert (folder / "curve.svg").exists()


def test_a_curve_is_among_the_evidence(tmp_path: Path) -> None:
    about = {"title": "t", "environment": {**ENVIRONMENT, "versions": dict.fromkeys(VERSIONS, "1.0")}}
    write_curve(tmp_path / "benchmarks" / "pruning-student", [point("structured-taylor", 0.5, 1, None, None)], about)
    row = evidence(tmp_path).splitlines()[2]
    assert row.startswith("| benchmarks/pruning-student | `bantam prune strong` | - | 1,000 | 01234567 | 2 cores,")


def test_a_benchmark_that_was_held_in_parts_names_all_their_commits(tmp_path: Path) -> None:
    environment = {**ENVIRONMENT, "versions": dict.fromkeys(VERSIONS, "1.0"), "resumed": ["fedcba9876"]}
    one = results(tmp_path, "one.json", {"environment": environment, "rows": [{"n": 5}]})
    rows = [{"n": 5, "commits": ["bbbbbbbbbb", "aaaaaaaaaa"]}, {"n": 5, "commits": ["aaaaaaaaaa", None]}]
    results(tmp_path, "parts.json", {"environment": environment, "rows": rows})
    whole, parts = evidence(one).splitlines()[2:]
    assert "| 01234567, then fedcba98 |" in whole
    assert "| aaaaaaaa, bbbbbbbb |" in parts


def test_looks_that_were_not_taken_are_left_out(tmp_path: Path) -> None:
    write_curve(
        tmp_path / "benchmarks" / "pruning-student",
        [point("unstructured-global", 0.0, 700, None, None)],
        {"title": "t", "environment": ENVIRONMENT},
    )
    assert "| 0 | 0.700 |" in pruning_curve(tmp_path, "student")


def form(name: str, **changes: float) -> dict[str, float | str]:
    row = {"accuracy": 0.7062, "standard_error": 0.0068, "n": 4432, "mcnemar_p": 1.0, "agreement": 1.0}
    return {"name": name, **row, "bytes": 245_789, "median_ms": 1.176, **changes}


def test_every_student_has_its_integers(tmp_path: Path) -> None:
    rows = [form("fp32"), form("int8-qat", mcnemar_p=0.00065, agreement=0.984, bytes=92_385)]
    about = {"packed_int4_bytes": 45_156, "environment": ENVIRONMENT, "rows": rows}
    results(tmp_path, "quantization-medium.json", {"student": "mobilenet_v1", "epochs": 0, **about})
    results(tmp_path, "quantization-strong.json", {"student": "largekernel", "epochs": 3, **about})
    text = quantization(tmp_path)
    first, second = text.split("Student of `strong`")
    assert "Student of `medium` (mobilenet_v1), 4,432 validation images" in first
    assert "no training on integers; int4 packed: 45.2 kB" in first
    assert "qat: 3 epochs of training on integers" in second
    for part in (first, second):
        assert "| fp32 | 0.7062 ± 0.0068 | - | 100.0% | 245.8 | 1.18 |" in part
        assert "| int8-qat | 0.7062 ± 0.0068 | 0.00065 | 98.4% | 92.4 | 1.18 |" in part
        assert MADE in part


@pytest.mark.parametrize("name", ["cascade", "slim", "sizes"])
def test_the_cascade_is_told_with_the_nets_alone(name: str, tmp_path: Path) -> None:
    low = {
        "kind": "static",
        "pass": "32 px",
        "accuracy": 0.464,
        "standard_error": 0.007,
        "n": 4432,
        "mean_macs": 2.336e6,
        "mcnemar_p": 0.00012,
    }
    full = {**low, "pass": "64 px", "accuracy": 0.7, "mean_macs": 9e6, "mcnemar_p": 1.0}
    other = {**low, "kind": "cascade", "accuracy": 0.1}
    measured = {
        "student": "sample",
        "drop": 0.003,
        "reference": {"pass": "64 px", "accuracy": 0.7, "macs": 9_000_000},
        "environment": ENVIRONMENT,
        "rows": [low, full, other],
    }
    results(tmp_path, f"{name}.json", {**measured, "chosen": None})
    without = cascade(tmp_path, name)
    assert "| 32 px alone | 0.464 ± 0.007 | 0.00012 | 2.34 |" in without
    assert "| 64 px alone | 0.700 ± 0.007 | - | 9.00 |" in without
    assert "0.100" not in without
    assert "No cascade has fewer mean MACs with 0.3 points less" in without
    found = {"accuracy": 0.698, "mean_macs": 4.5e6, "threshold": 0.625, "stopped": 0.75, "held_out_accuracy": 0.696}
    without_kind = {key: value for key, value in other.items() if key != "kind"}
    results(tmp_path, f"{name}.json", {**measured, "chosen": {**without_kind, **found}})
    chosen = cascade(tmp_path, name)
    assert "| 32 px, then 64 px | 0.698 ± 0.007 | 0.00012 | 4.50 |" in chosen
    assert "At the threshold 0.62, 75.0% stop after the first pass: 50% fewer mean MACs than 64 px alone" in chosen
    assert "0.2 points less accuracy; 0.696 on images that did not choose it. `bantam prune strong`" in chosen
    assert "No cascade" not in chosen


@pytest.mark.parametrize("name", ["exits", "views-while-unsure"])
def test_the_ways_out_are_told_with_what_they_save(name: str, tmp_path: Path) -> None:
    alone = {"kind": "exit 1 alone", "accuracy": 0.5, "standard_error": 0.01, "n": 1000, "mean_macs": 3e6}
    measured = {
        "student": "mobilenet_v1",
        "left_at": ["exit 1", "exit 2", "the end"],
        "reference": {"accuracy": 0.7, "standard_error": 0.01, "macs": 8_000_000},
        "rows": [alone, {**alone, "kind": "the net alone", "accuracy": 0.7, "mean_macs": 8e6}],
        "environment": ENVIRONMENT,
    }
    results(tmp_path, f"{name}.json", {**measured, "chosen": None})
    assert "No threshold has fewer mean MACs" in dynamic(tmp_path, name)
    chosen = {
        **alone,
        "kind": "early exits",
        "accuracy": 0.69,
        "mean_macs": 4e6,
        "threshold": 0.8,
        "shares": [0.5, 0.25, 0.25],
        "mcnemar_p": 0.04,
        "held_out_accuracy": 0.688,
    }
    results(tmp_path, f"{name}.json", {**measured, "chosen": chosen})
    said = dynamic(tmp_path, name)
    assert "| exit 1 alone | 0.500 ± 0.010 | 3.00 |" in said
    assert "50.0% at exit 1, 25.0% at exit 2, 25.0% at the end leave: 50% fewer mean MACs than the net alone" in said
    assert "1.0 points less accuracy (p 0.04); 0.688 on images that did not choose it" in said
    assert said.endswith(MADE)
