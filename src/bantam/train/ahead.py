"""The next batch's training views, made while the net works on this one.

Views are a function of (seed, image, view), so they are the same to the bit whoever makes them and when. Whether a
second thread saves time depends on the processor, the net and the augmentation: where the net keeps every core busy,
the two only take turns. So the first steps of a training are taken both ways, and the faster way stays, until it is
tried again: the machine may have been busy then, or be busy now.
"""

import math
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from torch import Tensor

from bantam.train.step import Step

TRIED = 10  # timed steps each way
WARM_UP = 2  # steps each way before them
AGAIN = 2000  # steps with one way, before both are tried again


class Ahead:
    """A Step on a CPU that is told which images come next. `say` is given a line when the choice is made."""

    def __init__(self, step: Step, say: Callable[[str], None] = lambda line: None) -> None:
        self.step, self.say = step, say
        self.pool = ThreadPoolExecutor(1, "views")
        self.seconds: dict[bool, list[float]] = {False: [], True: []}  # of a step, by whether the second thread helped
        self.pays: bool | None = None
        self.ratio = math.nan  # of a step's time with the second thread to that without
        self.since = 0  # steps since the choice
        self.said = False
        self.ready: tuple[Tensor, Tensor] | None = None

    def __call__(self, index: Tensor, view: Tensor, following: Tensor | None) -> dict[str, Tensor]:
        """As the Step, on the images `index` [B]; the next call's are `following` [B], None if it is not known yet."""
        images, targets = self.ready or self.step.look(index, view)
        if following is None:
            self.ready = None
            return self.step.learn(images, targets, index, view)
        helped = self.pays if self.pays is not None else len(self.seconds[True]) < len(self.seconds[False])
        started = time.perf_counter()
        coming = self.pool.submit(self.step.look, following, view) if helped else None
        terms = self.step.learn(images, targets, index, view)
        self.ready = coming.result() if coming else self.step.look(following, view)
        if self.pays is None:
            self.seconds[helped].append(time.perf_counter() - started)
            self.choose()
        elif self.since < AGAIN:
            self.since += 1
        else:
            self.forget()
        return terms

    def forget(self) -> None:
        """Try both ways again."""
        self.seconds, self.pays, self.since = {False: [], True: []}, None, 0

    def choose(self) -> None:
        """Keep the faster way, once both have been tried often enough."""
        if len(self.seconds[True]) < WARM_UP + TRIED:
            return
        helped, alone = (statistics.median(self.seconds[way][WARM_UP:]) for way in (True, False))
        self.ratio = helped / alone
        self.pays = self.ratio < 1
        if self.said:
            return
        self.said = True
        when = "while the net works" if self.pays else "between the net's steps, as a second thread does not pay"
        self.say(f"the next views are made {when}: time of a step with a second thread {self.ratio:.2f}")

    def close(self) -> None:
        """Let the second thread end."""
        self.pool.shutdown()
