"""`bantam students` and `bantam bench cost` as a user types them."""

import json
import re
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch

from bantam.cli import cost as cli_cost
from bantam.cli import main as cli
from bantam.data.splits import IMAGENET
from bantam.deliver.export import speeds
from bantam.files import write_json
from bantam.measure import cost
from bantam.nets.budget import weigh
from bantam.nets.footprint import footprint
from bantam.nets.students import STUDENTS, describe
from bantam.runs.shipped import Shipped, ship

OPTIONS = ["--budget", "5000", "--size", "32", "--classes", "3"]


@pytest.fixture(autouse=True)
def few_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The times themselves are not looked at."""
    monkeypatch.setattr(cost.latencies, "__defaults__", (1,))
    monkeypatch.setattr(speeds.form_speeds, "__defaults__", (2,))
    # Making the real ones takes seconds, and they have tests of their own.
    forms = {name: lambda images: images.flatten(1) for name in ("PyTorch", "another")}
    monkeypatch.setattr(speeds, "answers_of", lambda *_: forms)


@pytest.fixture
def three_families(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the families do not matter, three of them take a fifth of the time."""
    three = ("sample", "mobilenet_v1", "recurrent")
    monkeypatch.setattr(cost, "STUDENTS", {name: STUDENTS[name] for name in three})


@pytest.fixture
def bantam(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Call the command line in this process; gives exit status, stdout and stderr."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["bantam", *map(str, words)])
        status = 0
        try:
            cli.main()
        except SystemExit as stopped:
            status = int(stopped.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def test_the_table_has_every_family_or_why_it_does_not_fit(bantam) -> None:
    status, out, error = bantam("students", *OPTIONS)
    assert status == 0, error
    upper, head, *rows = out.splitlines()
    assert upper.split() == ["torch-", "M", "kB", "ms", "kB", "of"]
    assert head.split() == ["net", "parameters", "summary", "MACs", "file", "ms", "95%", "maps"]
    assert max(map(len, [upper, head, *(row for row in rows[: len(STUDENTS)] if "needs" not in row)])) <= 80
    assert [row.split()[0] for row in rows[: len(STUDENTS)]] == list(STUDENTS)
    for row in rows[: len(STUDENTS)]:
        name, *cells = row.split()
        if name == "sample":
            assert "needs 59,043 parameters for 3 classes" in row
        if name not in ("mobilenet_v1", "recurrent"):
            continue
        net = describe(name, 5_000, 3, 32).shipped_net()
        weight, here = weigh(net, 32), footprint(net, 32)
        assert cells[:2] == [f"{weight.unique:,}", f"{weight.torchsummary:,}"]
        assert cells[2] == f"{here.macs / 1e6:.2f}"
        assert cells[-1] == f"{here.activation_bytes / 1e3:.1f}"


@pytest.mark.usefixtures("three_families")
def test_json_has_the_limits_and_the_shapes_that_keep_them(bantam) -> None:
    status, out, error = bantam("students", *OPTIONS, "--macs", 600_000, "--bytes", 36_000, "--json")
    assert status == 0, error
    said = json.loads(out)
    given = {"parameters": 5000, "macs": 600_000, "disk_bytes": 36_000}
    assert said["limits"] == {**dict.fromkeys(("activation_bytes", "ram", "flash")), **given}
    assert said["families"].keys() == {"sample", "mobilenet_v1", "recurrent"}
    fitting = {name: row for name, row in said["families"].items() if "reason" not in row}
    assert fitting.keys() == {"mobilenet_v1", "recurrent"}
    for row in fitting.values():
        assert row["parameters"]["torchsummary"] <= 5000
        assert row["macs"] <= 600_000
        assert row["disk_bytes"] <= 36_000
        assert row["latency"]["median_ms"] <= row["latency"]["p95_ms"]
        assert row["shape"]["strides"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["students", "--budget", "0"], '--budget must be a whole number above 0, not "0"'),
        (["students", "--budget", "-5"], 'not "-5"'),
        (["students", "--budget", "many"], 'not "many"'),
        (["students", "--budget", "6e4"], 'not "6e4"'),
        (["students", "--macs", "few"], "--macs must be a whole number above 0"),
        (["students", "--activation-memory", "0"], "--activation-memory must be"),
        (["students", "--bytes", "-1"], "--bytes must be"),
        (["students", "--size", "0"], "--size must be"),
        (["students", "--classes", "none"], "--classes must be"),
        (["students", "--budget", "100", "--size", "32"], "no family fits; the smallest"),
        (["students", "--plot", "plot.png"], "must end in .svg"),
        (["summary", "mobilnet_v1"], "did you mean 'mobilenet_v1'"),
        (["summary", "mobilenet_v1", "--budget", "many"], "--budget must be"),
        (["summary", "mobilenet_v1", "--size", "0"], "--size must be"),
        (["summary", "sample", "--size", "16"], "16 px is too small for sample"),
        (["bench", "cost", "nowhere"], "there is no run nowhere"),
    ],
    ids=" ".join,
)
def test_mistakes_are_one_line(bantam, words: list[str], said: str) -> None:
    status, out, error = bantam(*words)
    assert status == 1
    assert out == ""
    assert error.startswith("bantam: ")
    assert said in error
    assert error.count("\n") == 1


