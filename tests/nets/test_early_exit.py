"""Nets with early exits: every family has them, folded or not; they are counted, and an image leaves as it should."""

import json
from dataclasses import replace

import pytest
import torch
import torchsummary
from torch import Tensor, nn

from bantam.errors import BadCheckpoint, BadRecipe
from bantam.nets.budget import weigh
from bantam.nets.early_exit import EarlyExitNet, confidence, macs_of_exits, with_exits, without_exits
from bantam.nets.footprint import footprint
from bantam.nets.students import PRUNED, STUDENTS, Student, describe

SIZE = 32


def student(name: str, exits: tuple[int, ...] = (1, 2)) -> Student:
    least = 60_000 if name == "sample" else 8_000
    return replace(describe(name, least, 5, SIZE), exits=exits)


def trained(described: Student) -> EarlyExitNet:
    """A net whose BatchNorms are far from those of a fresh one, so that folding them matters."""
    torch.manual_seed(0)
    net = described.build()
    assert isinstance(net, EarlyExitNet)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, std=0.3)  # pyright: ignore[reportArgumentType]
            nn.init.uniform_(layer.running_var, 0.5, 2.0)  # pyright: ignore[reportArgumentType]
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.3)
    return net.eval()


@pytest.mark.parametrize("name", STUDENTS)
@torch.no_grad()
def test_every_family_ships_its_exits_with_the_same_answers(name: str):
    described = student(name)
    net = trained(described)
    shipped = described.shipped_form(net)
    images = torch.randn(6, 3, SIZE, SIZE)
    before, after = net.observe(images), shipped.observe(images)
    assert len(after.exits) == 2
    for ours, theirs in zip((*after.exits, after.logits), (*before.exits, before.logits), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(net(images), before.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(without_exits(net)(images), net(images), rtol=0, atol=0)
    described.shipped_net().load_state_dict(shipped.state_dict(), strict=True)


@pytest.mark.parametrize("name", STUDENTS)
@torch.no_grad()
def test_a_batch_leaves_as_its_images_would_one_by_one(name: str):
    net = trained(student(name))
    images = torch.randn(16, 3, SIZE, SIZE)
    shown = net.observe(images)
    threshold = float(torch.cat([confidence(logits) for logits in shown.exits]).median())
    logits, left = net.leave(images, [threshold, threshold])
    for number in range(16):
        alone = net.observe(images[number : number + 1])
        ways = (*alone.exits, alone.logits)
        place = next((p for p, way in enumerate(alone.exits) if float(confidence(way)) >= threshold), 2)
        assert int(left[number]) == place
        torch.testing.assert_close(logits[number], ways[place][0], rtol=1e-4, atol=1e-4)
    assert net.leave(images, [0.0, 0.0])[1].tolist() == [0] * 16
    assert net.leave(images, [1.1, 1.1])[1].tolist() == [2] * 16
    torch.testing.assert_close(net.leave(images, [1.1, 1.1])[0], net(images), rtol=1e-5, atol=1e-5)


class AllWays(nn.Module):
    """Calls everything in `forward`, for torchsummary."""

    def __init__(self, net: EarlyExitNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        shown = self.net.observe(images)
        return torch.stack((*shown.exits, shown.logits))


@pytest.mark.parametrize("name", ["mobilenet_v1", "recurrent", "sample"])
def test_exits_count_by_both_counts(name: str, capsys: pytest.CaptureFixture[str]):
    described = student(name)
    net = described.shipped_net()
    assert isinstance(net, EarlyExitNet)
    weight, bare = weigh(net, SIZE), weigh(replace(described, exits=()).shipped_net(), SIZE)
    added = sum(parameter.numel() for parameter in net.exits.parameters())
    assert added > 1000
    assert weight.unique == bare.unique + added
    assert weight.torchsummary == bare.torchsummary + added
    torchsummary.summary(AllWays(net).eval(), (3, SIZE, SIZE), device="cpu")
    said = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("Total params"))
    assert int(said.split(":")[1].replace(",", "")) == weight.torchsummary


def test_an_image_pays_for_the_stages_and_exits_that_it_passes():
    net = student("mobilenet_v1").shipped_net()
    assert isinstance(net, EarlyExitNet)
    first, second, end = macs_of_exits(net, SIZE)
    stages = [footprint(nn.Sequential(net.stages[:number], nn.AdaptiveAvgPool2d(1)), SIZE).macs for number in (1, 2)]
    maps = [net.stages[:number](torch.zeros(1, 3, SIZE, SIZE)) for number in (1, 2)]
    heads = []
    for leave, map_ in zip(net.exits, maps, strict=True):
        (depthwise,), (pointwise, _) = leave.layers  # pyright: ignore
        pixels = min(map_.shape[-1], 4) ** 2
        heads.append(pixels * (depthwise.weight.numel() + pointwise.weight.numel()) + leave.head.weight.numel())  # pyright: ignore
    assert first == stages[0] + heads[0]
    assert second == stages[1] + sum(heads)
    assert end == footprint(net, SIZE).macs + sum(heads)
    assert footprint(net, SIZE) == footprint(without_exits(net), SIZE)


def test_a_pruned_teacher_may_have_exits_too():
    described = Student("resnet18", {}, 5, SIZE, exits=(1, 3))
    assert described.family in PRUNED
    net = trained(described)
    shown = net.observe(torch.randn(2, 3, SIZE, SIZE))
    assert [logits.shape for logits in shown.exits] == [(2, 5), (2, 5)]


def test_the_description_survives_json_and_its_absence():
    described = student("largekernel", (2, 3))
    assert Student.from_json(json.loads(json.dumps(described.to_json()))) == described
    bare = replace(described, exits=())
    assert "exits" not in bare.to_json()
    assert Student.from_json(bare.to_json()) == bare


@pytest.mark.parametrize("exits", [[0], [4], [2, 1], [1, 1], ["1"], 3, [1.5], [-1]])
def test_wrong_stages_are_refused_in_one_line(exits: object):
    with pytest.raises(BadCheckpoint) as caught:
        Student.from_json({**student("largekernel").to_json(), "exits": exits})
    assert "\n" not in str(caught.value)


def test_the_last_stage_has_no_exit_and_is_named():
    net = describe("mobilenet_v1", 8_000, 5, SIZE).build()
    with pytest.raises(BadRecipe, match=r"after = \[4\] must name stages .* from 1 to 3"):
        with_exits(net, [4], SIZE)


def test_making_exits_changes_no_weight_of_the_net():
    net = describe("mobilenet_v1", 8_000, 5, SIZE).build()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    made = with_exits(net, (1,), SIZE)
    after = made.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert {name.split(".")[0] for name in after.keys() - before.keys()} == {"exits"}
