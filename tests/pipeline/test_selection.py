"""What a run ships is as sure as it is right: temperatures from validation, in the weights and in metrics.json."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bantam.data import cache
from bantam.data.splits import IMAGENET, LabelledSplit, Splits, joined
from bantam.measure.accuracy import calibration
from bantam.measure.logits import logits_of
from bantam.measure.tta import TTA, logits_of_tta
from bantam.nets.budget import weigh
from bantam.nets.output import StagedNet
from bantam.pipeline import run as pipeline
from bantam.pipeline.selection import logits_of_exits, trained_net
from bantam.recipes.recipe import parse
from bantam.runs.finished import load_shipped, open_run
from bantam.train.reestimate import reestimated
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
[stage.objectives.self_distillation]
weight = 1.0
"""
)
REFITTED = RECIPE + '[[stage]]\nname = "again"\nkind = "refit"\nof = "student"\n'


def told(run: Path) -> dict[str, Any]:
    return json.loads((run / "metrics.json").read_text())["validation"]


@pytest.fixture(scope="module")
def splits(photographs: Path) -> Splits:
    return cache.open_splits(photographs, 32)


def undivided(run: Path, stage: str, seen: LabelledSplit) -> StagedNet:
    """The net of a stage in the form that ships, with the statistics that validation chose, before its temperatures."""
    shipped = open_run(run).shipped
    net = trained_net(shipped.student, run / "stages" / stage)
    if told(run)["batchnorm"] == "re-estimated":
        reestimated(net, seen, 32, shipped.normalisation)
    return shipped.student.shipped_form(net)


def ways_of(net: StagedNet, split: LabelledSplit, tta: str) -> list[Tensor]:
    """The logits [N, K] of each exit, and at the end under TTA."""
    return [*logits_of_exits(net, split, 32, IMAGENET), logits_of_tta(net, split, 32, IMAGENET, tta)]


def test_what_ships_is_the_trained_net_divided_by_its_temperature(finished_run: Path, splits: Splits) -> None:
    net, shipped = load_shipped(finished_run)
    trained, validation = undivided(finished_run, "student", splits.training), splits.validation
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
            assert judged["calibration"]["after"] == pytest.approx(
                calibration(after, validation.labels)._asdict(), rel=1e-4
            )
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
    finished_run: Path, photographs: Path, tmp_path: Path, splits: Splits
) -> None:
    source = shutil.copytree(finished_run, tmp_path / "shipped", ignore=shutil.ignore_patterns("stages"))
    pipeline.run(parse(RECIPE), photographs, tmp_path / "run", reuse=source)
    mine, theirs = told(tmp_path / "run"), told(source)
    assert mine["views"] == theirs["views"]
    assert mine["calibration"]["temperature"] == pytest.approx(theirs["calibration"]["temperature"], rel=0.01)
    first, second = (
        logits_of(load_shipped(run)[0], splits.validation, 32, IMAGENET) for run in (tmp_path / "run", source)
    )
    torch.testing.assert_close(first.softmax(1), second.softmax(1), rtol=0, atol=0.01)


def test_each_exit_is_divided_by_a_temperature_of_its_own(photographs: Path, tmp_path: Path, splits: Splits) -> None:
    run, labels = tmp_path / "run", splits.validation.labels
    pipeline.run(parse(EXITING), photographs, run)
    judged = told(run)
    net, _ = open_run(run).as_shipped()
    before, after = (
        ways_of(one, splits.validation, judged["views"]) for one in (undivided(run, "early", splits.training), net)
    )
    rows = [*judged["calibration"]["exits"], judged["calibration"]]
    assert len({row["temperature"] for row in rows}) == len(rows) == 3
    for row, first, last in zip(rows, before, after, strict=True):
        torch.testing.assert_close(last.softmax(1), (first / row["temperature"]).softmax(1), rtol=1e-4, atol=1e-5)
        assert row["before"] == pytest.approx(calibration(first, labels)._asdict(), rel=1e-4)
        assert row["after"] == pytest.approx(calibration(last, labels)._asdict(), rel=1e-4)
        assert row["after"]["nll"] < row["before"]["nll"]


def test_a_refit_is_divided_by_what_fits_the_stage_that_it_repeats(
    finished_run: Path, photographs: Path, tmp_path: Path, splits: Splits
) -> None:
    run = tmp_path / "run"
    metrics = pipeline.run(parse(REFITTED), photographs, run, reuse=finished_run)
    judged = told(run)
    assert judged["calibration"] == told(finished_run)["calibration"]
    assert "temperatures included" in metrics["refit"]["note"]
    net, _ = open_run(run).as_shipped()
    refitted = undivided(run, "again", joined(splits.training, splits.validation))
    (before,), (after,) = (ways_of(one, splits.validation, judged["views"]) for one in (refitted, net))
    torch.testing.assert_close(
        after.softmax(1), (before / judged["calibration"]["temperature"]).softmax(1), rtol=1e-4, atol=1e-5
    )


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
