"""`bantam bench pruning`: the versions that are timed, and that the sentences are those the figures ask for."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bantam.cli import main as cli
from bantam.compress.masks import zeros_in
from bantam.compress.pruning_curve import Subject
from bantam.data.splits import IMAGENET
from bantam.deliver.report import prunings
from bantam.errors import BadPruning
from bantam.nets.students import describe
from bantam.runs.finished import open_run
from bantam.runs.watcher import Watcher
from bantam.studies import pruning_speed


def test_the_versions_have_the_same_ratio_and_sparse_answers_as_masked() -> None:
    torch.manual_seed(0)
    student = describe("mobilenet_v1", 5_000, 3, 32)
    subject = Subject(student, student.build().eval(), IMAGENET)
    found = pruning_speed.versions(subject, 0.5)
    assert set(found) == {"dense", "masked", "sparse", "structured"}
    assert zeros_in(found["masked"]) == round(0.5 * 4_993)
    assert sum(parameter.numel() for parameter in found["structured"].parameters()) <= 4_993 - round(0.5 * 4_993)
    images = torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(found["sparse"](images), found["masked"](images), rtol=1e-4, atol=1e-4)
        assert not torch.allclose(found["dense"](images), found["masked"](images))
    rows = pruning_speed.rows_of("tiny", subject, 0.5, rounds=2)
    assert [(row["version"], row["batch"]) for row in rows] == [(name, batch) for batch in (1, 64) for name in found]
    assert all(row["quartiles_ms"][0] <= row["median_ms"] <= row["quartiles_ms"][1] for row in rows)
    assert len(pruning_speed.explained(rows, 0.5)) == 6


def rows(**speedups: float) -> list[dict[str, Any]]:
    macs = {"dense": 100, "structured": 20}
    return [
        {"net": "n", "version": version, "batch": batch, "speedup": speedup, "macs": macs.get(version)}
        for batch in (1, 64)
        for version, speedup in {"dense": 1.0, **speedups}.items()
    ]


def test_the_sentences_are_chosen_by_the_figures() -> None:
    slow = pruning_speed.explained(rows(masked=1.0, sparse=0.5, structured=1.0), 0.8)
    assert "multiplies zeros like any other number" in slow[0]
    assert "costs more than skipping zeros saves" in slow[1]
    assert "calling each layer" in slow[2]
    fast = pruning_speed.explained(rows(masked=1.3, sparse=2.0, structured=4.5), 0.8)
    assert "0.77 of the dense time" in fast[0]
    assert "outweighs" in fast[1]
    assert "less work for the same dense kernels" in fast[2]
    assert "small products" in pruning_speed.explained(rows(masked=1.0, sparse=1.0, structured=2.0), 0.8)[2]


def test_the_table_of_a_slow_net_has_80_columns() -> None:
    row = {"net": "depthwise_resnet", "version": "structured", "batch": 64, "median_ms": 12_168.2}
    row |= {"quartiles_ms": [10_815.79, 13_151.17], "speedup": 0.05, "bytes": 44_806_000}
    head, line, said = pruning_speed.text({"rows": [row], "explanation": ["so it is"]}).splitlines()
    assert len(head) == len(line) <= 80
    assert line.split() == [
        "depthwise_resnet",
        "structured",
        "64",
        "12,200",
        "10,800",
        "to",
        "13,200",
        "0.05x",
        "44.8",
        "MB",
    ]
    assert said == "so it is"


def test_the_command_measures_into_the_run_where_the_report_looks(
    own_run: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bench", "pruning", str(own_run), "--data", str(photographs), "--ratio", "0.5", "--rounds", "2"]
    monkeypatch.setattr("sys.argv", ["bantam", *words])
    with pytest.raises(SystemExit, match="^0$"):
        cli.main()
    said = capsys.readouterr().out
    measured = json.loads((own_run / "pruning" / "pruning_speed.json").read_text())
    assert [row["version"] for row in measured["rows"]] == ["dense", "masked", "sparse", "structured"] * 2
    assert all(line in said for line in measured["explanation"])
    shown = prunings.speed(open_run(own_run))
    assert [block.kind for block in shown.blocks] == ["paragraph", "paragraph", "table", "points"]
    assert shown.blocks[3].texts == measured["explanation"]


@pytest.mark.parametrize("ratio", ["0", "1", "nan", "-0.5"])
def test_a_ratio_that_prunes_nothing_or_all_is_refused_and_writes_nothing(
    ratio: str, own_run: Path, photographs: Path
) -> None:
    with pytest.raises(BadPruning, match="--ratio"):
        pruning_speed.pruning_speed([], photographs, float(ratio), 2, own_run / "speed.json", Watcher())
    assert not (own_run / "speed.json").exists()
