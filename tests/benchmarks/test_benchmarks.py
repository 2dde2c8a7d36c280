"""The benchmarks run, at tiny sizes; the peers are what they are said to be; no table is typed by hand."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import collect  # noqa: E402
import gpu  # noqa: E402
import peer_nets  # noqa: E402
import peers  # noqa: E402
import pictures  # noqa: E402
import start  # noqa: E402
import tables  # noqa: E402
import throughput  # noqa: E402
import time_to_accuracy  # noqa: E402
from bantam.data import cache  # noqa: E402
from bantam.data.folder import scan  # noqa: E402
from bantam.errors import BadData  # noqa: E402
from bantam.recipes.recipe import Recipe, parse  # noqa: E402
from photographs import array_split  # noqa: E402
from sample_code import TRAINING_VIEW, Photographs, SampleCode  # noqa: E402
from tiny_run import RECIPE  # noqa: E402


def script(name: str, *words: object, timeout: int = 300) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / name), *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)


# --- the data set that is larger than the process


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts mapped memory on Linux alone")
@pytest.mark.slow
def test_a_data_set_larger_than_a_limit_on_the_process_trains(tmp_path: Path) -> None:
    ran = script("footprint.py", tmp_path, "--steps", 4)
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    assert said["steps"] == 4
    assert said["loss"] > 0
    assert said["array_bytes"] > 1.4 * said["limit_bytes"]
    assert said["private_bytes"] < said["limit_bytes"]
    assert said["a_copy_of_the_array_is_refused"]


# --- how soon commands answer


def test_a_command_is_timed_to_its_end_with_its_memory_and_to_the_first_byte_on_its_terminal(tmp_path: Path) -> None:
    source, used = {**os.environ, "PYTHONPATH": str(ROOT / "src")}, []
    assert 0 < start.to_the_end(["recipes", "list"], source, used) < 60
    assert 0 < used[0][0] < 60
    assert 5 < used[0][1] < 200
    with pytest.raises(SystemExit, match="ended with status 1"):
        start.to_the_end(["recipes", "show", "none"], source, used)
    assert 0 < start.to_the_first_sign(["recipes", "list"], source) < 60


def test_the_table_of_starts_has_medians_quartiles_and_memory_of_each_version(tmp_path: Path) -> None:
    rows = [
        {
            "what": "a",
            "now": start.measured([1.0, 3.0, 2.0], [(9, 9), (0.5, 90), (0.5, 90), (7, 90)]),
            "before": start.measured([9.0], [(8, 900)]),
        },
        {"what": "b", "now": start.measured([0.5], None), "before": start.measured([8.0], None)},
    ]
    environment = {"commit": "c" * 40, "command": ["x"], "cores": 2, "processor": "y", "versions": {"torch": "2"}}
    (tmp_path / "benchmarks").mkdir()
    study = {"rounds": 3, "before": "d" * 40, "rows": rows, "environment": environment}
    (tmp_path / "benchmarks" / "start.json").write_text(json.dumps(study))
    said = tables.start(tmp_path)
    assert "| command | before, s | before, s of a core | before, MB | now, s | now, s of a core | now, MB |" in said
    assert "| a | 9.00 (9.00 to 9.00) | 8.00 | 900 | 2.00 (1.00 to 3.00) | 0.50 | 90 |" in said
    assert "| b | 8.00 (8.00 to 8.00) | - | - | 0.50 (0.50 to 0.50) | - | - |" in said
    assert "3 rounds and their quartiles, before at commit dddddddd." in said


# --- throughput


def test_the_net_alone_moves_its_weights_on_the_batch_that_is_there(tmp_path: Path) -> None:
    step = throughput.net_alone("mobilenet_v1", array_split(tmp_path / "few.npy", 16, 64), 4)
    before = step.net.head.weight.clone()
    index = torch.arange(4)
    images, _ = step.look(index, index)
    assert step.look(index + 4, index)[0] is images
    step(index, torch.zeros_like(index))
    assert not torch.equal(before, step.net.head.weight)
    assert step.ema is None


def test_work_of_a_step_is_counted_as_written(tmp_path: Path) -> None:
    """Against a count by hand of the sample net's convolutions at 64 px."""
    step, _ = throughput.step_of("sample", array_split(tmp_path / "few.npy", 16, 64), 4)
    buffers = {name: value.clone() for name, value in step.net.state_dict().items()}
    work = gpu.work_of(step, 2)
    maps = {62: (3, 4), 60: (4, 16), 28: (16, 64), 12: (64, 84)}
    operations = sum(2 * 9 * i * o * side**2 for side, (i, o) in maps.items()) + 2 * 84 * 11
    assert work["operations"] == 3 * operations
    looked = 64 * 64 * 3 * (1 + 2 * 4)
    convolved = sum(o * side**2 for side, (_, o) in maps.items())
    pooled = 16 * 30**2 + 64 * 14**2 + 84 * 6**2
    width = 2 if step.autocast else 4
    assert work["bytes_fused"] == looked + 6 * width * (convolved + 11)
    assert work["bytes"] == looked + 6 * width * (3 * convolved + pooled + 11)  # convolution, BN, ReLU; pooling
    assert all(torch.equal(value, buffers[name]) for name, value in step.net.state_dict().items())


