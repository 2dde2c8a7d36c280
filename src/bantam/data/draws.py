"""Random numbers without a generator: a hash of (seed, stream, image index, view number, position).

A draw depends on these five numbers alone, so the batch size, the order of the images, the number of
processes and the device change nothing, and no state has to be saved or restored.

The hash chains the 32-bit finaliser `lowbias32` (Wellons, "Prospecting for hash functions", 2018). The
arithmetic is that of 32-bit words held in int64 tensors: every intermediate fits 64 bits, so all devices
give the same bits.
"""

import functools
from typing import TypeVar

import torch
from torch import Tensor

# One stream per use: draws of different streams are independent.
VIEW, MIX, PAIRING, ORDER = range(4)

_MASK = 0xFFFFFFFF
_Word = TypeVar("_Word", int, Tensor)


def _scramble(word: _Word) -> _Word:
    """Maps 32-bit words one to one, so that every input bit changes about half of the output bits."""
    word = (word + 0x9E3779B9) & _MASK  # lowbias32 alone would leave 0 at 0
    word = word ^ (word >> 16)
    word = (word * 0x7FEB352D) & _MASK
    word = word ^ (word >> 15)
    # The factor 0x846CA68B modulo 2^32, taken negative so that the product stays within int64.
    word = (word * -0x7B935975) & _MASK
    return word ^ (word >> 16)


def _words(seed: int, index: Tensor, view: Tensor, stream: int, count: int) -> Tensor:
    """Uniform 32-bit words, int64 [B, count]."""
    key = _scramble(_scramble(_scramble(stream) ^ (seed & _MASK)) ^ ((seed >> 32) & _MASK))
    word = _scramble(index ^ key)
    # Scrambled first: small view numbers would otherwise only permute the words of neighbouring keys.
    word = _scramble(word ^ _scramble(view))
    position = torch.arange(count, device=index.device)
    return _scramble(word[:, None] ^ position)  # [B, count]


def uniform(seed: int, index: Tensor, view: Tensor, stream: int, count: int) -> Tensor:
    """Uniform numbers, float32 [B, count], multiples of 2^-24 in [0, 1).

    `index` and `view` are int64 [B] on the same device, of which the low 32 bits count; of `seed` the low
    64 bits do. Row b holds the first `count` draws of image `index[b]` in view `view[b]`.
    """
    return (_words(seed, index, view, stream, count) >> 8).to(torch.float32) * 2.0**-24


def permutation(n: int, seed: int, epoch: int, stream: int) -> Tensor:
    """A uniformly random order of 0..n-1, int64 [n] on the CPU, that depends on the arguments alone."""
    index = torch.arange(n)
    words = _words(seed, index, torch.full_like(index, epoch), stream, 2)
    keys = (words[:, 0] << 31) | (words[:, 1] >> 1)  # 63 bits; a tie falls back to the smaller index
    return torch.argsort(keys, stable=True)


_QUANTILES = 1024


def beta(drawn: Tensor, alpha: float) -> Tensor:
    """Beta(alpha, alpha) from uniform numbers of 0..1: its inverse distribution function.

    It is linear between 1024 equal steps; no rejection loop, so the draw stays a function of one uniform number.
    """
    if alpha == 1:
        return drawn
    quantiles = _quantiles_on(alpha, drawn.device)
    place = drawn * _QUANTILES
    step = place.floor()
    low, high = quantiles[step.long()], quantiles[step.long() + 1]
    return low + (place - step) * (high - low)


@functools.lru_cache(maxsize=64)
def _quantiles_on(alpha: float, device: torch.device) -> Tensor:
    """The table on the device; kept, because a CUDA graph cannot copy it there each time."""
    return torch.tensor(_beta_quantiles(alpha), dtype=torch.float32, device=device)


@functools.lru_cache(maxsize=8)
def _beta_quantiles(alpha: float) -> tuple[float, ...]:
    from scipy.special import betaincinv  # Slow to import, and mixing by another alpha than 1 alone needs it.

    return tuple(float(betaincinv(alpha, alpha, k / _QUANTILES)) for k in range(_QUANTILES + 1))
