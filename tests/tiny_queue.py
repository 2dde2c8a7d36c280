"""A queue of trials that train nothing, and a worker of it that another process can import."""

import time
from pathlib import Path

from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.pruners import NopPruner
from optuna.trial import Trial

from bantam.search.queue import Queue, open_storage

DRAWN: dict[str, BaseDistribution] = {"x": FloatDistribution(0, 1)}


def queue(url: str, slots: int, starts: tuple[dict[str, float], ...] = ()) -> Queue:
    filled = [*starts, *([{}] * (slots - len(starts)))]
    return Queue(open_storage(url, heartbeat=1), "study", filled, DRAWN, NopPruner())


def work_slowly(url: str, slots: int, log: Path) -> None:
    """A worker that stays in its first trial for good if it is to be killed there."""

    def train(trial: Trial) -> float:
        with open(log, "a") as file:
            file.write(f"{trial.user_attrs['slot']} {trial.params['x']}\n")
        time.sleep(60 if log.name == "killed" else 0.02)
        return trial.params["x"]

    queue(url, slots).work(train)
