"""The hash behind every random choice: pinned values, uniformity, independence of neighbours."""

import numpy as np
import pytest
import torch

from bantam.data import draws

INDEX = torch.arange(20_000)


def grid(seed: int = 0, view: int = 0, stream: int = 0, count: int = 8) -> np.ndarray:
    return draws.uniform(seed, INDEX, torch.full_like(INDEX, view), stream, count).double().numpy()


def plain_word(seed: int, index: int, view: int, stream: int, position: int) -> int:
    """The definition once more, in Python integers."""

    def scramble(word: int) -> int:
        word = (word + 0x9E3779B9) % 2**32
        word ^= word >> 16
        word = word * 0x7FEB352D % 2**32
        word ^= word >> 15
        word = word * 0x846CA68B % 2**32
        return word ^ word >> 16

    key = scramble(scramble(scramble(stream) ^ seed % 2**32) ^ (seed >> 32) % 2**32)
    return scramble(scramble(scramble(index ^ key) ^ scramble(view)) ^ position)


def test_golden_values() -> None:
    index, view = torch.tensor([0, 1, 9_992]), torch.tensor([0, 0, 299])
    words = (draws.uniform(20220013, index, view, draws.VIEW, 3) * 2**24).long()
    assert words.tolist() == GOLDEN_WORDS
    assert draws.permutation(10, 1, 2, draws.ORDER).tolist() == GOLDEN_ORDER


GOLDEN_WORDS = [[7087795, 9118106, 5636814], [7074970, 15834049, 12507170], [2427951, 3782651, 14663762]]
GOLDEN_ORDER = [6, 0, 9, 2, 8, 1, 3, 7, 5, 4]


@pytest.mark.parametrize("seed", [0, 1, -1, 2**31, 2**32, 2**63 - 1, 2**64 - 1])
def test_equals_the_definition_in_python_integers(seed: int) -> None:
    index, view = torch.tensor([0, 1, 2**31, 2**32 - 1]), torch.tensor([0, 7, 2**31, 2**32 - 1])
    for stream in range(4):
        drawn = draws.uniform(seed, index, view, stream, 5)
        for row, (i, v) in enumerate(zip(index.tolist(), view.tolist(), strict=True)):
            assert [x * 2**24 for x in drawn[row].tolist()] == [
                plain_word(seed, i, v, stream, position) >> 8 for position in range(5)
            ]


def test_range_and_type() -> None:
    drawn = draws.uniform(3, INDEX, INDEX, draws.MIX, 64)
    assert drawn.dtype == torch.float32
    assert drawn.min() >= 0
    assert drawn.max() < 1


@pytest.mark.parametrize("stream", range(4))
@pytest.mark.parametrize("seed", [0, 1, 20220013])
def test_every_position_is_uniform(seed: int, stream: int) -> None:
    drawn = grid(seed, view=5, stream=stream)
    n = len(drawn)
    for column in drawn.T:
        assert column.mean() == pytest.approx(1 / 2, abs=5 / np.sqrt(12 * n))
        assert column.var() == pytest.approx(1 / 12, abs=5 / np.sqrt(180 * n))
        cells = np.histogram(column, 64, (0, 1))[0]
        chi_square = ((cells - n / 64) ** 2 / (n / 64)).sum()
        assert 20 < chi_square < 130  # 63 degrees of freedom: beyond 5 standard deviations


def test_neighbours_are_not_correlated() -> None:
    first = grid()
    limit = 5 / np.sqrt(len(first))
    for other in (grid(view=1), grid(view=2), grid(stream=1), grid(stream=2), grid(seed=1), grid(seed=2**32)):
        assert abs(np.corrcoef(np.hstack([first, other]).T) - np.eye(16)).max() < limit
    for gap in (1, 2, 16, 256, 4096):
        both = np.hstack([first[:-gap], first[gap:]])
        assert abs(np.corrcoef(both.T) - np.eye(16)).max() < 5 / np.sqrt(len(both))


def test_one_changed_bit_changes_half_of_the_bits() -> None:
    zeros = torch.zeros_like(INDEX)
    first = (draws.uniform(0, INDEX, zeros, 0, 1) * 2**24).long()
    for bit in range(15):
        for other in (
            draws.uniform(0, INDEX ^ (1 << bit), zeros, 0, 1),
            draws.uniform(0, INDEX, zeros ^ (1 << bit), 0, 1),
            draws.uniform(1 << bit, INDEX, zeros, 0, 1),
        ):
            changed = first ^ (other * 2**24).long()
            for place in range(24):
                share = ((changed >> place) & 1).double().mean().item()
                assert 0.47 < share < 0.53


def test_batch_and_order_do_not_matter() -> None:
    whole = draws.uniform(5, INDEX, INDEX * 3, 1, 6)
    chosen = torch.tensor([17, 3, 19_999, 0])
    assert torch.equal(draws.uniform(5, chosen, chosen * 3, 1, 6), whole[chosen])
    assert torch.equal(draws.uniform(5, chosen, chosen * 3, 1, 4), whole[chosen, :4])


@pytest.mark.parametrize("n", [0, 1, 2, 3, 1000])
def test_permutation_holds_each_number_once(n: int) -> None:
    order = draws.permutation(n, 0, 0, draws.ORDER)
    assert order.dtype == torch.int64
    assert sorted(order.tolist()) == list(range(n))


def test_permutation_depends_on_each_argument() -> None:
    first = draws.permutation(1000, 0, 0, 2)
    assert torch.equal(first, draws.permutation(1000, 0, 0, 2))
    for other in ((1, 0, 2), (0, 1, 2), (0, 0, 3)):
        agreements = (draws.permutation(1000, *other) == first).sum().item()
        assert agreements < 10  # one is expected by chance


def test_permutations_are_uniform() -> None:
    places = torch.stack([draws.permutation(6, 0, epoch, 3) for epoch in range(1500)])
    for number in range(6):
        for place in range(6):
            assert (places[:, place] == number).double().mean().item() == pytest.approx(1 / 6, abs=0.05)


@pytest.mark.gpu
def test_same_bits_on_the_gpu() -> None:
    on_cpu = draws.uniform(9, INDEX, INDEX * 7, 2, 16)
    on_gpu = draws.uniform(9, INDEX.cuda(), INDEX.cuda() * 7, 2, 16)
    assert torch.equal(on_cpu, on_gpu.cpu())
