import pytest
import torch
from torch import nn

from bantam.compress.statistics import has_statistics, reestimated
from bantam.data.augment import plain
from bantam.data.splits import IMAGENET, LabelledSplit, UnlabelledSplit
from bantam.errors import SplitLeak

IMAGES = torch.randint(256, (200, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
IDS = tuple(map(str, range(200)))


def test_statistics_are_the_means_over_the_batches():
    split = LabelledSplit("training", IMAGES, torch.zeros(200, dtype=torch.int64), IDS, ("a",))
    net = nn.Sequential(nn.BatchNorm2d(3))
    fresh = reestimated(net, split, 8, IMAGENET)
    views = plain(IMAGES, 8, IMAGENET.mean, IMAGENET.std).split(100)
    norm = fresh[0]
    assert isinstance(norm, nn.BatchNorm2d)
    means = torch.stack([batch.mean((0, 2, 3)) for batch in views]).mean(0)
    variances = torch.stack([batch.permute(1, 0, 2, 3).flatten(1).var(1) for batch in views]).mean(0)
    torch.testing.assert_close(norm.running_mean, means, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, variances, rtol=1e-4, atol=1e-5)
    assert not fresh.training
    assert norm.momentum == 0.1
    assert torch.equal(net[0].running_mean, torch.zeros(3))  # pyright: ignore
    assert has_statistics(net)


def test_the_evaluation_split_is_refused():
    with pytest.raises(SplitLeak, match="statistics"):
        reestimated(nn.BatchNorm2d(3), UnlabelledSplit(IMAGES, IDS), 8, IMAGENET)  # pyright: ignore
