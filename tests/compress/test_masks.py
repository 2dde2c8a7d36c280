import pytest
import torch
from torch import nn

from bantam.compress.masks import MASKS, by_layer, globally, maskable, masked, zeros_in
from bantam.errors import BadPruning
from bantam.nets.students import describe
from bantam.train.ema import Ema


def net() -> nn.Module:
    torch.manual_seed(0)
    return describe("mobilenet_v1", 5_000, 3, 32).build().eval()


@pytest.mark.parametrize("ratio", [0.0, 0.05, 0.333, 0.5, 0.7])
@pytest.mark.parametrize("method", MASKS)
def test_exactly_the_ratio_is_zero_and_nothing_else_changes(method: str, ratio: float):
    dense = net()
    sparse = masked(dense, 4_993, method, ratio)
    assert zeros_in(sparse) == round(ratio * 4_993)
    assert zeros_in(dense) == 0
    weights = maskable(dense)
    for name, value in sparse.state_dict().items():
        before = dense.state_dict()[name]
        if name in weights:
            assert torch.equal(value, before * (value != 0))
        else:
            assert torch.equal(value, before)


def test_the_least_weights_of_the_whole_net_go():
    weights = {"a": torch.tensor([[1.0, -5.0]]), "b": torch.tensor([0.5, 3.0, -2.0])}
    masks = globally(weights, 2)
    assert masks["a"].tolist() == [[False, True]]
    assert masks["b"].tolist() == [False, True, True]


def test_every_layer_keeps_its_largest_weight():
    weights = {"a": torch.tensor([[1.0, -5.0]]), "small": torch.tensor([0.1, -0.3, 0.2]), "b": torch.tensor([4.0, 3.0])}
    masks = globally(weights, 4)
    assert masks["small"].tolist() == [False, True, False]
    assert masks["a"].tolist() == [[False, True]]
    assert masks["b"].tolist() == [True, False]
    assert weights["small"].tolist() == pytest.approx([0.1, -0.3, 0.2])
    assert not all(mask.any() for mask in globally(weights, 5).values())


def test_every_layer_loses_the_same_share():
    weights = {"a": torch.randn(50, 4), "b": torch.randn(1000)}
    masks = by_layer(weights, 600)
    assert int((~masks["a"]).sum()) == 100
    assert int((~masks["b"]).sum()) == 500


@pytest.mark.parametrize("method", MASKS)
def test_the_weights_that_go_are_those_of_the_least_magnitude(method: str):
    dense = net()
    sparse = maskable(masked(dense, 4_993, method, 0.5))
    pairs = {name: (before.detach().abs().flatten(), sparse[name] == 0) for name, before in maskable(dense).items()}
    pairs = {name: (before, gone.flatten()) for name, (before, gone) in pairs.items()}
    if method == "global":
        # Over the whole net, but for the largest of each layer, which stays.
        threshold = max(float(before[gone].max()) for before, gone in pairs.values() if gone.any())
        for before, gone in pairs.values():
            assert all(value >= threshold or value == before.max() for value in before[~gone])
    else:
        for before, gone in pairs.values():
            assert before[gone].max() <= before[~gone].min()


@pytest.mark.parametrize(("method", "ratio"), [("layer", 0.9999), ("global", 0.9999), ("layer", 0.995)])
def test_a_ratio_that_would_empty_a_layer_is_refused(method: str, ratio: float):
    with pytest.raises(BadPruning, match="would empty the layer") as caught:
        masked(net(), 4_993, method, ratio)
    assert "\n" not in str(caught.value)


def test_training_leaves_the_zeros_where_they_are():
    sparse = masked(net(), 4_993, "global", 0.5).train()
    places = {name: value == 0 for name, value in maskable(sparse).items()}
    optimizer = torch.optim.SGD(sparse.parameters(), lr=0.1)
    averaged = Ema(sparse)
    for _ in range(2):
        sparse(torch.randn(4, 3, 32, 32)).square().sum().backward()
        optimizer.step()
        averaged.update(torch.tensor(0.5))
    for trained in (sparse, averaged.net):
        trained.eval()(torch.randn(2, 3, 32, 32))
        after = maskable(trained)
        assert all(not after[name][zeros].any() for name, zeros in places.items())
    moved = maskable(net())
    assert any(not torch.equal(maskable(sparse)[name], moved[name] * ~places[name]) for name in moved)
