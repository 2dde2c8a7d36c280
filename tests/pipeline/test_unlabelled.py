"""Runs that learn from images without a label: what joins which stage, the views' cache, a kill, the refit."""

import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from bantam.data import augment, batches, cache
from bantam.data.augment import Augmentation, Viewing
from bantam.data.splits import IMAGENET, SemiLabelledSplit
from bantam.errors import BadRecipe, RunMismatch, SplitLeak
from bantam.nets.students import describe
from bantam.nets.teachers import Teacher
from bantam.objectives.kd import kd_divergence
from bantam.pipeline import run as pipeline
from bantam.recipes.recipe import parse
from bantam.runs.runfolder import rows as read_rows
from bantam.train.answers import Live
from bantam.train.plan import Plan
from bantam.train.step import Step
from killed_run import assert_same, run_process
from tiny_run import RECIPE, write_photographs

HEAD, STUDENT = RECIPE[: RECIPE.index("[[stage]]")], RECIPE[RECIPE.index("[[stage]]") :]
SEMI = (
    HEAD.replace("[data]", "[data]\nunlabelled = true")
    + STUDENT.replace(
        'name = "student"\nkind = "student"', 'name = "large"\nkind = "assistant"\nbudget = 9000'
    ).replace("epochs = 4", "epochs = 2")
    + STUDENT.replace('kind = "student"', 'kind = "student"\nteacher = "large"\nviews = 2').replace(
        "epochs = 4", "epochs = 3"
    )
    + "[stage.objectives.kd]\nweight = 1.0\n"
)
REFIT = '[[stage]]\nname = "again"\nkind = "refit"\nof = "student"\n'


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("photos") / "data", unlabelled=31)


@pytest.fixture(scope="module")
def uninterrupted(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    assert run_process(SEMI, root, out) == 0
    return out


def test_they_join_the_stages_that_have_a_teacher_alone(uninterrupted: Path) -> None:
    stages = json.loads((uninterrupted / "metrics.json").read_text())["stages"]
    assert "unlabelled" not in stages["large"]
    assert stages["student"]["unlabelled"] == 31
    rows = read_rows(uninterrupted / "stages" / "student" / "metrics.jsonl")
    assert all(set(row["training"]) == {"loss", "cross_entropy", "kd"} for row in rows)


@pytest.mark.parametrize(("place", "at"), [("step", 12 + 13), ("save", 12 + 5)])
def test_killed_and_run_again_ends_with_the_same_bits(
    place: str, at: int, root: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert run_process(SEMI, root, out, place, at) == -signal.SIGKILL
    assert (out / "stages" / "large" / "done.json").exists()
    assert not (out / "student_best.ckpt").exists()
    assert run_process(SEMI, root, out) == 0
    assert_same(out, uninterrupted)


def test_the_views_cache_holds_their_answers(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANTAM_CACHE", str(tmp_path / "cache"))
    pipeline.run(parse(SEMI), root, tmp_path / "run")
    [folder] = (tmp_path / "cache" / "views").iterdir()
    logits = np.load(folder / "00001.logits.npy")
    assert logits.shape == (91, 3)
    assert np.isfinite(logits).all()  # the one without a partner is asked about as well


def test_a_step_by_hand(root: Path) -> None:
    """The teacher is followed on every view, mixed ones included; the labels count where the whole view has one."""
    splits = cache.open_splits(root, 32, unlabelled=True)
    assert isinstance(splits.taught, SemiLabelledSplit)
    stage = parse(SEMI).shipped
    torch.manual_seed(0)
    teacher = Teacher(describe("mobilenet_v1", 9000, 3, 32).build(), 32, *[IMAGENET.mean, IMAGENET.std] * 2)
    net = describe("mobilenet_v1", 5000, 3, 32).build().train()
    step = Step(net, Plan(stage, splits.taught, IMAGENET, pipeline.goals_of(stage), Live(teacher)), 9)
    index = batches.epoch(91, 40, 0, 0)[0]
    view = torch.zeros_like(index)
    augmentation = Augmentation(scale=(0.6, 1.0), cutmix=0.5)
    images, ratio = augment.render(splits.taught.images, index, 0, Viewing(0, augmentation, 32, IMAGENET))
    with torch.no_grad():
        said, heard = net(images), teacher(images)
    labels = splits.taught.labels[index]
    losses = []
    for row in range(40):
        own, partner, share = int(labels[row]), int(labels[row ^ 1]), float(ratio[row])
        if (own >= 0 or share == 0) and (partner >= 0 or share == 1):
            log_p = said[row].log_softmax(0)
            losses.append(-share * log_p[own] - (1 - share) * log_p[partner])
    assert 0 < len(losses) < int((labels >= 0).sum()) < 40
    terms = step(index, view)
    assert terms["cross_entropy"].item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-4)
    assert terms["kd"].item() == pytest.approx(kd_divergence(said, heard, 4.0).item(), rel=1e-3)
    assert F.cross_entropy(said[labels >= 0], labels[labels >= 0]).item() != pytest.approx(
        terms["cross_entropy"].item()
    )


def test_a_refit_learns_from_them_too(root: Path, tmp_path: Path) -> None:
    metrics = pipeline.run(parse(SEMI + REFIT), root, tmp_path / "run")
    row = metrics["stages"]["again"]
    assert (row["images"], row["unlabelled"], metrics["refit"]["images"]) == (60 + 31 + 30, 31, 60 + 31 + 30)


def test_other_images_are_another_run(root: Path, uninterrupted: Path, tmp_path: Path) -> None:
    more = shutil.copytree(root, tmp_path / "more")
    Image.new("RGB", (32, 32), "orange").save(more / "unlabelled" / "new.png")
    with pytest.raises(RunMismatch, match="other photographs"):
        pipeline.run(parse(SEMI), more, uninterrupted)


def test_a_leak_stops_the_run_before_anything_is_written(root: Path, tmp_path: Path) -> None:
    leaky = shutil.copytree(root, tmp_path / "leaky")
    shutil.copy(leaky / "evaluation" / "0003.png", leaky / "unlabelled" / "0099.png")
    with pytest.raises(SplitLeak, match=r"0099\.png is \S+0003\.png"):
        pipeline.run(parse(SEMI), leaky, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_without_a_teacher_they_are_a_mistake(root: Path, tmp_path: Path) -> None:
    with pytest.raises(
        BadRecipe, match=r"tiny\.toml:\d+: data\.unlabelled = true, but no stage has a teacher"
    ) as raised:
        parse(RECIPE.replace("[data]", "[data]\nunlabelled = true"), "tiny.toml")
    assert "\n" not in str(raised.value)
    unheard = SEMI.replace("[stage.objectives.kd]\nweight = 1.0\n", "")
    with pytest.raises(BadRecipe, match='stage "student": no objective follows its teacher'):
        pipeline.run(parse(unheard), root, tmp_path / "run")
