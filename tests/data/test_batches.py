"""Batches: every image at most once, partners together, views in turn, ranks as parts of one whole."""

import pytest
import torch

from bantam.data import batches


def partners(order: torch.Tensor) -> set[frozenset[int]]:
    return {frozenset(pair) for pair in order.flatten().view(-1, 2).tolist()}


@pytest.mark.parametrize(("n", "batch_size"), [(100, 10), (101, 10), (103, 16), (64, 64), (2, 2)])
def test_every_image_at_most_once(n: int, batch_size: int) -> None:
    for epoch in range(5):
        rows = batches.epoch(n, batch_size, seed=1, epoch=epoch)
        assert rows.dtype == torch.int64
        assert rows.shape == (n // batch_size, batch_size)
        seen = rows.flatten().tolist()
        assert len(set(seen)) == len(seen)
        assert set(seen) <= set(range(n))


@pytest.mark.parametrize("n", [2, 7, 100, 101])
def test_pairing_is_an_order_of_all_images(n: int) -> None:
    assert sorted(batches.pairing(n, 0, 3).tolist()) == list(range(n))


@pytest.mark.parametrize("n", [100, 101])
def test_pairs_stay_together_whatever_the_batch(n: int) -> None:
    for epoch in range(4):
        of_the_view = partners(batches.pairing(n, 7, epoch)[: n - n % 2])
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
    assert batches.epoch(9, 4, seed=3, epoch=2).tolist() == GOLDEN_ROWS


GOLDEN_ROWS = [[5, 8, 0, 7], [2, 4, 3, 1]]


@pytest.mark.parametrize("world", [2, 3, 4])
@pytest.mark.parametrize("n", [97, 240])
def test_ranks_are_parts_of_the_global_batch(n: int, world: int) -> None:
    whole = batches.epoch(n, 24, 5, 1, views=2)
    shards = [batches.epoch(n, 24, 5, 1, views=2, rank=rank, world=world) for rank in range(world)]
    assert all(shard.shape == (n // 24, 24 // world) for shard in shards)
    assert torch.equal(torch.cat(shards, dim=1), whole)


@pytest.mark.parametrize(("n", "world", "expected"), [(9, 1, 8), (8, 1, 8), (9, 2, 8), (9, 3, 6), (63, 4, 56)])
def test_a_batch_larger_than_the_data_shrinks(n: int, world: int, expected: int) -> None:
    shards = [batches.epoch(n, 240, 0, 0, rank=rank, world=world) for rank in range(world)]
    assert torch.cat(shards, dim=1).shape == (1, expected)


def test_everyone_takes_part_in_time() -> None:
    """What one epoch leaves out, others show."""
    seen = torch.cat([batches.epoch(11, 4, 0, epoch).flatten() for epoch in range(12)])
    assert set(seen.tolist()) == set(range(11))


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
