"""Trials in SQLite and in a real PostgreSQL server, with workers that die, fail, join and disturb each other."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.exceptions import TrialPruned
from optuna.trial import Trial, TrialState

from bantam.errors import CannotWrite
from bantam.search.queue import ATTEMPTS, hidden, open_storage, reachable
from private_server import Server
from tiny_queue import DRAWN, queue, work_slowly

pytestmark = pytest.mark.filterwarnings("ignore:Heartbeat of storage")


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty study's storage: SQLite, or a test's own parameter "postgresql"."""
    if getattr(request, "param", "sqlite") == "sqlite":
        return f"sqlite:///{tmp_path / 'study.db'}"
    server: Server = request.getfixturevalue("postgresql")
    return server.database(f"study{time.monotonic_ns()}")


both = pytest.mark.parametrize("url", ["sqlite", "postgresql"], indirect=True)


@both
def test_every_slot_gets_one_finished_trial(url: str) -> None:
    work = queue(url, 4, ({"x": 0.25}, {"x": 0.5}))
    work.work(lambda trial: trial.params["x"])
    assert [trial.user_attrs["slot"] for trial in work.finished()] == [0, 1, 2, 3]
    assert [trial.value for trial in work.finished()][:2] == [0.25, 0.5]
    assert len(work.study.trials) == 4

    # The same command again has nothing to do; a larger number of trials adds the difference.
    def must_not(trial: Trial) -> float:
        raise AssertionError(trial.number)

    queue(url, 4).work(must_not)
    more = queue(url, 6)
    more.work(lambda trial: 0.0)
    assert len(more.finished()) == len(more.study.trials) == 6


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


@both
def test_a_killed_worker_loses_no_trial(url: str, tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    killed, joins = tmp_path / "killed", tmp_path / "joins"
    first = spawn.Process(target=work_slowly, args=(url, 6, killed))
    first.start()
    wait_for(killed.exists)
    second = spawn.Process(target=work_slowly, args=(url, 6, joins))
    second.start()
    wait_for(joins.exists)
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    second.join(60)
    assert second.exitcode == 0
    end = queue(url, 6)
    states = [trial.state for trial in end.study.trials]
    assert states.count(TrialState.COMPLETE) == 6
    assert states.count(TrialState.FAIL) == 1
    assert sorted(trial.user_attrs["slot"] for trial in end.finished()) == list(range(6))
    # The dead worker's trial was done by the other, with the same parameters; and each other one once.
    (lost,) = killed.read_text().splitlines()
    done = joins.read_text().splitlines()
    assert lost in done
    assert sorted(line.split()[0] for line in done) == list("012345")


def test_a_worker_that_died_before_its_first_sign_of_life_is_noticed(url: str) -> None:
    work = queue(url, 1)
    work.fill()
    dead = work.study.ask()
    work.work(lambda trial: 1.0)
    assert work.study.trials[dead.number].state is TrialState.FAIL
    assert [trial.value for trial in work.finished()] == [1.0]


@both
def test_the_result_of_a_worker_taken_for_dead_does_not_count_twice(url: str) -> None:
    work, other = queue(url, 1), queue(url, 1)

    def suspended(trial: Trial) -> float:
        other.study.tell(trial.number, state=TrialState.FAIL)
        other.work(lambda trial: 2.0)
        return 1.0

    work.work(suspended)
    assert [trial.value for trial in work.study.trials] == [None, 2.0]

    def reports_late(trial: Trial) -> float:
        third.study.tell(trial.number, state=TrialState.FAIL)
        third.work(lambda trial: 3.0)
        trial.report(0.5, 1)
        return 1.0

    third = queue(url, 2)
    queue(url, 2).work(reports_late)
    assert [trial.value for trial in third.finished()] == [2.0, 3.0]


def test_a_slot_filled_twice_is_trained_once(url: str) -> None:
    work = queue(url, 3)
    work.fill()
    for slot in range(3):
        work.study.enqueue_trial({}, user_attrs={"slot": slot})
    numbers: list[int] = []

    def train(trial: Trial) -> float:
        numbers.append(trial.number)
        return 0.0

    work.work(train)
    work.fill()
    assert numbers == [0, 1, 2]
    assert len(work.finished()) == 3


def test_a_trial_that_nobody_queued_is_not_trained(url: str) -> None:
    work = queue(url, 1)
    stray = work.study.ask(DRAWN)
    assert not work.owns_slot(stray)
    work.hand_back(stray)
    work.work(lambda trial: 0.0)
    assert len(work.finished()) == 1


def test_pruned_counts_as_finished_and_a_failing_candidate_is_given_up(url: str) -> None:
    work = queue(url, 2, ({"x": 0.0}, {"x": 1.0}))
    seen: list[float] = []

    def train(trial: Trial) -> float:
        seen.append(trial.params["x"])
        if trial.params["x"] == 0:
            raise TrialPruned
        raise RuntimeError("out of memory")

    for _ in range(ATTEMPTS):
        with pytest.raises(RuntimeError, match="out of memory"):
            work.work(train)
    work.work(train)
    assert [trial.state for trial in work.finished()] == [TrialState.PRUNED]
    assert work.given_up() == 1
    assert seen == [0.0] + [1.0] * ATTEMPTS


def test_an_interrupted_trial_goes_on_at_once_and_is_no_attempt(url: str) -> None:
    work = queue(url, 1)
    drawn: list[float] = []

    def interrupted(trial: Trial) -> float:
        drawn.append(trial.params["x"])
        raise KeyboardInterrupt

    for _ in range(ATTEMPTS + 1):
        with pytest.raises(KeyboardInterrupt):
            work.work(interrupted)
    assert work.given_up() == 0
    work.work(lambda trial: trial.params["x"])
    assert len(set(drawn)) == 1
    assert [trial.value for trial in work.finished()] == [drawn[0]]


def test_a_server_that_goes_away_is_one_line(postgresql: Server) -> None:
    url = postgresql.database("goes_away")
    work = queue(url, 2)

    def train(trial: Trial) -> float:
        postgresql.stop()
        return 1.0

    try:
        with pytest.raises(CannotWrite, match="cannot use the storage postgresql://bantam@127.0.0.1") as caught:
            with reachable(url):
                work.work(train)
        assert "\n" not in str(caught.value)
        assert "run the same command again" in str(caught.value)
    finally:
        postgresql.start()
    queue(url, 2).work(lambda trial: 2.0)
    assert len(queue(url, 2).finished()) == 2


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://somebody:secret@127.0.0.1:1/study", "refused"),
        ("sqlite:////no/such/folder/study.db", "unable to open database file"),
        ("mysql://127.0.0.1/study", "not supported"),
        ("study.db", "not a database's address"),
    ],
)
def test_a_storage_that_cannot_be_used_is_one_line(url: str, words: str) -> None:
    with pytest.raises(CannotWrite, match=words) as caught:
        open_storage(url)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_the_password_is_not_shown() -> None:
    assert hidden("postgresql://me:secret@host/study") == "postgresql://me:***@host/study"
