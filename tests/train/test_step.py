"""One step against the same step written out by hand, and what it must not touch."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from bantam.data import augment, cache
from bantam.data.augment import Augmentation, Viewing
from bantam.data.splits import IMAGENET
from bantam.nets.output import Output
from bantam.nets.students import describe
from bantam.nets.teachers import Teacher, build_teacher
from bantam.objectives.kd import loss_fn_kd
from bantam.pipeline import run as pipeline
from bantam.recipes.recipe import parse
from bantam.train.answers import Live
from bantam.train.plan import Plan
from bantam.train.step import Step, peers_of
from ranks import Exact
from tiny_run import RECIPE

KD = (
    RECIPE.replace('kind = "student"', 'kind = "student"\nteacher = "t"')
    .replace(
        "[[stage]]", '[[stage]]\nname = "t"\nkind = "given_teacher"\ncheckpoint = "t.ckpt"\nsize = 32\n[[stage]]', 1
    )
    .replace("weight = 1.0", "weight = 0.4")
    + "[stage.objectives.kd]\nweight = 0.6\ntemperature = 3.0\n"
)


def build(photographs: Path, text: str = KD, total: int = 100, kind: type[Step] = Step) -> tuple[Step, Teacher]:
    splits = cache.open_splits(photographs, 32)
    torch.manual_seed(0)
    stage = parse(text).shipped
    teacher = Teacher(build_teacher("resnet18", 3), 48, *[IMAGENET.mean, IMAGENET.std] * 2)
    net = describe("mobilenet_v1", 5000, 3, 32).build().train()
    goals = pipeline.goals_of(stage)
    if kind is Exact:
        teacher.double()
    return kind(net, Plan(stage, splits.training, IMAGENET, goals, Live(teacher)), total), teacher


def test_a_step_equals_the_same_sequence_by_hand(photographs: Path) -> None:
    """Same views to both, the weighted sum of the terms, clipping, SGD with its schedule, averaging: 8 steps.

    In float64: in float32 two orders of summation are 0.01 apart after as many steps, whichever processor adds.
    """
    text = KD.replace("lr = 5e-3", 'lr = 0.05\nname = "sgd"')
    step, teacher = build(photographs, text, kind=Exact)
    slow, _ = build(photographs, text, kind=Exact)
    slow.net.load_state_dict(step.net.state_dict())
    net = slow.net
    decayed = [item for item in net.parameters() if item.ndim > 1]
    others = [item for item in net.parameters() if item.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=0.0, momentum=0.9, nesterov=True, foreach=False)
    average = {name: value.clone() for name, value in net.state_dict().items()}
    splits = cache.open_splits(photographs, 32)
    augmentation = Augmentation(scale=(0.6, 1.0), cutmix=0.5)
    for number in range(8):
        index = torch.arange(10) * 3 % 60
        view = torch.full_like(index, number)
        terms = step(index, view)

        images, ratio = augment.render(splits.training.images, index, view, Viewing(0, augmentation, 32, IMAGENET))
        images = images.double()
        targets = augment.soft_targets(splits.training.labels[index], ratio, 3)
        # The terms are computed in float32 whatever the net computes in.
        loss = loss_fn_kd(net(images).float(), targets, teacher(images), alpha=0.6, temperature=3.0)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 10.0)
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * (number + 1) / 6 if number < 5 else float(step.rates[number])
        optimizer.step()
        optimizer.zero_grad()
        decay = min(0.9, (1 + number) / (10 + number))
        for name, value in net.state_dict().items():
            average[name] = decay * average[name] + (1 - decay) * value if value.is_floating_point() else value
        assert terms["loss"].item() == pytest.approx(loss.item(), rel=1e-5)
    assert step.ema
    for name, value in step.ema.net.state_dict().items():
        torch.testing.assert_close(value.double(), average[name].double(), rtol=1e-4, atol=1e-5)


def test_the_teacher_is_untouched(photographs: Path) -> None:
    step, teacher = build(photographs)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    for number in range(3):
        step(torch.arange(10), torch.full((10,), number))
    assert not teacher.training
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.parametrize("total", [4, 5])  # with 5 steps the third stands exactly at half of the training
def test_an_objective_that_is_alone_silences_the_others_until_then(photographs: Path, total: int) -> None:
    text = KD.replace("weight = 0.4", "weight = 1.0").replace(
        "[stage.objectives.kd]\nweight = 0.6\ntemperature = 3.0\n",
        "[stage.objectives.fitnet]\nweight = 2.0\nhint_until = 0.5\n",
    )
    step, _ = build(photographs, text, total=total)
    losses = [step(torch.arange(10), torch.full((10,), number)) for number in range(total)]
    for number, terms in enumerate(losses):
        if number < 2:
            assert terms["loss"].item() == pytest.approx(2.0 * terms["fitnet"].item(), rel=1e-5)
        else:
            assert terms["loss"].item() == pytest.approx(terms["cross_entropy"].item(), rel=1e-5)
            assert terms["fitnet"].item() == 0


@pytest.mark.parametrize("clip", [0.0, 1e-3, 1e6])
def test_gradients_are_clipped_to_the_largest_norm_and_0_switches_it_off(photographs: Path, clip: float) -> None:
    text = RECIPE.replace("lr = 5e-3", f'name = "sgd"\nlr = 0.1\nmomentum = 0.0\nweight_decay = 0.0\nclip = {clip}')
    step, slow = build(photographs, text)[0], build(photographs, text)[0]
    step.answers = slow.answers = None
    index, view = torch.arange(10), torch.zeros(10, dtype=torch.int64)
    slow.terms(*slow.look(index, view), None)["loss"].backward()
    norm = float(torch.stack([item.grad.norm() for item in slow.parameters if item.grad is not None]).norm())
    before = [item.detach().clone() for item in step.parameters]
    step(index, view)
    moved = torch.stack([(item.detach() - old).norm() for item, old in zip(step.parameters, before, strict=True)])
    rate = float(step.rates[0])
    assert norm > 10 * 1e-3
    assert float(moved.norm()) == pytest.approx(rate * (min(norm, clip) if clip else norm), rel=1e-2)


def test_objectives_are_prepared_without_a_trace_in_the_net(photographs: Path) -> None:
    text = KD.replace(
        "[stage.objectives.kd]\nweight = 0.6\ntemperature = 3.0\n", "[stage.objectives.fitnet]\nweight = 1.0\n"
    )
    step, _ = build(photographs, text)
    assert list(step.objectives()["fitnet"].parameters())  # it was prepared
    fresh = describe("mobilenet_v1", 5000, 3, 32).build()
    statistics = dict(fresh.named_buffers())
    assert statistics
    for name, value in step.net.named_buffers():
        assert torch.equal(value, statistics[name]), name
    assert step.net.training
    assert all(module.training for module in step.net.modules())


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_frozen_parameter_stays_and_is_not_the_optimizers(photographs: Path, name: str) -> None:
    splits = cache.open_splits(photographs, 32)
    stage = parse(RECIPE.replace("lr = 5e-3", f'name = "{name}"\nlr = 0.1')).shipped
    net = describe("mobilenet_v1", 5000, 3, 32).build().train()
    frozen, *others = net.parameters()
    frozen.requires_grad_(False)
    before = [item.detach().clone() for item in (frozen, *others)]
    step = Step(net, Plan(stage, splits.training, IMAGENET, pipeline.goals_of(stage)), 100)
    held = {id(item) for group in step.optimizer.param_groups for item in group["params"]}
    assert held == {id(item) for item in others} == {id(item) for item in step.parameters}
    step(torch.arange(10), torch.zeros(10, dtype=torch.int64))
    assert torch.equal(frozen, before[0])
    moved = [not torch.equal(item, old) for item, old in zip(others, before[1:], strict=True)]
    assert sum(moved) > len(moved) / 2


def test_a_scheduled_weight_goes_evenly_from_one_end_to_the_other(photographs: Path) -> None:
    step, _ = build(photographs, KD.replace("weight = 0.4", "weight = [1.0, 0.0]"), total=5)
    for number in range(5):
        terms = step(torch.arange(10), torch.full((10,), number))
        expected = (1 - number / 4) * terms["cross_entropy"] + 0.6 * terms["kd"]
        assert terms["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_warm_up_is_its_share_of_all_steps(photographs: Path) -> None:
    step, _ = build(photographs, RECIPE.replace("lr = 5e-3", "lr = 5e-3\nwarmup = 0.25"), total=20)
    assert step.warm_up == 5
    assert step.rates.argmax() in (4, 5)


def test_bf16_autocast_stays_close_to_fp32(photographs: Path) -> None:
    plain, _ = build(photographs)
    cast, _ = build(photographs)
    cast.net.load_state_dict(plain.net.state_dict())
    cast.autocast = torch.bfloat16
    index, view = torch.arange(10), torch.zeros(10, dtype=torch.int64)
    one, other = plain(index, view), cast(index, view)
    assert other["loss"].item() == pytest.approx(one["loss"].item(), rel=0.03)
    assert other["loss"].dtype == torch.float32


def test_a_contiguous_step_stays_close_to_channels_last(photographs: Path) -> None:
    plain, _ = build(photographs, kind=Exact)
    other, _ = build(photographs, kind=Exact)
    other.net.load_state_dict(plain.net.state_dict())
    plain.net.to(memory_format=torch.channels_last)
    other.memory_format = torch.contiguous_format
    for number in range(5):
        index, view = torch.arange(10), torch.full((10,), number)
        one, two = plain(index, view), other(index, view)
        assert two["loss"].item() == pytest.approx(one["loss"].item(), rel=1e-5)


def test_cross_entropy_of_mixed_targets_is_the_mixture() -> None:
    logits = torch.randn(4, 3)
    targets = augment.soft_targets(torch.tensor([0, 1, 2, 0]), torch.tensor([0.7, 1.0, 0.5, 0.2]), 3)
    expected = sum(
        share * F.cross_entropy(logits[row : row + 1], torch.tensor([label]))
        for row, label, share in [
            (0, 0, 0.7), (0, 1, 0.3), (1, 1, 1.0), (2, 2, 0.5), (2, 0, 0.5), (3, 0, 0.2), (3, 2, 0.8),
        ]
    ) / 4  # fmt: skip
    torch.testing.assert_close(F.cross_entropy(logits, targets), expected)


def test_what_a_step_returns_is_cut_off_from_its_graph(photographs: Path) -> None:
    step, _ = build(photographs)
    terms = step(torch.arange(10), torch.zeros(10, dtype=torch.int64))
    assert set(terms) == {"loss", "cross_entropy", "kd"}
    assert not any(term.requires_grad for term in terms.values())


def test_means_over_the_labelled_are_weighted_with_the_share_of_them(photographs: Path) -> None:
    step, _ = build(photographs)
    index, view = torch.arange(10), torch.zeros(10, dtype=torch.int64)
    images, targets = step.look(index, view)
    assert step.answers
    shown = step.answers(images, index, view)
    assert step.share_of_labels(targets, targets) == 1
    with torch.no_grad():
        whole = step.terms(images, targets, shown)
        part = step.terms(images, targets, shown, share=0.25)
    assert part["cross_entropy"].item() == pytest.approx(0.25 * whole["cross_entropy"].item(), rel=1e-5)
    assert part["kd"].item() == pytest.approx(whole["kd"].item(), rel=1e-5)
    expected = 0.4 * part["cross_entropy"].item() + 0.6 * part["kd"].item()
    assert part["loss"].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("own", "elsewhere", "share"), [(2, 3, 0.8), (1, 0, 2.0), (0, 4, 0.0), (0, 0, 0.0)])
def test_a_share_of_labels_is_against_the_mean_over_the_processes(
    own: int, elsewhere: int, share: float, photographs: Path
) -> None:
    class Two:
        world = 2

        def summed(self, number: torch.Tensor) -> torch.Tensor:
            return number + elsewhere

    step, _ = build(photographs)
    step.semi_labelled, step.processes = True, Two()  # pyright: ignore[reportAttributeAccessIssue]
    targets = torch.zeros(4, 3)
    targets[:own, 1] = 1
    assert float(step.share_of_labels(targets, targets)) == pytest.approx(share)


def test_peers_are_the_others_with_their_logits_and_embeddings() -> None:
    shown = [Output(torch.full((2, 3), float(n)), torch.full((2, 5), 10.0 + n), ()) for n in range(3)]
    peers = peers_of(shown, 1)
    assert peers is not None
    assert peers.logits.shape == (2, 2, 3)
    assert peers.embedding.shape == (2, 2, 5)
    assert peers.logits[:, 0, 0].tolist() == [0.0, 2.0]
    assert peers.embedding[:, 0, 0].tolist() == [10.0, 12.0]
    assert peers_of(shown[:1], 0) is None
