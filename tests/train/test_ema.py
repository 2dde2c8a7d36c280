import torch
from torch import nn

from bantam.train.ema import Ema


def test_the_average_follows_the_formula_with_statistics_and_counters() -> None:
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    ema = Ema(net)
    expected = net[0].weight.detach().clone().double()
    running = net[1].running_mean.clone().double()
    for decay in (0.1, 0.9, 0.5):
        net(torch.randn(8, 3))
        with torch.no_grad():
            net[0].weight.add_(torch.randn(2, 3))
        ema.update(torch.tensor(decay))
        expected = decay * expected + (1 - decay) * net[0].weight.detach().double()
        running = decay * running + (1 - decay) * net[1].running_mean.double()
    torch.testing.assert_close(ema.net[0].weight.double(), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(ema.net[1].running_mean.double(), running, atol=1e-6, rtol=0)
    assert int(ema.net[1].num_batches_tracked) == 3
    assert not ema.net.training
    assert not any(parameter.requires_grad for parameter in ema.net.parameters())
