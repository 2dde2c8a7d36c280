"""More than one process: each trains on its share of every batch, and all of them hold the same weights.

`torchrun` starts the processes and tells each its place in environment variables; without them there is one process
and nothing here does anything. The gradients are averaged by DistributedDataParallel (Li et al., "PyTorch Distributed",
VLDB 2020, arXiv:2006.15704). Process 0 alone writes files. Every decision is taken from numbers that all processes
have in common, so all of them take the same one.
"""

import contextlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from bantam.errors import BantamError, TrainingStopped
from bantam.train.batchnorm import GlobalBatchNorm

# Longer than any process is at work while others wait, such as one view of a cache; shorter than a night, which a
# machine that was lost without a word would otherwise cost.
PATIENCE = timedelta(minutes=30)


@dataclass(frozen=True)
class Processes:
    """This process among those of the run: number `rank` of `world`, number `local_rank` on its machine."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @property
    def device(self) -> torch.device:
        """The device that is this process's own."""
        return torch.device("cuda", self.local_rank) if torch.cuda.is_available() else torch.device("cpu")

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.world > 1:
            dist.barrier()

    @contextlib.contextmanager
    def first(self) -> Iterator[None]:
        """Process 0 runs the block; when it is through, the others do, and find what it has written."""
        if self.rank:
            self.barrier()
        yield
        if not self.rank:
            self.barrier()

    def share(self, n: int) -> slice:
        """This process's contiguous part of n things, as even as they can be dealt out."""
        return slice(self.rank * n // self.world, (self.rank + 1) * n // self.world)

    def gathered(self, rows: Tensor) -> Tensor:
        """The rows [N_r, ...] on the CPU of all processes, one below the other: [sum of N_r, ...]."""
        if self.world == 1:
            return rows
        everyone: list[Tensor] = [rows] * self.world
        dist.all_gather_object(everyone, rows)
        return torch.cat(everyone)

    def mean(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Each scalar averaged over the processes."""
        if self.world == 1:
            return terms
        values = torch.stack([term.float() for term in terms.values()])
        dist.all_reduce(values)
        return dict(zip(terms, (values / self.world).unbind(), strict=True))

    def summed(self, value: Tensor) -> Tensor:
        """The sum of one tensor over the processes."""
        if self.world > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def replicated(self, module: nn.Module) -> nn.Module:
        """`module` with process 0's parameters, their gradients averaged over the processes in every backward pass.

        Every parameter that requires a gradient must get one in every step, whether in `module.forward` or elsewhere
        in the loss.
        """
        if self.world == 1:
            return module
        # Buffers need no broadcast: BatchNorm's are made from the global batch.
        with warnings.catch_warnings():
            # torch 2.14 wishes for a name of broadcast_buffers that torch 2.11 does not know.
            warnings.simplefilter("ignore", FutureWarning)
            return DistributedDataParallel(module, broadcast_buffers=False)

    def normalising(self) -> contextlib.AbstractContextManager[object]:
        """Within it, BatchNorm in train mode takes its statistics from the batches of all processes together."""
        return GlobalBatchNorm(self.world) if self.world > 1 else contextlib.nullcontext()


ALONE = Processes()


@contextlib.contextmanager
def joined() -> Iterator[Processes]:
    """Join the processes that torchrun started; gives ALONE where it started none.

    Of errors that a user can cause, only the first process to fail raises it; what the others meet is the same error
    or its consequence, and they end without a word. Raises TrainingStopped when another process has ended without
    saying why (it was killed), and when there are more processes than GPUs.
    """
    if not {"RANK", "WORLD_SIZE", "LOCAL_RANK"} <= os.environ.keys() or os.environ["WORLD_SIZE"] == "1":
        yield ALONE
        return
    processes = Processes(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    store: Store | None = None
    try:
        store, *_ = next(rendezvous("env://", timeout=PATIENCE))
        join(processes, store)
        yield processes
        dist.destroy_process_group()
    except (BantamError, KeyboardInterrupt) as error:
        if not fails_first(store):
            raise SystemExit(1) from error
        raise
    except RuntimeError as error:
        if not is_loss(error):
            raise
        if not fails_first(store):
            raise SystemExit(1) from error
        raise TrainingStopped("another process of this run has died; run the same command again to go on") from error


def join(processes: Processes, store: Store) -> None:
    """Enter the process group, with gloo on CPUs. Raises TrainingStopped for more processes than GPUs."""
    if not torch.cuda.is_available():
        dist.init_process_group("gloo", timeout=PATIENCE, store=store, rank=processes.rank, world_size=processes.world)
        return
    gpus = torch.cuda.device_count()
    if processes.local_rank >= gpus:
        raise TrainingStopped(
            f"more processes were started on this machine than it has GPUs ({gpus}); use --nproc-per-node={gpus}"
        )
    torch.cuda.set_device(processes.device)
    dist.init_process_group(
        "nccl", timeout=PATIENCE, store=store, rank=processes.rank, world_size=processes.world,
        device_id=processes.device,
    )  # fmt: skip


def fails_first(store: Store | None) -> bool:
    """Whether no other process has failed before this one, as far as that can still be asked."""
    if store is None:
        return True
    try:
        return store.add("bantam/failed", 1) == 1
    except RuntimeError:
        return True


def is_loss(error: RuntimeError) -> bool:
    """Whether `error` says that another process cannot be reached."""
    # gloo's errors have no class of their own; each names the source file that raised it.
    return isinstance(error, dist.DistError) or "gloo/" in str(error)
