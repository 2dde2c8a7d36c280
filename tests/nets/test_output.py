import torch
from torch import nn

from bantam.nets.output import StagedNet


def staged() -> StagedNet:
    torch.manual_seed(0)
    return StagedNet([nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 6, 3, 2, 1)], width=6, classes=5).eval()


def test_observe_gives_one_map_per_stage_the_mean_of_the_last_and_the_logits_of_that_mean():
    net, images = staged(), torch.randn(2, 3, 16, 16)
    output = net.observe(images)

    first = net.stages[0](images)
    last = net.stages[1](first)
    assert [tuple(maps.shape) for maps in output.features] == [(2, 4, 8, 8), (2, 6, 4, 4)]
    torch.testing.assert_close(output.features, (first, last))
    torch.testing.assert_close(output.embedding, last.flatten(2).mean(2))
    torch.testing.assert_close(output.logits, nn.functional.linear(output.embedding, net.head.weight, net.head.bias))


def test_calling_the_net_gives_the_logits_that_observe_gives():
    net, images = staged(), torch.randn(2, 3, 16, 16)
    assert torch.equal(net(images), net.observe(images).logits)
