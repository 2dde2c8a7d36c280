from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from bantam.errors import BadRecipe
from bantam.nets.blocks import RESIDUAL_SCALE
from bantam.nets.fold import deploy
from bantam.nets.output import StagedNet
from bantam.nets.students import describe, largekernel


@pytest.mark.parametrize(("budget", "classes", "size"), [(5_000, 2, 32), (60_000, 11, 64), (500_000, 100, 224)])
def test_the_formula_matches_the_shipped_net(budget: int, classes: int, size: int):
    student = describe("largekernel", budget, classes, size)
    with torch.device("meta"):
        net = student.shipped_net()
    assert sum(p.numel() for p in net.parameters()) == largekernel.parameters(student.shape, classes)


ONE_AT_A_TIME = [{name: value} for name, values in largekernel.CHOICES.items() for value in values]


@pytest.mark.parametrize("choices", ONE_AT_A_TIME, ids=str)
@pytest.mark.parametrize("budget", [5_000, 60_000])
def test_every_choice_fills_the_budget_and_keeps_its_answers_when_folded(budget: int, choices: dict[str, Any]):
    torch.manual_seed(0)
    student = describe("largekernel", budget, 11, 32, choices)
    net = student.build()
    net(torch.randn(4, 3, 32, 32))  # gives BatchNorm statistics that folding must not forget
    shipped = student.shipped_form(net)
    count = sum(parameter.numel() for parameter in shipped.parameters())
    assert 0.99 * budget <= count == largekernel.parameters(student.shape, 11) <= budget
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(shipped(images), net.eval()(images), rtol=1e-4, atol=1e-4)


def test_the_usual_values_are_those_without_a_choice():
    usual = {name: values[0] for name, values in largekernel.CHOICES.items()}
    assert describe("largekernel", 60_000, 11, 64, usual) == describe("largekernel", 60_000, 11, 64)


def test_each_choice_changes_what_it_says():
    plain = describe("largekernel", 60_000, 11, 64).shape

    def chosen(**choices: Any) -> dict[str, Any]:
        shape = describe("largekernel", 60_000, 11, 64, choices).shape
        return {name: value for name, value in shape.items() if value != plain[name]}

    assert chosen(kernel=9)["kernels"] == [9, 9, 9, 5]
    assert chosen(kernel=3)["kernels"] == [3, 3, 3, 3]
    assert chosen(downsampling="early")["strides"] == [2, 2, 2, 1, 1]
    assert chosen(branches=1) == {"branches": 1}
    assert chosen(gate="relu") == {"gate": "relu"}
    assert chosen(squeeze_excite=True)["widths"] < plain["widths"]
    assert chosen(head="none")["last"] == 0


def test_weights_of_a_description_without_the_newer_keys_still_load():
    student = describe("largekernel", 5_000, 11, 32)
    older = {name: value for name, value in student.shape.items() if name not in largekernel.CHOICES}
    net, again = student.build().eval(), largekernel.build(older, 11).eval()
    again.load_state_dict(net.state_dict())
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(again(images), net(images))


def test_a_choice_that_is_not_offered_is_refused_with_those_that_are():
    with pytest.raises(BadRecipe, match='"largekernel" has no shape choice "kernels": it has kernel, downsampling'):
        describe("largekernel", 60_000, 11, 64, {"kernels": 3})
    with pytest.raises(BadRecipe, match=r'"largekernel" has no kernel = 4: it has 7, 3, 5, 9'):
        describe("largekernel", 60_000, 11, 64, {"kernel": 4})
    with pytest.raises(BadRecipe, match=r'"largekernel" has no branches = True'):
        describe("largekernel", 60_000, 11, 64, {"branches": True})
    with pytest.raises(BadRecipe, match='"sample" has no shape choice "kernel": it has none'):
        describe("sample", 60_000, 11, 64, {"kernel": 3})


def test_a_block_ships_one_large_kernel_and_three_pointwise_layers():
    net = deploy(StagedNet([nn.Sequential(largekernel.GatedBlock(10, 7))], 10, 2))
    mix, expand, project = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    assert (mix.kernel_size, mix.groups) == ((7, 7), 10)
    assert (expand.kernel_size, expand.out_channels) == ((1, 1), 20)
    assert (project.kernel_size, project.out_channels) == ((1, 1), 10)
    shipped = sum(parameter.numel() for parameter in net.stages.parameters())
    assert shipped == largekernel.gated_parameters(10, 7) == 10 * 49 + 10 + 10 * 20 + 20 + 10 * 10 + 10


def test_a_block_adds_the_gated_product_to_its_input():
    torch.manual_seed(0)
    block = largekernel.GatedBlock(6, 5).eval()
    maps = torch.randn(2, 6, 9, 9)
    large, small = block.mix.branches
    expanded = block.expand(large(maps) + small(maps))
    product = functional.hardswish(expanded[:, :6]) * expanded[:, 6:]
    torch.testing.assert_close(block(maps), maps + block.project(product))


def test_a_fresh_block_is_nearly_the_identity_and_still_learns():
    torch.manual_seed(0)
    block = largekernel.GatedBlock(32, 7)
    maps = torch.randn(4, 32, 16, 16)
    change = (block(maps) - maps).std().item()
    assert change == pytest.approx(RESIDUAL_SCALE, rel=0.05)


@pytest.mark.parametrize("kernel", [5, 7])
def test_one_pixel_reaches_as_far_as_the_large_kernel(kernel: int):
    torch.manual_seed(0)
    block = largekernel.GatedBlock(3, kernel).eval()
    maps = torch.zeros(1, 3, 15, 15)
    spot = maps.clone()
    spot[..., 7, 7] = 1.0
    changed = (block(spot) - block(maps)).abs().amax((0, 1)) > 1e-9
    rows = changed.any(1).nonzero().flatten()
    assert (rows.min().item(), rows.max().item()) == (7 - kernel // 2, 7 + kernel // 2)


def test_most_blocks_work_on_maps_of_16_and_8_pixels():
    net = describe("largekernel", 60_000, 11, 64).build().eval()
    features = net.observe(torch.zeros(1, 3, 64, 64)).features
    blocks = [sum(isinstance(m, largekernel.GatedBlock) for m in stage.modules()) for stage in net.stages]
    assert [maps.shape[-1] for maps in features] == [32, 32, 16, 8]
    assert blocks == [1, 1, 2, 2]
