"""The captured step against the plain one, on a CUDA device: same weights within rounding after 100 steps."""

from pathlib import Path

import pytest
import torch

from bantam.data import batches, cache
from bantam.data.splits import IMAGENET
from bantam.nets.students import STUDENTS, describe
from bantam.nets.teachers import Teacher, build_teacher
from bantam.pipeline import run as pipeline
from bantam.recipes.recipe import parse
from bantam.train.answers import Live
from bantam.train.capture import Captured, state_of
from bantam.train.plan import Plan
from bantam.train.step import Step
from tiny_run import RECIPE

pytestmark = pytest.mark.gpu

TAUGHT = RECIPE.replace('kind = "student"', 'kind = "student"\nteacher = "t"').replace(
    "[[stage]]", '[[stage]]\nname = "t"\nkind = "given_teacher"\ncheckpoint = "t.ckpt"\nsize = 32\n[[stage]]', 1
) + "[stage.objectives.kd]\nweight = 1.0\n"  # fmt: skip


def build(photographs: Path, family: str, text: str = TAUGHT) -> Step:
    splits = cache.open_splits(photographs, 32)
    torch.manual_seed(0)
    stage = parse(text).shipped
    budget = 60_000 if family == "sample" else 20_000
    net = describe(family, budget, 3, 32).build().cuda().to(memory_format=torch.channels_last).train()
    teacher = Teacher(build_teacher("resnet18", 3).cuda(), 32, *[IMAGENET.mean, IMAGENET.std] * 2).cuda()
    step = Step(net, Plan(stage, splits.training, IMAGENET, pipeline.goals_of(stage), Live(teacher)), 200)
    step.settle()
    return step


@pytest.fixture(autouse=True)
def exact_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same kernels for both, in full float32."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


@pytest.mark.parametrize("family", STUDENTS)
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_captured_and_plain_steps_give_the_same_weights_after_100_steps(
    family: str, optimizer: str, photographs: Path
) -> None:
    text = TAUGHT.replace("lr = 5e-3", f'lr = 1e-3\nname = "{optimizer}"')
    plain, captured = build(photographs, family, text), build(photographs, family, text)
    order = batches.epoch(60, 10, 0, 0).cuda()
    replay = Captured(captured, order[0], torch.zeros_like(order[0]))
    for number in range(100):
        index, view = order[number % len(order)], torch.full_like(order[0], number)
        one, other = plain(index, view), replay(index, view)
        torch.testing.assert_close(one["loss"], other["loss"], rtol=1e-3, atol=1e-4)
    assert int(plain.count) == int(captured.count) == 100
    theirs = state_of(captured)
    for name, value in state_of(plain).items():
        if value.is_floating_point() and name.startswith(("net.", "ema.")):
            difference = (value - theirs[name]).norm() / (value.norm() + 1e-6)
            assert float(difference) < 1e-2, (name, float(difference))


def test_capturing_changes_nothing_by_itself(photographs: Path) -> None:
    step = build(photographs, "mobilenet_v1")
    before = {name: value.clone() for name, value in state_of(step).items()}
    index = torch.arange(10, device="cuda")
    Captured(step, index, torch.zeros_like(index))
    for name, value in state_of(step).items():
        expected = before.get(name, torch.zeros_like(value))
        assert torch.equal(value, expected), name


def test_a_run_on_the_gpu_resumes_and_ships(photographs: Path, tmp_path: Path) -> None:
    metrics = pipeline.run(parse(RECIPE), photographs, tmp_path / "run")
    assert metrics["validation"]["n"] == 30
    assert (tmp_path / "run" / "submission.csv").exists()
