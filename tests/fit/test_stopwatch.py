"""The stopwatch takes no longer than what it measures is worth."""

import time
from pathlib import Path

import pytest

from bantam.fit import stopwatch, whole
from bantam.fit.asked import Asked
from bantam.fit.candidates import Student
from bantam.fit.clock import Clock
from bantam.fit.known import Known
from bantam.fit.lessons import student_stage
from bantam.fit.stopwatch import Speed


@pytest.mark.parametrize(("lasts", "times", "found"), [([9.0], 1, 9.0), ([2.0, 1.0, 1.0], 3, 1.0), ([0.4] * 4, 4, 0.4)])
def test_slow_work_is_done_once_and_quick_work_until_the_time_is_over(
    lasts: list[float], times: int, found: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, done = [0.0], [0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def work() -> None:
        now[0] += lasts[min(done[0], len(lasts) - 1)]
        done[0] += 1

    assert stopwatch.timed(work, 1.0) == pytest.approx(found)
    assert done[0] == times


def test_not_every_student_is_timed_where_that_takes_a_quarter_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [50.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = Clock(tmp_path / "clock.json", 0.0)  # what came before does not count

    def slow(*_: object) -> Speed:
        now[0] += 20.0
        return Speed(1.0, 1.0)

    monkeypatch.setattr(whole, "speed_of", slow)
    possible = [Student(net, 96, 60_000) for net in ("largekernel", "mobilenet_v1", "ghostnet", "sample")]
    known = Known(80, 20, 0, 5, 10, 96, False, 0.3)
    seen = [len(list(whole.timed(known, Asked(seconds), possible, clock))) for seconds in (70.0, 150.0, 1800.0)]
    assert seen == [1, 2, 4]


def test_of_a_net_whose_steps_are_hopeless_none_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        pytest.fail("a step was made")

    known = Known(80, 20, 0, 5, 10, 32, False, 0.3)
    stage = student_stage(known, Student("sample", 32, 60_000), "timing", 3)
    monkeypatch.setattr(stopwatch, "Step", refused)
    assert stage.batch_size == 16  # 20 times 2 seconds are 40 for a step, which is taken as 64 answers
    took = iter([9.0, 1.3])
    monkeypatch.setattr(stopwatch, "lasts", lambda work: (work(), next(took))[1])
    found = stopwatch.speed_of(stage, 60_000, 5, 32, 2.0)
    assert (found.answer, found.step, found.wait) == (0.65, 2.6, 1.0)
    took = iter([9.0, 1.2])
    with pytest.raises(pytest.fail.Exception, match="a step was made"):
        stopwatch.speed_of(stage, 60_000, 5, 32, 2.0)
