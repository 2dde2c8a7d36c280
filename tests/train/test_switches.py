"""Several widths in one training: against in-place distillation written out, and killed and resumed."""

import copy
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bantam.data import augment, cache
from bantam.data.augment import Augmentation, Viewing, plain
from bantam.data.splits import IMAGENET
from bantam.nets.slimmable import SwitchableNet
from bantam.nets.students import Student, describe
from bantam.pipeline import run as pipeline
from bantam.recipes.recipe import parse
from bantam.runs.runfolder import rows as read_rows
from bantam.train.loop import selected_by
from bantam.train.plan import Plan
from bantam.train.reestimate import reestimated
from ranks import Exact
from tiny_run import RECIPE, RUNS_AND_DIES

WIDTHS = RECIPE.replace("epochs = 4", "epochs = 2\nwidths = [0.5, 0.75, 1.0]")
# Four switches take turns: what a resumed run must not forget is whose turn it is.
TURNS = RECIPE.replace("epochs = 4", "epochs = 2\nwidths = [0.5, 1.0]\nsizes = [20, 32]")


def switchable(text: str) -> tuple[Student, SwitchableNet]:
    torch.manual_seed(0)
    stage = parse(text).shipped
    student = describe("mobilenet_v1", 5000, 3, 32, {}, stage.switches)
    net = student.build().train()
    assert isinstance(net, SwitchableNet)
    return student, net


@pytest.mark.parametrize("text", [WIDTHS, TURNS], ids=["three widths", "four switches in turn"])
def test_steps_equal_in_place_distillation_by_hand(text: str, photographs: Path) -> None:
    """In float64: the whole net follows cross-entropy, each other switch that learns the divergence from it."""
    splits = cache.open_splits(photographs, 32)
    stage = parse(text.replace("lr = 5e-3", 'lr = 0.05\nname = "sgd"\nclip = 0.5')).shipped
    _, net = switchable(text)
    slow = copy.deepcopy(net).double()
    step = Exact(net, Plan(stage, splits.training, IMAGENET, pipeline.goals_of(stage)), 100)
    optimizer = torch.optim.SGD(
        [
            {"params": [item for item in slow.parameters() if item.ndim > 1], "weight_decay": 0.05},
            {"params": [item for item in slow.parameters() if item.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=0.0, momentum=0.9, nesterov=True, foreach=False,
    )  # fmt: skip
    for number in range(4):
        index = torch.arange(10) * 3 % 60
        view = torch.full_like(index, number)
        terms = step(index, view)
        images, ratio = augment.render(
            splits.training.images, index, view, Viewing(0, Augmentation(scale=(0.6, 1.0), cutmix=0.5), 32, IMAGENET)
        )
        images = images.double()
        targets = augment.soft_targets(splits.training.labels[index], ratio, 3)
        whole = slow(images)
        loss, taught = F.cross_entropy(whole, targets), whole.detach()
        others = (1, 2) if text == WIDTHS else (1 + number % 2, 3)
        apart: list[float] = []
        for other in others:
            with slow.using(other):
                q = slow(images).log_softmax(1)
            divergence = (taught.softmax(1) * (taught.log_softmax(1) - q)).sum(1).mean()
            apart.append(divergence.item())
            loss = loss + divergence
        loss.backward()
        for parameter in slow.parameters():
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.nn.utils.clip_grad_norm_(slow.parameters(), 0.5)
        for group in optimizer.param_groups:
            group["lr"] = float(step.rates[number])
        optimizer.step()
        optimizer.zero_grad()
        assert terms["loss"].item() == pytest.approx(loss.item(), rel=1e-5)
        assert terms["in_place"].item() == pytest.approx(sum(apart) / 2, rel=1e-4, abs=1e-6)
    for value, expected in zip(net.parameters(), slow.parameters(), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)


def test_statistics_are_estimated_anew_for_every_switch(photographs: Path) -> None:
    """Each switch's are those of the ordinary net that it is."""
    split = cache.open_splits(photographs, 32).training
    student, net = switchable(TURNS)
    states = [norm.state_dict() for norm in net.modules() if isinstance(norm, nn.BatchNorm2d)]
    assert reestimated(net, split, 32, IMAGENET) is net
    norms = [norm for norm in net.modules() if isinstance(norm, nn.BatchNorm2d)]
    assert len(norms) == len(states) == 4 * sum(1 for name, _ in net.named_modules() if name.endswith(".norms"))
    assert all(int(norm.num_batches_tracked) == 1 for norm in norms if norm.num_batches_tracked is not None)
    images = plain(split.images, 32, IMAGENET.mean, IMAGENET.std)
    for number in range(len(student.switches)):
        with net.using(number), torch.no_grad():
            expected = net(images)
            net.train()
            shown = net(images)  # normalised by the batch itself, which here is the whole split
            net.eval()
        torch.testing.assert_close(expected, shown, rtol=5e-2, atol=5e-3)


def test_the_best_epoch_is_that_of_the_mean_over_the_switches() -> None:
    assert selected_by({"validation": {"accuracy": 0.9}, "switches": [0.9, 0.3, 0.3]}) == pytest.approx(0.5)
    assert selected_by({"validation": {"accuracy": 0.8}}) == 0.8


def test_killed_between_turns_and_run_again_ends_with_the_same_bits(photographs: Path, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole", tmp_path / "run"
    metrics = pipeline.run(parse(TURNS), photographs, whole)
    command = [sys.executable, "-c", RUNS_AND_DIES, TURNS, str(photographs), str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    assert subprocess.run([*command, "6"], env=environment, timeout=120).returncode == -signal.SIGKILL
    assert not (out / "student_best.ckpt").exists()
    assert subprocess.run([*command, "0"], env=environment, timeout=120).returncode == 0
    one, other = (torch.load(folder / "student_best.ckpt", weights_only=True) for folder in (out, whole))
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name
    mine, theirs = (read_rows(folder / "stages" / "student" / "metrics.jsonl") for folder in (out, whole))
    for row in (*mine, *theirs):
        row.pop("seconds")
        assert len(row["switches"]) == 4
        assert row["switches"][0] == row["validation"]["accuracy"]
    assert mine == theirs
    again = json.loads((out / "metrics.json").read_text())
    assert again["validation"] == metrics["validation"]
    assert max(metrics["parameters"].values()) <= 5000