ROWS: list[dict[str, Any]] = [
    {"family": "densenet", "accuracy": 0.71, "standard_error": 0.007, "macs": 17_800_000, "parameters": {"unique": 1}},
    {"family": "reparam", "accuracy": 0.74, "standard_error": 0.006, "macs": 9_300_000, "parameters": {"unique": 1}},
    {"family": "sample", "failed": "out of memory"},
]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the results of a tournament, which is the current one."""
    write_json(tmp_path / cli_cost.TOURNAMENT, {"rows": ROWS})
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("three_families")
def test_the_plot_names_the_families_that_finished_and_is_the_same_each_time(bantam, checkout: Path) -> None:
    for name in ("first.svg", "second.svg"):
        status, out, error = bantam("students", *OPTIONS, "--plot", checkout / name)
        assert status == 0, error
        assert f"plot: {checkout / name}" in out
    drawn = (checkout / "first.svg").read_text()
    texts = {"".join(element.itertext()).strip() for element in ElementTree.fromstring(drawn).iter()}
    assert {"densenet", "reparam", "million multiply-accumulates for one image"} <= texts
    assert "sample" not in texts
    assert drawn == (checkout / "second.svg").read_text()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no accuracies to plot yet"),
        ("{", "does not hold the tournament's results"),
        ("[]", "does not hold the tournament's results"),
        (json.dumps({"rows": [{"family": "densenet"}]}), "does not hold the tournament's results"),
        (json.dumps({"rows": [{**ROWS[0], "macs": "many"}]}), "does not hold the tournament's results"),
        (json.dumps({"rows": ROWS[2:]}), "no family in"),
    ],
    ids=["missing", "no JSON", "a list", "no accuracy", "text", "all failed"],
)
def test_results_that_cannot_be_plotted_are_one_line(bantam, checkout: Path, content: str | None, said: str) -> None:
    (checkout / cli_cost.TOURNAMENT).unlink()
    if content is not None:
        (checkout / cli_cost.TOURNAMENT).write_text(content)
    status, _, error = bantam("students", "--plot", checkout / "plot.svg")
    assert status == 1
    assert said in error
    assert error.count("\n") == 1
    assert not (checkout / "plot.svg").exists()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """What a finished run leaves behind, as far as its cost is about it."""
    torch.manual_seed(0)
    student = describe("reparam", 5_000, 3, 32)
    folder = tmp_path / "run"
    ship(folder, Shipped(student, IMAGENET, ("a", "b", "c")), student.build().state_dict())
    write_json(folder / "metrics.json", {"validation": {"plain": 0.75, "flipped": 0.8, "flip": True, "n": 400}})
    return folder


def test_runs_stand_side_by_side_with_the_accuracy_of_the_one_pass_that_is_costed(
    bantam, run: Path, tmp_path: Path
) -> None:
    other = run.rename(tmp_path / "moved")
    status, out, error = bantam("bench", "cost", other)
    assert status == 0, error
    assert "0.750 ± 0.022" in out
    assert re.search(r"^another( +[\d.,]+){3}\n( +\([\d.,]+ to [\d.,]+\)){3}$", out, re.MULTILINE)
    status, out, error = bantam("bench", "cost", other, "--json")
    said = json.loads(out)[str(other)]
    net = describe("reparam", 5_000, 3, 32).shipped_net()
    assert said["macs"] == footprint(net, 32).macs
    assert said["disk_bytes"] == (other / "student_best.ckpt").stat().st_size
    timed = [(row["form"], row["what"], row["batch"]) for row in said["forms"]]
    kinds = (("net alone", 1), ("net alone", 64), ("file to class", 1))
    assert timed == [(form, *kind) for kind in kinds for form in ("PyTorch", "another")]
    assert all(0 < row["quartiles_ms"][0] <= row["median_ms"] <= row["quartiles_ms"][1] for row in said["forms"])
    assert said["validation"] == {"accuracy": 0.75, "standard_error": pytest.approx(0.02165, abs=1e-5), "n": 400}


@pytest.mark.parametrize("content", [None, "{", "{}", '{"validation": {"plain": "good", "n": 9}}'], ids=str)
def test_a_run_without_a_result_is_one_line(bantam, run: Path, content: str | None) -> None:
    (run / "metrics.json").unlink()
    if content is not None:
        (run / "metrics.json").write_text(content)
    status, _, error = bantam("bench", "cost", run)
    assert status == 1
    assert "metrics.json" in error
    assert error.count("\n") == 1
