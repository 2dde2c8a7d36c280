"""Which images stand in which batch: a pure function of the seed, the epoch and the number of images.

In every view the images are paired; partners stand side by side in a batch (positions p and p ^ 1), so
that mixing an image with its partner needs no second augmentation. An epoch shuffles whole pairs.
"""

import torch
from torch import Tensor

from bantam.data import draws


def view_of(epoch: int, views: int) -> int:
    """The view number that `epoch` shows: a fresh one each epoch, or one of `views` in turn (0: fresh)."""
    return epoch % views if views else epoch


def pairing(n: int, seed: int, view: int) -> Tensor:
    """The mixing partners of a view: int64 [n + n % 2], image indices whose positions 2k and 2k + 1 are partners.

    Depends on (n, seed, view) alone. With an odd n the last one is its own partner: mixed with itself it stays as
    it is, so what it shows, and what a teacher says of it, is still a function of (seed, image, view).
    """
    order = draws.permutation(n, seed, view, draws.PAIRING)
    return torch.cat((order, order[n - n % 2 :]))


def epoch(n: int, batch_size: int, seed: int, epoch: int, views: int = 0, rank: int = 0, world: int = 1) -> Tensor:
    """The batches of one epoch for one process: int64 [steps, batch_size // world] image indices.

    `batch_size` is the global one. Row s of rank r is the r-th contiguous part of global batch s. Every image stands
    in one place of the epoch, and with an odd n one of them in two. Where there are fewer places than in a batch, the
    batch shrinks to the most that can be dealt out evenly in pairs. An incomplete last batch is left out; the images
    left out differ from epoch to epoch, whatever the number of views.

    Raises ValueError for a batch that cannot be cut into pairs for every process, for a rank outside
    0..world-1 and for a negative number of views.
    """
    if world < 1 or not 0 <= rank < world:
        raise ValueError(f"rank {rank} of {world} processes: ranks run from 0 to the number of processes - 1")
    if views < 0:
        raise ValueError(f"views is {views}: give 0 for a fresh view each epoch, or how many to cycle through")
    share = 2 * world
    if batch_size < share or batch_size % share:
        raise ValueError(
            f"batch size {batch_size} cannot be cut into pairs for {world} process(es): use a multiple of {share}"
        )
    if n < share:
        raise ValueError(f"{n} image(s) are too few for {world} process(es): {share} are needed")
    pairs = pairing(n, seed, view_of(epoch, views)).view(-1, 2)  # [(n + 1) // 2, 2]
    shuffled = pairs[draws.permutation(len(pairs), seed, epoch, draws.ORDER)].flatten()
    batch_size = min(batch_size, len(shuffled) - len(shuffled) % share)
    steps = len(shuffled) // batch_size
    rows = shuffled[: steps * batch_size].view(steps, world, batch_size // world)
    return rows[:, rank].contiguous()  # [steps, batch_size // world]
