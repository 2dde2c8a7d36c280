"""BatchNorm's statistics estimated anew: against those of the whole split, worked out layer by layer."""

from pathlib import Path

import pytest
import torch
from torch import nn

from bantam.data import cache
from bantam.data.augment import plain
from bantam.data.splits import IMAGENET
from bantam.errors import SplitLeak
from bantam.nets.students import describe
from bantam.train import reestimate
from bantam.train.reestimate import has_statistics, reestimated


def test_statistics_are_those_of_the_plain_views(photographs: Path) -> None:
    split = cache.open_splits(photographs, 32).training
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 1), nn.BatchNorm2d(5)
    )
    nn.init.constant_(net[1].running_mean, 7.0)  # pyright: ignore
    weights = {name: value.clone() for name, value in net.named_parameters()}
    assert has_statistics(net)
    assert reestimated(net, split, 32, IMAGENET) is net
    assert not any(module.training for module in net.modules())
    assert [module.momentum for module in net if isinstance(module, nn.BatchNorm2d)] == [0.1, 0.1]
    assert all(torch.equal(value, weights[name]) for name, value in net.named_parameters())
    maps = plain(split.images, 32, IMAGENET.mean, IMAGENET.std)
    with torch.no_grad():
        for module in net:
            if isinstance(module, nn.BatchNorm2d):
                torch.testing.assert_close(module.running_mean, maps.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
                torch.testing.assert_close(module.running_var, maps.var((0, 2, 3)), rtol=1e-4, atol=1e-5)
                variance = maps.var((0, 2, 3), unbiased=False, keepdim=True)  # what the next layer was shown
                normalised = (maps - maps.mean((0, 2, 3), keepdim=True)) / (variance + module.eps).sqrt()
                maps = normalised * module.weight.view(1, -1, 1, 1) + module.bias.view(1, -1, 1, 1)
            else:
                maps = module(maps)


def test_batches_are_drawn_from_all_classes(photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The photographs are sorted by class: batches in that order would see variances within a class only."""
    split = cache.open_splits(photographs, 32).training
    assert split.labels.tolist() == sorted(split.labels.tolist())
    monkeypatch.setattr(reestimate, "BATCH", 20)
    net = reestimated(nn.Sequential(nn.BatchNorm2d(3)), split, 32, IMAGENET)
    pixels = plain(split.images, 32, IMAGENET.mean, IMAGENET.std)
    torch.testing.assert_close(net[0].running_var, pixels.var((0, 2, 3)), rtol=0.1, atol=0)  # pyright: ignore


def test_a_few_images_are_enough_where_that_is_asked_for(photographs: Path) -> None:
    split = cache.open_splits(photographs, 32).training
    few = reestimated(nn.Sequential(nn.BatchNorm2d(3)), split, 32, IMAGENET, images=12)
    drawn = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))[:12]
    pixels = plain(split.images[drawn], 32, IMAGENET.mean, IMAGENET.std)
    torch.testing.assert_close(few[0].running_mean, pixels.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)  # pyright: ignore


def test_a_net_without_batchnorm_stays_and_the_evaluation_split_is_refused(photographs: Path) -> None:
    splits = cache.open_splits(photographs, 32)
    reestimated(nn.Sequential(nn.Conv2d(3, 3, 1)), splits.training, 32, IMAGENET)
    with pytest.raises(SplitLeak, match="BatchNorm"):
        reestimated(describe("mobilenet_v1", 5000, 3, 32).build(), splits.evaluation, 32, IMAGENET)  # pyright: ignore
