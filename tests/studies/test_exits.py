"""Stages of kind exits, `bantam exits` and `bantam predict --exit-confidence`, on small real folders."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from bantam.cli import main as cli
from bantam.data import cache
from bantam.data.augment import plain
from bantam.errors import BadRecipe, BudgetExceeded
from bantam.nets.budget import weigh
from bantam.nets.early_exit import EarlyExitNet, macs_of_exits
from bantam.nets.footprint import footprint
from bantam.nets.students import Student, describe
from bantam.pipeline import run as pipeline
from bantam.recipes.kinds.exiting import Exiting
from bantam.recipes.kinds.training import Training
from bantam.recipes.recipe import dump, load, parse
from bantam.runs.finished import FOOD11, load_shipped, open_run
from tiny_run import RECIPE

KEYS = """size = 32
epochs = 3
batch_size = 10
ema = 0.9
precision = "fp32"
[stage.augment]
cutmix = 0.5
[stage.objectives.supervised]
weight = 1.0
"""

EXITS = f"""
[[stage]]
name = "early"
kind = "exits"
of = "student"
after = [1, 3]
{KEYS}[stage.objectives.self_distillation]
weight = 1.0
"""

WITH_EXITS = RECIPE.replace("budget = 5000", "budget = 20000").replace(
    'kind = "student"', 'kind = "assistant"\nbudget = 5000'
) + EXITS  # fmt: skip

PRUNED = f"""
[[stage]]
name = "small"
kind = "prune"
of = "student"
to_params = 4000
importance = "magnitude"
{KEYS}"""


@pytest.fixture(scope="module")
def finished(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exits") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BANTAM_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        pipeline.run(parse(WITH_EXITS), photographs, out)
    return out


def called(*words: Any, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["bantam", *map(str, words)])
    try:
        cli.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_a_stage_adds_exits_trains_and_ships_them(finished: Path, photographs: Path) -> None:
    recipe = parse(WITH_EXITS)
    assert parse(dump(recipe)) == recipe
    net, shipped = load_shipped(finished)
    assert isinstance(net, EarlyExitNet)
    assert (shipped.student.exits, net.after) == ((1, 3), (1, 3))
    metrics = json.loads((finished / "metrics.json").read_text())
    assert max(metrics["parameters"].values()) == weigh(net, 32).counted <= 20_000
    assert metrics["stages"]["early"]["kind"] == "exits"
    rows = [json.loads(line) for line in (finished / "stages" / "early" / "metrics.jsonl").read_text().splitlines()]
    assert {"loss", "cross_entropy", "exit_1", "exit_2", "exits_labels"} == set(rows[0]["training"])
    for name in ("exit_1", "exit_2", "exits_labels"):
        assert rows[-1]["training"][name] < rows[0]["training"][name]
    # The exits have learned: their statistics too are those of a trained net.
    validation = cache.open_splits(photographs, 32).validation
    with torch.no_grad():
        shown = net.observe(plain(validation.images, 32, shipped.normalisation.mean, shipped.normalisation.std))
    for logits in shown.exits:
        assert float((logits.argmax(1) == validation.labels).double().mean()) > 0.6


KILLED = """
import os, signal, sys
from pathlib import Path
from bantam.pipeline import run as pipeline
from bantam.recipes.recipe import parse
from bantam.train import loop
from bantam.train.step import Step

loop.SAVE_EVERY = 0.0
original, count = Step.move, 0

def move(step):
    global count
    count += step.stage.name == "early"
    if count == 8:
        os.kill(os.getpid(), signal.SIGKILL)
    original(step)

