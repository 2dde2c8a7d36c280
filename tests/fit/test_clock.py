"""The time of a fit goes on over its processes, and nothing that is read from the disk can stop it."""

from pathlib import Path

import pytest

from bantam.fit import clock
from bantam.fit.clock import Clock, Ends


def test_it_goes_on_where_an_earlier_process_kept_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(clock.time, "monotonic", lambda: now[0])
    first = Clock(tmp_path / "clock.json", 98.0)
    ends = Ends(first, {"student": 60.0})
    assert ends("student") == 58.0
    assert not (tmp_path / "clock.json").exists()  # not before it is time to
    now[0] += 20
    assert ends("student") == 38.0
    now[0] += 4  # and then it is killed
    assert first.spent() == 26.0
    now[0] = 7.0
    second = Clock(tmp_path / "clock.json", 5.0)
    assert second.spent() == 22.0 + 2.0
    assert Ends(second, {"student": 60.0})("student") == 36.0


@pytest.mark.parametrize("text", ["", "{}", '{"seconds": -3}', '{"seconds": "long"}', "\x00"])
def test_a_damaged_one_begins_anew(text: str, tmp_path: Path) -> None:
    (tmp_path / "clock.json").write_text(text)
    assert Clock(tmp_path / "clock.json", clock.time.monotonic()).earlier == 0.0