@pytest.mark.slow
def test_throughput_runs_in_one_command(tmp_path: Path) -> None:
    ran = script("throughput.py", "--quick", "--out", tmp_path / "throughput.json")
    assert ran.returncode == 0, ran.stderr
    said = json.loads((tmp_path / "throughput.json").read_text())
    assert [row["net"] for row in said["training"]] == ["sample", "mobilenet_v1"]
    assert said["memory"]["beyond_limit"]["array_bytes"] > said["memory"]["beyond_limit"]["limit_bytes"]
    assert str(tmp_path) not in json.dumps(said)
    assert "| mobilenet_v1 |" in tables.speeds(said)


# --- the peers


@pytest.mark.parametrize(("name", "parameters"), [("P1", 59_790), ("P2", 58_939)])
def test_peers_have_exactly_their_parameters(name: str, parameters: int) -> None:
    net = peer_nets.NETS[name](11).eval()
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters
    assert net(torch.zeros(1, 3, 224, 224)).shape == (1, 11)


def test_mixing_masks_cover_the_share_that_is_asked_for() -> None:
    generator = torch.Generator().manual_seed(0)
    for share in (0.0, 0.3, 0.5, 1.0):
        mask = peers.fmix_mask(64, share, generator)
        assert set(mask.unique().tolist()) <= {0.0, 1.0}
        assert float(mask.mean()) == pytest.approx(share, abs=1 / 64**2)
    # A blob and not noise: nearly all neighbours agree.
    mask = peers.fmix_mask(64, 0.5, generator)
    assert float((mask[1:] == mask[:-1]).float().mean()) > 0.9
    assert float(peers.box_mask(64, 0.35, generator).mean()) >= 0.35


def test_mixing_keeps_targets_in_step_with_the_pixels() -> None:
    """Images of one constant each: a pixel's value tells whose it is."""
    generator = torch.Generator().manual_seed(1)
    images = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 32, 32)
    kinds = set()
    for _ in range(20):
        seen, targets = peers.mixed(images, torch.eye(4), generator)
        shares = torch.stack([(seen[:, 0] == value).float().mean((1, 2)) for value in range(4)], dim=1)
        torch.testing.assert_close(shares, targets, rtol=0, atol=1e-5)
        kinds.add(bool((targets.max(1).values < 1).any()))
    assert kinds == {True, False}


