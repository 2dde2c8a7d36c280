"""The tournament may be held in parts, beside peers that survive a kill, and a run meets them image by image."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import against_peers  # noqa: E402
import families  # noqa: E402
import peers  # noqa: E402
import tables  # noqa: E402
from bantam.data import cache  # noqa: E402
from bantam.errors import RunMismatch  # noqa: E402
from bantam.files import write_json  # noqa: E402
from bantam.nets.teachers import build_teacher  # noqa: E402
from bantam.pipeline import run as pipeline  # noqa: E402
from bantam.recipes.recipe import parse  # noqa: E402
from bantam.runs import checkpoint  # noqa: E402
from evidence import validation_hits  # noqa: E402
from tiny_run import RECIPE, write_photographs  # noqa: E402

HERE = {"gpu": None, "cores": 2, "processor": "Fast", "command": ["python"], "commit": "c0ffee00", "data": "d"}
HERE["versions"] = {"torch": "2"}


def row(family: str, accuracy: float, commit: str) -> dict[str, Any]:
    return {
        "family": family, "accuracy": accuracy, "standard_error": 0.01, "n": 100, "macs": 2e6, "seconds": 60.0,
        "parameters": {"unique": 59_000, "torchsummary": 58_000}, "commits": [commit],
    }  # fmt: skip


def report(*rows: dict[str, Any], **changes: Any) -> dict[str, Any]:
    about = {"what": "recipe medium", "epochs": 6, "seeds": [0], "settings": [], "environment": HERE}
    return {**about, "rows": list(rows), **changes}


# --- a tournament in parts


def test_earlier_rows_of_the_same_tournament_stay_with_their_commits() -> None:
    earlier = report(row("a", 0.5, "old"), row("b", 0.7, "old"), row("c", 0.4, "old"))
    now = report(row("a", 0.6, "new"), {"family": "b", "failed": "x"}, {"family": "d", "failed": "y"})
    both = families.with_earlier(now, earlier)
    assert [(line["family"], line.get("commits")) for line in both["rows"]] == [
        ("b", ["old"]), ("a", ["new"]), ("c", ["old"]), ("d", None),
    ]  # fmt: skip
    assert families.with_earlier(report(environment=None), earlier)["environment"] == HERE


@pytest.mark.parametrize(
    "change",
    [{"what": "recipe strong"}, {"epochs": 7}, {"seeds": [1]}, {"settings": ["x=1"]}, {"environment": {"data": "e"}}],
    ids=lambda change: next(iter(change)),
)
def test_rows_of_another_tournament_do_not(change: dict[str, Any]) -> None:
    now = report(row("a", 0.6, "new"))
    assert families.with_earlier(now, report(row("b", 0.7, "old"), **change)) is now


def test_two_calls_make_one_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_photographs(tmp_path / "photos", training=24, validation=12)
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(RECIPE.replace("budget = 5000", "budget = 60000"))

    def here(name: str, data: Path, out: Path, settings: list[str]) -> dict[str, Any]:
        metrics = pipeline.run(parse(recipe.read_text(), settings=settings), data, out)
        return {**metrics, "environment": json.loads((out / "environment.json").read_text())}

    monkeypatch.setattr(families, "finished_run", here)
    results = tmp_path / "results" / "benchmarks"
    for family in ("sample", "mobilenet_v1"):
        words = ["--data", root, "--runs", tmp_path / "runs", "--recipe", recipe, "--epochs", 1, "--families", family]
        monkeypatch.setattr(sys, "argv", ["families.py", *map(str, [*words, "--out", results / "families.json"])])
        families.main()
    said = json.loads((results / "families.json").read_text())
    assert {line["family"] for line in said["rows"]} == {"sample", "mobilenet_v1"}
    assert "| mobilenet_v1 |" in tables.families(results.parent)


# --- the peers


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_photographs(tmp_path_factory.mktemp("peers") / "photos", training=9, validation=6, evaluation=0)
    torch.manual_seed(0)
    torch.save(build_teacher("resnet18", 3).state_dict(), root / "resnet18_teacher.ckpt")
    return root


def peer(name: str, data: Path) -> peers.Peer:
    return peers.Peer(name, data, 32, 32, 0)


@pytest.mark.parametrize("name", ["P1", "P2"])
def test_a_peer_that_was_killed_goes_on_to_the_same_bits(name: str, photographs: Path, tmp_path: Path) -> None:
    """With a patience of 1, P1 is in its second or third round when it is taken up again."""
    whole = peers.Training(peer(name, photographs), 3, 1)
    whole.run()
    answer = whole.peer.averaged()
    path = tmp_path / "peer.ckpt"
    peers.Training(peer(name, photographs), 2, 1, path).run()
    torch.manual_seed(99)
    again = peers.Training(peer(name, photographs), 3, 1, path)
    assert again.accuracies == whole.accuracies[:2]
    again.run()
    assert again.accuracies == whole.accuracies
    assert (again.round, again.best.epoch) == (whole.round, whole.best.epoch)
    for item, value in whole.peer.net.state_dict().items():
        assert torch.equal(value, again.peer.net.state_dict()[item]), item
    assert torch.equal(again.peer.averaged(), answer)
    with pytest.raises(RunMismatch, match="another peer"):
        peers.Training(peer("P2" if name == "P1" else "P1", photographs), 3, 1, path)


def test_a_round_ends_when_patience_is_over_and_begins_from_the_best(photographs: Path) -> None:
    training = peers.Training(peer("P1", photographs), 99, 2)
    said = iter([0.5, 0.6, 0.6, 0.1, 0.7, 0.2, 0.3, 0.1, 0.1])
    training.peer.validate = lambda: next(said)
    rates: list[float] = []
    training.peer.train_epoch = lambda optimizer, schedule: rates.append(optimizer.param_groups[0]["lr"])
    training.run()
    assert rates == [0.1] * 4 + [0.01] * 3 + [0.001] * 2
    assert (training.best.accuracy, training.best.epoch, len(training.accuracies)) == (0.7, 5, 9)


def words_of(data: Path, folder: Path, *more: object) -> list[str]:
    words = ["P2", "--data", data, "--size", 32, "--teacher-size", 32, "--epochs", 3, "--folder", folder]
    return list(map(str, [*words, "--out", folder / "results" / "benchmarks" / "peer-p2.json", *more]))


DIES = """
import os, signal, sys
sys.argv = ["peers.py", *sys.argv[1:]]
import peers
original = peers.checkpoint.save
def save(path, state):
    if len(state["accuracies"]) == 2:
        path.with_name(f".{path.name}.{os.getpid()}.tmp").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    original(path, state)
