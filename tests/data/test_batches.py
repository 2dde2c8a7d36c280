"""Batches: every image at most once, partners together, views in turn, ranks as parts of one whole."""

import pytest
import torch

from bantam.data import augment, batches
from bantam.data.augment import Augmentation, Viewing
from bantam.data.splits import Normalisation


def partners(order: torch.Tensor) -> set[frozenset[int]]:
    return {frozenset(pair) for pair in order.flatten().view(-1, 2).tolist()}


@pytest.mark.parametrize(("n", "batch_size"), [(100, 10), (101, 10), (103, 16), (64, 64), (2, 2)])
def test_every_image_at_most_once_but_the_odd_one(n: int, batch_size: int) -> None:
    for epoch in range(5):
        rows = batches.epoch(n, batch_size, seed=1, epoch=epoch)
        assert rows.dtype == torch.int64
        assert rows.shape == ((n + n % 2) // batch_size, batch_size)
        pairs = rows.view(-1, 2)
        once = pairs[pairs[:, 0] != pairs[:, 1]].flatten().tolist()
        alone = pairs[pairs[:, 0] == pairs[:, 1]][:, 0].tolist()
        assert len(set(once + alone)) == len(once) + len(alone)
        assert set(once + alone) <= set(range(n))
        assert len(alone) <= n % 2


@pytest.mark.parametrize("n", [2, 7, 100, 101])
def test_pairing_is_an_order_of_all_images_and_an_odd_one_is_its_own_partner(n: int) -> None:
    order = batches.pairing(n, 0, 3).tolist()
    assert sorted(order[:n]) == list(range(n))
    assert order[n:] == order[n - 1 : n] * (n % 2)


@pytest.mark.parametrize("n", [100, 101])
def test_pairs_stay_together_whatever_the_batch(n: int) -> None:
    for epoch in range(4):
        of_the_view = partners(batches.pairing(n, 7, epoch))
        for batch_size in (2, 4, 10, 50):
            assert partners(batches.epoch(n, batch_size, 7, epoch)) <= of_the_view


def test_views_come_in_turn() -> None:
    assert [batches.view_of(epoch, 0) for epoch in range(5)] == [0, 1, 2, 3, 4]
    assert [batches.view_of(epoch, 3) for epoch in range(5)] == [0, 1, 2, 0, 1]
    first, again, other = (batches.epoch(100, 10, 0, epoch, views=3) for epoch in (1, 4, 2))
    assert partners(first) == partners(again) != partners(other)
    assert not torch.equal(first, again)  # the same view in another order


def test_depends_on_seed_and_epoch_alone() -> None:
    rows = batches.epoch(100, 10, 0, 0)
    torch.manual_seed(99)
    assert torch.equal(rows, batches.epoch(100, 10, 0, 0))
    assert not torch.equal(rows, batches.epoch(100, 10, 1, 0))
    assert not torch.equal(rows, batches.epoch(100, 10, 0, 1))


def test_golden_batch() -> None:
    """An order that changes silently would show a resumed training other batches, and void every cached answer."""
    assert batches.pairing(10, 3, 2).tolist() == GOLDEN_PAIRS
    assert batches.pairing(9, 3, 2).tolist() == GOLDEN_ODD_PAIRS
    assert batches.epoch(10, 4, seed=3, epoch=2).tolist() == GOLDEN_ROWS
    assert batches.epoch(9, 4, seed=3, epoch=2).tolist() == GOLDEN_ODD_ROWS


GOLDEN_PAIRS = [0, 7, 5, 8, 3, 1, 2, 4, 6, 9]
GOLDEN_ODD_PAIRS = [0, 7, 5, 8, 3, 1, 2, 4, 6, 6]
GOLDEN_ROWS = [[5, 8, 0, 7], [2, 4, 6, 9]]
GOLDEN_ODD_ROWS = [[5, 8, 0, 7], [2, 4, 6, 6]]


@pytest.mark.parametrize("world", [2, 3, 4])
@pytest.mark.parametrize("n", [97, 240])
def test_ranks_are_parts_of_the_global_batch(n: int, world: int) -> None:
    whole = batches.epoch(n, 24, 5, 1, views=2)
    shards = [batches.epoch(n, 24, 5, 1, views=2, rank=rank, world=world) for rank in range(world)]
    assert all(shard.shape == ((n + 1) // 24, 24 // world) for shard in shards)
    assert torch.equal(torch.cat(shards, dim=1), whole)


@pytest.mark.parametrize(("n", "world", "expected"), [(9, 1, 10), (8, 1, 8), (9, 2, 8), (9, 3, 6), (63, 4, 64)])
def test_a_batch_larger_than_the_data_shrinks(n: int, world: int, expected: int) -> None:
    shards = [batches.epoch(n, 240, 0, 0, rank=rank, world=world) for rank in range(world)]
    assert torch.cat(shards, dim=1).shape == (1, expected)


@pytest.mark.parametrize("views", [0, 1, 3])
@pytest.mark.parametrize(("n", "batch_size"), [(11, 4), (11, 8), (9, 240), (12, 8)])
def test_everyone_takes_part_in_time(n: int, batch_size: int, views: int) -> None:
    """What one epoch leaves out, others show, also where every epoch shows the same view."""
    for seed in range(5):
        seen = torch.cat([batches.epoch(n, batch_size, seed, epoch, views).flatten() for epoch in range(20)])
        assert set(seen.tolist()) == set(range(n))


def test_the_odd_image_is_mixed_with_nothing() -> None:
    """So its answer, too, is a function of (seed, image, view)."""
    images = torch.randint(256, (7, 8, 8, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    for view in range(4):
        order = batches.pairing(7, 0, view)
        mixes, plain = Augmentation(mixup=0.5, cutmix=0.5), Augmentation()
        grey = Normalisation((0.5,) * 3, (0.5,) * 3)
        mixed, ratio = augment.render(images, order, view, Viewing(0, mixes, 8, grey))
        own = augment.render(images, order, view, Viewing(0, plain, 8, grey))[0]
        torch.testing.assert_close(mixed[-2:], own[-2:])
        targets = augment.soft_targets(order % 3, ratio, 3)
        torch.testing.assert_close(targets[-2:], torch.eye(3)[order[-2:] % 3])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 7}, "batch size 7 .* multiple of 2"),
        ({"batch_size": 0}, "batch size 0"),
        ({"batch_size": 6, "world": 2}, "multiple of 4"),
        ({"n": 1}, "1 image.* too few"),
        ({"n": 5, "batch_size": 12, "world": 3}, "5 image.* too few"),
        ({"rank": 2, "world": 2}, "rank 2 of 2"),
        ({"rank": -1}, "rank -1"),
        ({"views": -1}, "views is -1"),
    ],
)
def test_impossible_batches_are_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        batches.epoch(**({"n": 100, "batch_size": 8, "seed": 0, "epoch": 0} | arguments))