def test_p1_loss_by_hand() -> None:
    logits, teacher = torch.tensor([[2.0, -1.0]]), torch.tensor([[0.5, 0.5]])
    targets = torch.tensor([[1.0, 0.0]])
    soft = F.softmax(logits / 0.9, 1)
    divergence = (0.5 * (0.5 / soft).log()).sum()
    p = torch.sigmoid(logits)[0]
    focal = (0.25 * (1 - p[0]) ** 2 * -p[0].log() + 0.75 * p[1] ** 2 * -(1 - p[1]).log()) / 2
    torch.testing.assert_close(peers.p1_loss(logits, targets, teacher), 0.5 * divergence + 0.5 * focal)


def test_training_views_of_the_peers_are_what_their_nets_expect(photographs: Path) -> None:
    split = cache.open_splits(photographs, 32).training
    for view in (*peers.TRAINING_VIEWS.values(), peers.TEST_VIEW):
        image, label = peers.Views(split, view)[1]
        assert (image.shape, image.dtype) == ((3, 224, 224), torch.float32)
        assert int(label) == int(split.labels[1])


def test_the_sample_code_sees_its_own_size_and_learns(photographs: Path) -> None:
    records = scan(photographs).training[:4]
    image, label = Photographs(records, TRAINING_VIEW)[0]
    assert (image.shape, label) == ((3, 224, 224), records[0].label)
    training = SampleCode(photographs)
    assert sum(parameter.numel() for parameter in training.net.parameters()) == 59_723 - 8 * 85
    images = torch.stack([Photographs(records, TRAINING_VIEW)[number][0] for number in range(4)])
    labels = torch.tensor([record.label for record in records])
    losses = [training.step(images, labels) for _ in range(4)]
    assert losses[-1] < losses[0]


# --- time to accuracy


class Instant(time_to_accuracy.Opponent):
    """A sample code that takes a hundredth of a second an epoch and gains 0.1 in each, without doing anything."""

    def __init__(self, root: Path, epochs: int, target: float | None) -> None:
        self.epochs, self.target, self.seconds, self.history = epochs, target, 0.0, []

    def epoch(self) -> None:
        self.seconds += 0.01
        self.history.append((self.seconds, 0.1 * (len(self.history) + 1)))


@pytest.mark.parametrize("target", [None, 0.4])
def test_the_race_takes_all_to_the_target(
    target: float | None, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_to_accuracy, "Opponent", Instant)
    short, whole = (
        parse(RECIPE, settings=[f"student.epochs={epochs}", "student.augment.cutmix=0.0"]) for epochs in (2, 30)
    )
    result = time_to_accuracy.race([short, short, whole], photographs, 6, target, tmp_path)
    assert result["target"] == pytest.approx(0.6 if target is None else 0.4)
    theirs = result["sample_code"]
    assert theirs["seconds"] == pytest.approx(0.06 if target is None else 0.04)
    assert theirs["epochs"] == (6 if target is None else 4)
    assert [run["epochs"] for run in result["bantam"]] == [2, 2, 30]
    *_, last = result["bantam"]
    assert len(last["history"]) < 30  # the target is known by then
    assert last["seconds"] == time_to_accuracy.first_at(last["history"], result["target"])
    for run in result["bantam"]:
        assert set(run["preparation"]) == {"photographs"}
        if run["seconds"] is None:
            assert run["ratio"] is run["ratio_when_prepared"] is None
        else:
            assert run["ratio"] == theirs["seconds"] / run["seconds"]
            assert run["ratio_when_prepared"] > run["ratio"]


def test_the_sample_code_runs_between_bantams_runs(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    class Noted(Instant):
        def epoch(self) -> None:
            order.append("sample code")
            super().epoch()

    def run_of(plan: Recipe, root: Path, target: float | None, folder: Path) -> time_to_accuracy.Clock:
        order.append(f"bantam to {target}")
        return time_to_accuracy.Clock("student", target)

    monkeypatch.setattr(time_to_accuracy, "Opponent", Noted)
    monkeypatch.setattr(time_to_accuracy, "run_of", run_of)
    time_to_accuracy.race([parse(RECIPE)] * 3, photographs, 5, None, tmp_path)
    theirs = "sample code"
    assert order == ["bantam to None", *[theirs] * 3, "bantam to None", *[theirs] * 2, "bantam to 0.5"]


def test_what_a_run_does_within_its_training_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(100, 200, 10))
    monkeypatch.setattr(time_to_accuracy.time, "monotonic", lambda: float(next(now)))
    clock = time_to_accuracy.Clock("student", None)  # 100
    clock.begin("student", 2, 0)  # 110
    clock.begin("answers 0", 1, 0)  # 120
    clock.end()  # 130
    clock.epoch({"epoch": 1, "validation": {"accuracy": 0.25}})  # 140
    clock.end()  # 150
    assert clock.phases == {"student": 30.0, "answers 0": 10.0}
    assert clock.history == [(40.0, 0.25)]