peers.checkpoint.save = save
peers.main()
"""


@pytest.mark.slow
def test_the_command_goes_on_after_a_kill_and_a_run_meets_the_peer(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = os.pathsep.join([str(ROOT / "benchmarks"), *sys.path])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    words = words_of(photographs, tmp_path, "--hits", tmp_path / "P2.pt")
    killed = subprocess.run([sys.executable, "-c", DIES, *words], env=environment, timeout=300)
    assert killed.returncode == -signal.SIGKILL
    assert len(checkpoint.load(tmp_path / "P2.ckpt")["accuracies"]) == 1
    monkeypatch.setattr(sys, "argv", ["peers.py", *words])
    peers.main()
    said = json.loads((tmp_path / "results" / "benchmarks" / "peer-p2.json").read_text())
    assert (said["epochs"], len(said["accuracies"])) == (3, 3)
    kept = checkpoint.load(tmp_path / "P2.pt")
    assert float(kept["hits"].float().mean()) == pytest.approx(said["validation"]["accuracy"])

    run = tmp_path / "run"
    metrics = pipeline.run(parse(RECIPE, settings=["student.epochs=1"]), photographs, run)
    out = tmp_path / "results" / "benchmarks" / "against-peers.json"
    given = ["--data", photographs, "--run", run, "--hits", tmp_path / "P2.pt", "--out", out]
    monkeypatch.setattr(sys, "argv", ["against_peers.py", *map(str, given)])
    against_peers.main()
    plain, *shipped = json.loads(out.read_text())["rows"]
    ours = validation_hits(run, cache.open_splits(photographs, 32).validation)
    assert plain["only_ours"] == int((ours & ~kept["hits"]).sum())
    assert plain["only_peer"] == int((~ours & kept["hits"]).sum())
    assert plain["difference"] == pytest.approx(metrics["validation"]["plain"] - said["validation"]["accuracy"])
    assert all(line["accuracy"] == pytest.approx(metrics["validation"]["accuracy"]) for line in shipped)
    assert str(tmp_path) not in out.read_text()
    assert "| plain against P2 |" in tables.against_peers(tmp_path / "results")

    checkpoint.save(tmp_path / "other.pt", {**kept, "images": "others"})
    with pytest.raises(RunMismatch, match="other validation images"):
        against_peers.compared(run, photographs, [tmp_path / "other.pt"])


def test_peers_stand_among_the_families_as_what_they_are(tmp_path: Path) -> None:
    write_json(tmp_path / "benchmarks" / "families.json", report(row("a", 0.6, "one"), row("b", 0.4, "two")))
    measured = {
        "peer": "P1", "plain": 0.5, "validation": {"accuracy": 0.55, "standard_error": 0.05, "n": 100}, "epochs": 40,
        "parameters": 59_790, "macs": 3e6, "seconds": 600.0, "environment": HERE,
    }  # fmt: skip
    write_json(tmp_path / "benchmarks" / "peer-p1.json", measured)
    text = tables.families(tmp_path)
    names = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")][2:]
    assert names == ["a", "*P1, a peer*", "b"]
    assert "| *P1, a peer* | 0.500 ± 0.050 | 100 | 59,790 | 3.0 | 40 | 10 |" in text
    assert "commit(s) one, two" in text
