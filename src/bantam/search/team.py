"""The worker processes of this machine, and what whoever looks on is told of them."""

import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.context import SpawnProcess
from typing import Any

import torch

from bantam.errors import BantamError, TrainingStopped
from bantam.runs.watcher import Watcher
from bantam.search.queue import Queue, reachable
from bantam.search.result import line
from bantam.train.distributed import Processes

POLL = 0.5  # seconds between two looks at what the workers have done

Work = Callable[[Processes], None]


class Team:
    """The worker processes of this machine."""

    def __init__(self, work: Work, storage: str, workers: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.members: list[tuple[SpawnProcess, Any]] = []
        self.reason = ""
        for index in range(workers):
            ours, theirs = context.Pipe(duplex=False)
            arguments = (work, storage, index, workers, theirs)
            process = context.Process(target=worker, args=arguments, name=f"worker {index}")
            process.start()
            theirs.close()
            self.members.append((process, ours))

    def watch(self, queue: Queue, name: str, watcher: Watcher) -> None:
        """Tell `watcher` of each finished trial until the queue is done. Raises TrainingStopped if all workers died."""
        total = len(queue.starts)
        told = {trial.user_attrs["slot"] for trial in queue.finished()}
        watcher.begin(name, total, len(told))
        try:
            while True:
                self.bid_farewell(watcher)
                over = queue.done()
                fresh = [trial for trial in queue.finished() if trial.user_attrs["slot"] not in told]
                for trial in fresh:
                    told.add(trial.user_attrs["slot"])
                    watcher.say(f"{name} {len(told)}/{total}: {line(trial)}")
                    watcher.advance(len(told))
                if over:
                    return
                if not self.members:
                    raise TrainingStopped(
                        f"all workers have ended before the search was done (the last one: {self.reason}); "
                        "run the same command again to go on"
                    )
                time.sleep(POLL)
        finally:
            watcher.end()

    def bid_farewell(self, watcher: Watcher) -> None:
        """Tell `watcher` of the workers that have ended, and why."""
        for process, connection in [one for one in self.members if not one[0].is_alive()]:
            self.members.remove((process, connection))
            self.reason = f"exit status {process.exitcode}"
            with suppress(EOFError, OSError):
                self.reason = connection.recv()
            if process.exitcode:
                watcher.say(f"{process.name} has ended: {self.reason}")

    def dismiss(self) -> None:
        """Wait for workers that have nothing left to do, or were interrupted together with this process; end others."""
        for process, _ in self.members:
            process.join(10)
            process.terminate()
            process.join()


def worker(work: Work, storage: str, index: int, workers: int, connection: Any) -> None:
    """One process of a search: says on `connection` why it ends too early."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
    try:
        with reachable(storage):
            work(Processes(local_rank=index % max(1, torch.cuda.device_count())))
    except BantamError as error:
        connection.send(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