# --- the tables, and the evidence that they are made from


def test_tables_in_the_pages_are_what_the_results_say() -> None:
    assert [path.name for path in tables.stale(ROOT)] == [], "run `make results`"


def test_the_picture_has_every_committed_run_where_its_metrics_say(tmp_path: Path) -> None:
    pictures.draw(ROOT / "results", tmp_path / "drawn.svg")
    drawn, committed = (path.read_text() for path in (tmp_path / "drawn.svg", ROOT / pictures.PICTURE))
    told = {path.parent.name: path.read_text() for path in (ROOT / "results" / "food-11").glob("*/metrics.json")}
    runs = [name for name, text in told.items() if '"refit"' not in text]  # validation does not measure a refit
    assert len(runs) >= 7
    assert "boss-refit" in told.keys() - set(runs)
    for text in (drawn, committed):
        assert [name for name in runs if f">{name}</text>" not in text] == []
    # The same places: what was drawn is what was committed, whatever the version of the library calls its parts.
    places = [re.findall(r'<use [^>]*x="([\d.]+)" y="([\d.]+)"', text) for text in (drawn, committed)]
    assert places[0] == places[1], "run `make results`"


def test_every_slot_has_a_table() -> None:
    names = {slot[2] for path in tables.pages(ROOT) for slot in tables.SLOT.finditer(path.read_text())}
    assert names
    assert names <= set(tables.TABLES)


def evidence_of_a_run(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in collect.EVIDENCE:
        (folder / name).write_text("{}")
    metrics = {
        "student": "sample",
        "validation": {"accuracy": 0.61234, "standard_error": 0.0073, "n": 4432, "flip": True},
        "parameters": {"unique": 59723, "torchsummary": 59720},
        "epochs": 30,
        "seconds": 1900.0,
    }
    environment = {"gpu": None, "cores": 2, "processor": "Fast (avx2)"}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "environment.json").write_text(json.dumps(environment))
    return folder


def test_a_stale_table_is_found_and_mended(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("before\n<!-- results: food-11 -->\nold\n<!-- end -->\nafter\n")
    assert tables.stale(tmp_path) == [page]
    collect.collect(evidence_of_a_run(tmp_path / "run"), tmp_path / "results" / "food-11" / "simple")
    page.write_text(tables.filled(page.read_text(), tmp_path / "results"))
    assert tables.stale(tmp_path) == []
    row = "| simple | sample | 0.612 ± 0.007, with flip | 4,432 | 59,723 | 30 | 32 | 2 cores, Fast (avx2) |"
    assert row in page.read_text()
    assert page.read_text().startswith("before\n")
    assert page.read_text().endswith("<!-- end -->\nafter\n")


@pytest.mark.parametrize("name", sorted(tables.TABLES))
def test_a_table_without_results_says_so(name: str, tmp_path: Path) -> None:
    assert tables.TABLES[name](tmp_path) == tables.NOTHING


def test_an_unfinished_run_is_not_collected(tmp_path: Path) -> None:
    run = evidence_of_a_run(tmp_path / "run")
    (run / "metrics.json").unlink()
    with pytest.raises(BadData, match=r"lacks metrics\.json"):
        collect.collect(run, tmp_path / "to")
    assert not (tmp_path / "to").exists()
