"""Trials that several processes and machines share through a database: none is lost, none is finished twice.

A study has a fixed number of slots, and each slot wants one finished trial. Trials wait in the storage before anybody
begins them, so workers never make up one of their own, and the number of finished trials is exact. Whoever works on a
trial gives signs of life. A trial without them, or one that has failed, is put into its slot again with the same
parameters. Where two processes fill a slot at the same time, the older trial has it and the younger is handed back.
"""

import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning, StorageInternalError, TrialPruned, UpdateFinishedTrialError
from optuna.pruners import BasePruner
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from bantam.errors import CannotWrite

HEARTBEAT = 15
"""Seconds between two signs of life of a trial."""

GRACE = 4
"""Intervals without a sign of life after which a trial's worker is taken for dead."""

ATTEMPTS = 5
"""How often a slot's trial may fail before the slot is given up: a candidate that kills its workers must not go on."""

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)

# A new server answers within this time or not at all; a process waits this long for another's write to SQLite.
CONNECT_SECONDS = {"postgresql": ("connect_timeout", 10), "sqlite": ("timeout", 60)}


def hidden(url: str) -> str:
    """The storage's URL without its password."""
    return make_url(url).render_as_string(hide_password=True)


@contextmanager
def reachable(url: str) -> Iterator[None]:
    """Turn a storage that cannot be reached, or is lost on the way, into one line. Raises CannotWrite."""
    try:
        yield
    except ArgumentError as error:
        raise CannotWrite(
            f"the storage {url!r} is not a database's address; give sqlite:///FILE or postgresql://USER@HOST/DATABASE"
        ) from error
    except (SQLAlchemyError, StorageInternalError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        raise CannotWrite(
            f"cannot use the storage {hidden(url)}: {reason}; "
            "start its server or correct --storage, and run the same command again to go on"
        ) from error


def open_storage(url: str, heartbeat: int = HEARTBEAT) -> RDBStorage:
    """Connect to the SQLite file or PostgreSQL database at `url`, and make Optuna's tables if they are missing.

    `heartbeat` is in seconds. Raises CannotWrite if the database is neither, or is not reachable.
    """
    with reachable(url):
        address = make_url(url)
        backend = address.get_backend_name()
        # Optuna gives signs of life to relational storages alone, so a journal file could not tell who has died.
        if backend not in CONNECT_SECONDS:
            raise CannotWrite(f"the storage {hidden(url)} is not supported; give sqlite:///FILE or postgresql://...")
        if backend == "postgresql":
            address = address.set(drivername="postgresql+psycopg")
        name, seconds = CONNECT_SECONDS[backend]
        options: dict[str, Any] = {"connect_args": {name: seconds}, "pool_pre_ping": True}

        def connect() -> RDBStorage:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                return RDBStorage(
                    address.render_as_string(hide_password=False),
                    options,
                    heartbeat_interval=heartbeat,
                    grace_period=GRACE * heartbeat,
                )

        try:
            return connect()
        except SQLAlchemyError:
            # Of two processes that make the tables at the same time, one fails; a second later they are there.
            time.sleep(1)
            return connect()


class Queue:
    """The slots of one study, one for each of `starts`: the parameters that its trial must have; others are drawn."""

    def __init__(
        self,
        storage: RDBStorage,
        name: str,
        starts: Sequence[Mapping[str, Any]],
        distributions: Mapping[str, BaseDistribution],
        pruner: BasePruner,
    ) -> None:
        self.storage, self.starts, self.distributions = storage, starts, dict(distributions)
        self.heartbeat = storage.get_heartbeat_interval() or HEARTBEAT
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.study = optuna.create_study(
            storage=storage, study_name=name, load_if_exists=True, direction="maximize", pruner=pruner
        )
        self.without_sign: dict[int, float] = {}

    def slots(self) -> list[list[FrozenTrial]]:
        """The trials of each slot, oldest first."""
        trials = self.study.get_trials(deepcopy=False)
        return [[one for one in trials if one.user_attrs.get("slot") == slot] for slot in range(len(self.starts))]

    def finished(self) -> list[FrozenTrial]:
        """The finished trials, one of each slot that has one, in the order of the slots."""
        first = [next((trial for trial in trials if trial.state in FINISHED), None) for trials in self.slots()]
        return [trial for trial in first if trial is not None]

    def given_up(self) -> int:
        return sum(_given_up(trials) for trials in self.slots())

    def done(self) -> bool:
        """Whether every slot has its finished trial or is given up."""
        return all(_given_up(trials) or any(one.state in FINISHED for one in trials) for trials in self.slots())

    def fill(self) -> None:
        """Put a trial into every slot that has none, or only such as have failed."""
        self.bury()
        for slot, trials in enumerate(self.slots()):
            if _given_up(trials) or any(trial.state is not TrialState.FAIL for trial in trials):
                continue
            params = trials[-1].params if trials else {}
            self.study.enqueue_trial({**self.starts[slot], **params}, user_attrs={"slot": slot})

    def bury(self) -> None:
        """Let the trials fail whose workers have died."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            fail_stale_trials(self.study)
        # Optuna overlooks a worker that died before its first sign of life.
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if "begun" not in trial.user_attrs:
                since = self.without_sign.setdefault(trial.number, time.monotonic())
                if time.monotonic() - since > GRACE * self.heartbeat:
                    self.end(trial.number, TrialState.FAIL)

    def work(self, train: Callable[[Trial], float]) -> None:
        """Take waiting trials and `train` them until the study is done, waiting for the other workers' last ones.

        `train` gives the value to maximise, or raises TrialPruned. Whatever else it raises lets the trial fail.
        """
        while not self.done():
            self.fill()
            if not self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                time.sleep(self.heartbeat / 4)
                continue
            with warnings.catch_warnings():
                # Optuna's warning that only Study.optimize gives signs of life: here, `signs_of_life` does.
                warnings.filterwarnings("ignore", message="Heartbeat of storage")
                trial = self.study.ask(self.distributions)
            with self.signs_of_life(trial):
                trial.set_user_attr("begun", True)
                if not self.owns_slot(trial):
                    self.hand_back(trial)
                    continue
                try:
                    value = train(trial)
                except TrialPruned:
                    self.end(trial.number, TrialState.PRUNED)
                except UpdateFinishedTrialError:
                    pass  # The others took this worker for dead, and the trial is in its slot again.
                except KeyboardInterrupt:
                    self.hand_back(trial)
                    raise
                except BaseException:
                    self.end(trial.number, TrialState.FAIL)
                    raise
                else:
                    self.end(trial.number, TrialState.COMPLETE, value)

    def owns_slot(self, trial: Trial) -> bool:
        """Whether `trial` has a slot, and no older trial has the same one."""
        if "slot" not in trial.user_attrs:
            return False
        older = [other for other in self.study.get_trials(deepcopy=False) if other.number < trial.number]
        same = [other for other in older if other.user_attrs.get("slot") == trial.user_attrs["slot"]]
        return all(other.state is TrialState.FAIL for other in same)

    def hand_back(self, trial: Trial) -> None:
        """Let `trial` fail without counting it as an attempt."""
        with suppress(UpdateFinishedTrialError):
            trial.set_user_attr("handed_back", True)
        self.end(trial.number, TrialState.FAIL)

    def end(self, number: int, state: TrialState, value: float | None = None) -> None:
        """End a running trial, unless another process has ended it."""
        with suppress(UpdateFinishedTrialError):
            self.study.tell(number, value, state, skip_if_finished=True)

    @contextmanager
    def signs_of_life(self, trial: Trial) -> Iterator[None]:
        """Renew the trial's sign of life until the block ends; an unreachable storage is tried again and again."""
        identity, over = trial._trial_id, threading.Event()
        self.storage.record_heartbeat(identity)

        def beat() -> None:
            while not over.wait(self.heartbeat):
                with suppress(SQLAlchemyError, StorageInternalError):
                    self.storage.record_heartbeat(identity)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _given_up(trials: Sequence[FrozenTrial]) -> bool:
    attempts = [one for one in trials if one.state is TrialState.FAIL and "handed_back" not in one.user_attrs]
    return len(attempts) >= ATTEMPTS and all(trial.state is TrialState.FAIL for trial in trials)
