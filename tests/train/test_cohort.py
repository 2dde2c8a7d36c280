"""Peers that teach one another: against the paper's algorithm written out, alone as before, and killed and resumed."""

import copy
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from bantam.data import augment, cache
from bantam.data.augment import Augmentation, Viewing
from bantam.data.splits import IMAGENET
from bantam.nets.students import describe
from bantam.nets.teachers import Teacher, build_teacher
from bantam.objectives import OBJECTIVES
from bantam.pipeline import run as pipeline
from bantam.recipes.recipe import parse
from bantam.runs.runfolder import rows as read_rows
from bantam.train.answers import Live
from bantam.train.cohort import Cohort, members_of
from bantam.train.plan import Plan
from bantam.train.step import Step
from ranks import Exact
from tiny_run import RECIPE, RUNS_AND_DIES

PEERS = RECIPE.replace("epochs = 4", "epochs = 2\npeers = 3") + "[stage.objectives.dml]\nweight = 2.0\n"


def cohort(count: int) -> Cohort:
    torch.manual_seed(0)
    student = describe("mobilenet_v1", 5000, 3, 32)
    return Cohort([student.build().train() for _ in range(count)])


def test_steps_equal_deep_mutual_learning_by_hand(photographs: Path) -> None:
    """In float64, with SGD: each of three peers follows cross-entropy and the mean divergence from the other two."""
    splits = cache.open_splits(photographs, 32)
    stage = parse(PEERS.replace("lr = 5e-3", 'lr = 0.05\nname = "sgd"\nclip = 0.5')).shipped
    net = cohort(3)
    slow = copy.deepcopy(net).double()
    step = Exact(net, Plan(stage, splits.training, IMAGENET, pipeline.goals_of(stage)), 100)
    optimizers = [
        torch.optim.SGD(
            [
                {"params": [item for item in peer.parameters() if item.ndim > 1], "weight_decay": 0.05},
                {"params": [item for item in peer.parameters() if item.ndim <= 1], "weight_decay": 0.0},
            ],
            lr=0.0, momentum=0.9, nesterov=True, foreach=False,
        )
        for peer in slow.members
    ]  # fmt: skip
    augmentation = Augmentation(scale=(0.6, 1.0), cutmix=0.5)
    for number in range(4):
        index = torch.arange(10) * 3 % 60
        view = torch.full_like(index, number)
        terms = step(index, view)
        images, ratio = augment.render(splits.training.images, index, view, Viewing(0, augmentation, 32, IMAGENET))
        images = images.double()
        targets = augment.soft_targets(splits.training.labels[index], ratio, 3)
        logits = [peer(images) for peer in slow.members]
        total = 0.0
        for own, (peer, optimizer) in enumerate(zip(slow.members, optimizers, strict=True)):
            loss = F.cross_entropy(logits[own], targets)
            for other in range(3):
                if other != own:
                    p = logits[other].detach().softmax(1)
                    loss = loss + 2.0 * (p * (p.log() - logits[own].log_softmax(1))).sum(1).mean() / 2
            total += loss.item()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(peer.parameters(), 0.5)
            for group in optimizer.param_groups:
                group["lr"] = float(step.rates[number])
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        assert terms["loss"].item() == pytest.approx(total, rel=1e-5)
    for value, expected in zip(net.parameters(), slow.parameters(), strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)


def test_members_start_apart_and_the_first_as_a_net_alone() -> None:
    torch.manual_seed(0)
    alone = describe("mobilenet_v1", 5000, 3, 32).build()
    first, second = members_of(cohort(2))
    for one, other in zip(alone.parameters(), first.parameters(), strict=True):
        assert torch.equal(one, other)
    assert any(not torch.equal(one, other) for one, other in zip(alone.parameters(), second.parameters(), strict=True))
    assert members_of(alone) == [alone]
    assert Cohort.of([alone]) is alone


def test_a_cohort_answers_with_the_mean_of_its_members() -> None:
    net, images = cohort(2).eval(), torch.randn(2, 3, 32, 32)
    one, other = (member(images).log_softmax(1) for member in net.members)
    torch.testing.assert_close(net(images), (one + other) / 2)


@pytest.mark.parametrize("name", ["fitnet", "kd"])
def test_each_member_has_objectives_of_its_own(name: str, photographs: Path) -> None:
    """What a projection of one member learns, another's does not."""
    text = (
        PEERS.replace('kind = "student"', 'kind = "student"\nteacher = "t"').replace(
            "[[stage]]", '[[stage]]\nname = "t"\nkind = "given_teacher"\ncheckpoint = "t.ckpt"\nsize = 32\n[[stage]]', 1
        )
        + f"[stage.objectives.{name}]\nweight = 1.0\n"
    )
    splits = cache.open_splits(photographs, 32)
    stage = parse(text).shipped
    teacher = Teacher(build_teacher("resnet18", 3), 48, *[IMAGENET.mean, IMAGENET.std] * 2)
    step = Step(cohort(3), Plan(stage, splits.training, IMAGENET, pipeline.goals_of(stage), Live(teacher)), 10)
    step(torch.arange(10), torch.zeros(10, dtype=torch.int64))
    assert set(step.objectives()) == {f"{own}{end}" for own in ("supervised", "dml", name) for end in ("", ".1", ".2")}
    assert all(isinstance(objective, OBJECTIVES[own.split(".")[0]]) for own, objective in step.objectives().items())
    held = [list(step.objectives()[f"{name}{end}"].parameters()) for end in ("", ".1", ".2")]
    assert len({id(parameter) for parameters in held for parameter in parameters}) == sum(map(len, held))
    assert sum(map(len, held)) == (6 if name == "fitnet" else 0)


@pytest.fixture(scope="module")
def uninterrupted(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cohort") / "run"
    pipeline.run(parse(PEERS), photographs, out)
    return out


def test_the_best_peer_is_shipped_and_weighs_as_one(uninterrupted: Path) -> None:
    rows = read_rows(uninterrupted / "stages" / "student" / "metrics.jsonl")
    for row in rows:
        assert len(row["peers"]["accuracies"]) == 3
        assert row["validation"]["accuracy"] == max(row["peers"]["accuracies"])
        assert row["peers"]["accuracies"][row["peers"]["best"]] == row["validation"]["accuracy"]
    metrics = json.loads((uninterrupted / "metrics.json").read_text())
    assert metrics["parameters"]["unique"] <= 5000
    assert metrics["stages"]["student"]["validation"]["accuracy"] == max(row["validation"]["accuracy"] for row in rows)


def test_a_cohort_killed_and_run_again_ends_with_the_same_bits(
    photographs: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", RUNS_AND_DIES, PEERS, str(photographs), str(tmp_path / "run")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    assert subprocess.run([*command, "8"], env=environment, timeout=120).returncode == -signal.SIGKILL
    assert subprocess.run([*command, "0"], env=environment, timeout=120).returncode == 0
    one, other = (torch.load(out / "student_best.ckpt", weights_only=True) for out in (tmp_path / "run", uninterrupted))
    for name, value in one.items():
        assert torch.equal(value, other[name]), name