Step.move = move
pipeline.run(parse(sys.stdin.read()), Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_killed_stage_goes_on_to_the_same_bits(finished: Path, photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-c", KILLED, str(photographs), str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, input=WITH_EXITS, text=True, env=environment, timeout=300)
    assert ended.returncode == -signal.SIGKILL
    assert torch.load(out / "stages" / "early" / "last.ckpt", weights_only=True)["done"] == 7
    pipeline.run(parse(WITH_EXITS), photographs, out)
    weights, others = (torch.load(run / "student_best.ckpt", weights_only=True) for run in (out, finished))
    assert any(name.startswith("exits.") for name in weights)
    assert all(torch.equal(value, others[name]) for name, value in weights.items())


def test_pruned_then_given_exits_then_quantized_and_exported(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    text = RECIPE.replace("budget = 5000", "budget = 12000") + PRUNED + EXITS.replace('of = "student"', 'of = "small"')
    metrics = pipeline.run(
        parse(text, settings=["student.epochs=1", "small.epochs=1", "early.epochs=4"]), photographs, out
    )
    kept = [
        Student.from_json(json.loads((out / "stages" / name / "student.json").read_text()))
        for name in ("small", "early")
    ]
    assert [
        weigh(student.shipped_net(), 32).counted <= most for student, most in zip(kept, (4000, 12_000), strict=True)
    ]
    assert kept[1].pruned == kept[0].pruned
    assert kept[1].exits == (1, 3)
    assert metrics["parameters"]["unique"] > metrics["stages"]["small"]["parameters"]

    whole, about = open_run(out).whole_way()
    assert not about.student.exits
    for to in ("onnx-int8", "onnx"):
        assert called("export", out, "--data", photographs, "--to", to, monkeypatch=monkeypatch) == 0
    graph = onnx.load(out / "student.onnx")
    assert not any("exits" in item.name for item in graph.graph.initializer)
    told = {item.key: item.value for item in graph.metadata_props}
    assert int(told["parameters_counted"]) == sum(parameter.numel() for parameter in whole.parameters())
    assert called("package", out, monkeypatch=monkeypatch) == 0


def test_the_shipped_recipe_fills_its_budget_with_the_exits() -> None:
    recipe = load("exits")
    backbone, early = recipe.stage[1:]
    assert isinstance(backbone, Training)
    assert isinstance(early, Exiting)
    student = describe(backbone.net, backbone.budget, 11, backbone.size, backbone.shape)
    net = replace(student, exits=early.after).shipped_net()
    assert 0.995 * recipe.budget <= weigh(net, 64).counted <= recipe.budget
    assert isinstance(net, EarlyExitNet)
    first, second, end = macs_of_exits(net, 64)
    assert first < 0.45 * end < second < 0.75 * end
    assert end < 1.03 * footprint(net, 64).macs


def test_exits_over_the_budget_are_refused_before_the_first_step(photographs: Path, tmp_path: Path) -> None:
    with pytest.raises(BudgetExceeded, match="over the budget of 5,500"):
        pipeline.run(parse(WITH_EXITS.replace("budget = 20000", "budget = 5500")), photographs, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_exits_over_the_budget_after_a_pruning_are_not_trained(photographs: Path, tmp_path: Path) -> None:
    text = RECIPE + PRUNED + EXITS.replace('of = "student"', 'of = "small"')
    with pytest.raises(BudgetExceeded, match="over the budget of 5,000"):
        pipeline.run(parse(text, settings=["student.epochs=1", "small.epochs=1"]), photographs, tmp_path / "run")
    assert not (tmp_path / "run" / "stages" / "early").exists()


def test_a_stage_that_the_net_does_not_have_is_refused_before_any_work(photographs: Path, tmp_path: Path) -> None:
    with pytest.raises(BadRecipe, match=r"after = \[4\] must name stages of the net"):
        pipeline.run(parse(WITH_EXITS.replace("[1, 3]", "[4]")), photographs, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('of = "student"', 'of = "studnt"', 'did you mean "student"'),
        ("after = [1, 3]", 'after = ["1"]', "must be a whole number"),
        ("after = [1, 3]\n", "", "missing key"),
        ("[stage.objectives.self_distillation]\nweight = 1.0\n", "", "self_distillation"),
        (
            "[stage.objectives.supervised]\nweight = 1.0\n[stage.objectives.self_distillation]",
            "[stage.objectives.self_distillation]",
            "the net's end needs one too",
        ),
        ('of = "student"', 'of = "student"\nnet = "sample"', "must be left out"),
        ("ema = 0.9\nprecision", "peers = 2\nema = 0.9\nprecision", "peers"),
    ],
)
def test_a_wrong_stage_is_one_line(old: str, new: str, words: str) -> None:
    with pytest.raises(BadRecipe, match=words) as caught:
        parse(WITH_EXITS[: -len(EXITS)] + EXITS.replace(old, new))
    assert "\n" not in str(caught.value)


def test_nets_with_exits_are_neither_pruned_nor_given_more_nor_refitted() -> None:
    again = EXITS.replace('"early"', '"more"').replace('of = "student"', 'of = "early"')
    for more in (PRUNED.replace('of = "student"', 'of = "early"'), again):
        with pytest.raises(BadRecipe, match="has exits already"):
            parse(WITH_EXITS + more)
    with pytest.raises(BadRecipe, match="cannot repeat"):
        parse(WITH_EXITS + '[[stage]]\nname = "again"\nkind = "refit"\nof = "early"\n')
    with pytest.raises(BadRecipe, match="self_distillation"):
        parse(RECIPE + "[stage.objectives.self_distillation]\nweight = 1.0\n")
    teacher = '[[stage]]\nname = "student"\nkind = "given_teacher"\ncheckpoint = "x"\nsize = 32\n'
    with pytest.raises(BadRecipe, match="is no student"):
        parse('name = "x"\n' + teacher + EXITS)


def test_a_run_with_exits_is_not_pruned(
    finished: Path,
    photographs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for words in (("--ratios", "0,0.4"), ("--to-params", 3000)):
        words = ("prune", finished, "--data", photographs, *words, "--out", tmp_path / "out")
        assert called(*words, monkeypatch=monkeypatch) == 1
        assert "has early exits; prune first" in capsys.readouterr().err.strip().splitlines()[-1]
        assert not (tmp_path / "out").exists()


def test_the_command_measures_chooses_and_keeps(
    finished: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert open_run(finished).exit_confidence is None
    assert called("exits", finished, "--data", photographs, "--drop", 1, "--json", monkeypatch=monkeypatch) == 0
    result = json.loads(capsys.readouterr().out)
    folder = finished / "exits"
    assert {path.name for path in folder.iterdir()} == {"exits.json", "exits.csv", "exits.svg"}
    assert json.loads((folder / "exits.json").read_text()) == result
    assert len((folder / "exits.csv").read_text().splitlines()) == 1 + len(result["rows"])
    net, _ = load_shipped(finished)
    assert isinstance(net, EarlyExitNet)
    macs = macs_of_exits(net, 32)
    assert tuple(result["macs"]) == macs
    assert [row["kind"] for row in result["rows"][:3]] == ["exit 1 alone", "exit 2 alone", "the net alone"]
    assert result["rows"][0]["mean_macs"] == macs[0]
    assert macs[0] < result["rows"][1]["mean_macs"] < macs[1]  # a net that ends there has no first exit
    assert result["rows"][2]["accuracy"] == result["reference"]["accuracy"]
    chosen = result["chosen"]  # every drop is allowed, so all leave at once
    assert chosen["mean_macs"] == macs[0]
    assert chosen["shares"] == [1.0, 0.0, 0.0]
    assert open_run(finished).exit_confidence == chosen["threshold"]

    most = sum(macs[:2]) / 2
    assert called("exits", finished, "--data", photographs, "--macs", int(most), monkeypatch=monkeypatch) == 0
    said = capsys.readouterr().out
    assert "fewer mean MACs than the net alone" in said
    assert json.loads((folder / "exits.json").read_text())["chosen"]["mean_macs"] <= most
    assert called("exits", finished, "--data", photographs, "--confidence", 0.5, monkeypatch=monkeypatch) == 0
    assert open_run(finished).exit_confidence == 0.5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--confidence", 1.0), "no image reaches the confidence 1"),
        (("--confidence", 1.5), "must lie in 0..1"),
        (("--drop", -0.1), "must lie in 0..1"),
        (("--macs", 100), "out of reach"),
        (("--macs", 1, "--confidence", 0.5), "give one of them"),
    ],
)
def test_a_wrong_target_is_one_line_and_writes_nothing(
    words: tuple[Any, ...],
    said: str,
    finished: Path,
    photographs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(run / "exits", ignore_errors=True)
    assert called("exits", run, "--data", photographs, *words, monkeypatch=monkeypatch) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert said in lines[-1]
    assert lines[-1].startswith("bantam: ")
    assert not (run / "exits").exists()


def test_predictions_leave_early_and_say_where(
    finished: Path,
    photographs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "submission.csv"
    words = ("predict", finished, "--data", photographs, "--out", out, "--exit-confidence")
    assert called(*words, 0, monkeypatch=monkeypatch) == 0
    assert "12 left at exit 1, 0 left at exit 2, 0 at the end" in capsys.readouterr().out
    net, shipped = load_shipped(finished)
    images = cache.open_splits(photographs, 32).evaluation
    assert images is not None
    with torch.no_grad():
        shown = net.observe(plain(images.images, 32, shipped.normalisation.mean, shipped.normalisation.std))
    rows = [int(line.split(",")[1]) for line in out.read_text().splitlines()[1:]]
    assert rows == shown.exits[0].argmax(1).tolist()

    photo = sorted((photographs / "evaluation").iterdir())[0]
    assert called("predict", photo, "--run", finished, "--exit-confidence", 0, monkeypatch=monkeypatch) == 0
    said = capsys.readouterr().out
    assert "1 left at exit 1" in said
    assert "million MACs for an image in the mean" in said
    json_words = ("predict", photo, "--run", finished, "--exit-confidence", 0, "--json")
    assert called(*json_words, monkeypatch=monkeypatch) == 0
    found = json.loads(capsys.readouterr().out)[str(photo)]
    expected = shown.exits[0][0].softmax(0)
    assert found == pytest.approx({str(k): float(p) for k, p in enumerate(expected)}, abs=1e-5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("RUN", "--data", "DATA", "--exit-confidence", 1.0), "no image reaches the confidence 1"),
        (("RUN", "--data", "DATA", "--exit-confidence", 1.01), "must lie in 0..1"),
        (("RUN", "--data", "DATA", "--exit-confidence", 0.5, "--views", "flip"), "one plain view"),
        (("PLAIN", "--data", "DATA", "--exit-confidence", 0.5), "has no early exits"),
        (("PHOTO", "--run", "PLAIN", "--exit-confidence", 0.5), "has no early exits"),
        (("PHOTO", "--exit-confidence", 0.5), "has no early exits"),
        (("PHOTO", "--run", "RUN", "--exit-confidence", -1), "must lie in 0..1"),
    ],
)
def test_a_wrong_prediction_is_one_line_and_writes_nothing(
    words: tuple[Any, ...],
    said: str,
    finished: Path,
    photographs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stands_for = {
        "RUN": finished, "DATA": photographs, "PLAIN": FOOD11, "PHOTO": photographs / "evaluation" / "0000.png"
    }  # fmt: skip
    out = tmp_path / "submission.csv"
    words = tuple(stands_for.get(word, word) for word in words)
    assert called("predict", *words, "--out", out, monkeypatch=monkeypatch) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert said in lines[0]
    assert not out.exists()


@pytest.mark.slow
def test_integers_train_without_the_exits(
    finished: Path, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    assert called("quantize", run, "--data", photographs, "--epochs", 1, monkeypatch=monkeypatch) == 0
    weights = torch.load(run / "quantized" / "int8-qat" / "best.ckpt", weights_only=True)
    assert not any(name.startswith("exits") for name in weights)


def test_exits_that_follow_a_teacher_learn_from_images_without_a_label() -> None:
    taught = WITH_EXITS.replace("[data]", "[data]\nunlabelled = true").replace(
        'kind = "exits"', 'kind = "exits"\nteacher = "student"'
    )
    pipeline.check(parse(taught))
    with pytest.raises(BadRecipe, match='stage "early": no objective follows its teacher'):
        pipeline.check(parse(taught + "teacher = 0.0\n"))
