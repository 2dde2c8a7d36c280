"""What a run ships is as sure as it is right: temperatures from validation, in the weights and in metrics.json."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from bantam.data import cache
from bantam.data.splits import LabelledSplit
from bantam.measure.accuracy import calibration
from bantam.measure.logits import logits_of
from bantam.measure.tta import TTA, logits_of_tta
from bantam.nets.budget import weigh
from bantam.nets.early_exit import EarlyExitNet
from bantam.pipeline import run as pipeline
from bantam.pipeline.selection import logits_of_exits, trained_net
from bantam.recipes.recipe import parse
from bantam.runs.finished import load_shipped, open_run
from tiny_run import RECIPE

EXITING = (
    RECIPE.replace("budget = 5000", "budget = 20000")
    .replace('kind = "student"', 'kind = "assistant"\nbudget = 5000')
    .replace("epochs = 4", "epochs = 1")
    + """
[[stage]]
name = "early"
kind = "exits"
of = "student"
after = [1, 3]
size = 32
epochs = 2
batch_size = 10
ema = 0.9
precision = "fp32"
[stage.objectives.supervised]
weight = 1.0
[[stage]]
name = "again"
kind = "refit"
of = "early"
"""
)


def told(run: Path) -> dict[str, Any]:
    return json.loads((run / "metrics.json").read_text())["validation"]


@pytest.fixture(scope="module")
def validation(photographs: Path) -> LabelledSplit:
    return cache.open_splits(photographs, 32).validation


def test_what_ships_is_the_trained_net_divided_by_its_temperature(
    finished_run: Path, validation: LabelledSplit
) -> None:
    net, shipped = load_shipped(finished_run)
    trained = shipped.student.shipped_form(trained_net(shipped.student, finished_run / "stages" / "student"))
    judged = told(finished_run)
    temperature = judged["calibration"]["temperature"]
    assert abs(temperature - 1) > 0.2
    assert weigh(net, 32) == weigh(trained, 32)
    assert list(net.state_dict()) == list(trained.state_dict())
    for tta in TTA:
        before = logits_of_tta(trained, validation, 32, shipped.normalisation, tta)
        after = logits_of_tta(net, validation, 32, shipped.normalisation, tta)
        assert torch.equal(before.argmax(1), after.argmax(1))
        torch.testing.assert_close(after.softmax(1), (before / temperature).softmax(1), rtol=1e-4, atol=1e-5)
        if tta == judged["views"]:
            assert judged["calibration"]["before"] == pytest.approx(calibration(before, validation.labels)._asdict())
            assert judged["calibration"]["after"] == pytest.approx(calibration(after, validation.labels)._asdict())
    found = judged["calibration"]
    assert found["n"] == judged["n"] == 30
    assert found["after"]["nll"] < found["before"]["nll"]
    assert found["after"]["ece"] < found["before"]["ece"]
    assert found["held_out"]["nll"] != found["after"]["nll"]


def test_a_finished_training_ships_the_same_bits_again(own_run: Path, photographs: Path) -> None:
    files = ("student_best.ckpt", "student.json", "metrics.json", "submission.csv")
    before = {name: (own_run / name).read_bytes() for name in files}
    for name in files:
        (own_run / name).unlink()
    pipeline.run(parse(RECIPE), photographs, own_run)
    assert {name: (own_run / name).read_bytes() for name in files} == before
    pipeline.run(parse(RECIPE), photographs, own_run)  # and is not divided once more
    assert {name: (own_run / name).read_bytes() for name in files} == before


def test_a_student_restored_from_what_shipped_is_not_divided_twice(
    finished_run: Path, photographs: Path, tmp_path: Path, validation: LabelledSplit
) -> None:
    source = shutil.copytree(finished_run, tmp_path / "shipped", ignore=shutil.ignore_patterns("stages"))
    pipeline.run(parse(RECIPE), photographs, tmp_path / "run", reuse=source)
    mine, theirs = told(tmp_path / "run"), told(source)
    assert mine["views"] == theirs["views"]
    assert mine["calibration"]["temperature"] == pytest.approx(theirs["calibration"]["temperature"], rel=0.01)
    first, second = (
        logits_of(load_shipped(run)[0], validation, 32, load_shipped(run)[1].normalisation)
        for run in (tmp_path / "run", source)
    )
    torch.testing.assert_close(first.softmax(1), second.softmax(1), rtol=0, atol=0.01)


def test_exits_have_their_own_and_a_refit_those_of_the_stage_that_it_repeats(
    photographs: Path, tmp_path: Path, validation: LabelledSplit
) -> None:
    run = tmp_path / "run"
    pipeline.run(parse(EXITING), photographs, run)
    net, shipped = open_run(run).as_shipped()
    assert isinstance(net, EarlyExitNet)
    judged = told(run)["calibration"]
    temperatures = [one["temperature"] for one in (*judged["exits"], judged)]
    assert len(set(temperatures)) == 3

    def answers(stage: str) -> list[torch.Tensor]:
        one = shipped.student.shipped_form(trained_net(shipped.student, run / "stages" / stage))
        plain = logits_of(one, validation, 32, shipped.normalisation)
        return [*logits_of_exits(one, validation, 32, shipped.normalisation), plain]

    refitted, plain = answers("again"), logits_of(net, validation, 32, shipped.normalisation)
    shown = [*logits_of_exits(net, validation, 32, shipped.normalisation), plain]
    if told(run)["batchnorm"] == "of training":
        for before, after, temperature in zip(refitted, shown, temperatures, strict=True):
            torch.testing.assert_close(after, before / temperature, rtol=1e-4, atol=1e-4)
    for one, selected in zip(judged["exits"], answers("early"), strict=False):
        if told(run)["batchnorm"] == "of training":
            assert one["before"] == pytest.approx(calibration(selected, validation.labels)._asdict())
        assert one["after"]["nll"] < one["before"]["nll"]


def test_the_probabilities_of_the_main_path_are_those_of_the_weights(
    finished_run: Path, photographs: Path, tmp_path: Path
) -> None:
    from bantam.deliver.predict import predict

    net, shipped = load_shipped(finished_run)
    evaluation = cache.open_splits(photographs, 32).evaluation
    assert evaluation is not None
    again, table = tmp_path / "again.csv", tmp_path / "table.csv"
    tta = told(finished_run)["views"]
    logits = predict(net, shipped, evaluation, tta=tta, path=again, probabilities=table)
    assert again.read_bytes() == (finished_run / "submission.csv").read_bytes()
    rows = list(csv.reader(table.open()))[1:]
    written = torch.tensor([[float(value) for value in row[1:]] for row in rows])
    torch.testing.assert_close(written, logits.softmax(1), rtol=0, atol=1e-4)
