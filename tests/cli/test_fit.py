"""What a person sees of a fit: the plan in minutes, one display, and the page at the end."""

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from bantam.cli import fit
from bantam.cli.fit import page_text
from bantam.cli.fitting import FitBar
from bantam.errors import TooShort
from bantam.fit import kept
from bantam.fit.asked import Asked
from bantam.fit.candidates import Student
from bantam.fit.clock import Clock
from bantam.fit.known import Known
from bantam.fit.planning import Candidate, Machine, planned
from bantam.fit.stopwatch import Speed

KNOWN = Known(800, 200, 0, 5, 100, 96, False, 0.3)
ASKED = Asked(1800.0)
MACHINE = Machine((Candidate(Student("largekernel", 96, 60_000), Speed(4e-3, 1e-3)),))


def shown(terminal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a fit prints that is at an epoch every 40 seconds."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    bar = FitBar(Console(file=stream, force_terminal=terminal, width=100))
    bar.begin("decoding", 10, 0)
    bar.advance(10)
    bar.end()
    bar.planned(planned(KNOWN, ASKED, MACHINE, 20.0), ASKED, Clock(tmp_path / "clock.json", 1000.0))
    bar.begin("student", 100, 0)
    for epoch in (1, 2):
        now[0] += 40
        bar.advance(epoch)
        judged = {"accuracy": 0.25 * epoch, "standard_error": 0.03}
        bar.epoch({"epoch": epoch, "validation": judged, "training": {"loss": 1.0}, "seconds": 40.0})
        if bar.progress is not None:
            bar.progress.refresh()
    bar.end()
    bar.handing_over()
    bar.close()
    return stream.getvalue()


def test_without_a_terminal_there_are_lines_of_stage_accuracy_and_time_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = shown(False, tmp_path, monkeypatch)
    assert "the plan for 30 min" in text
    assert "largekernel, 96 px, from the labels" in text
    lines = [line for line in text.splitlines() if " left" in line]
    assert lines[0].startswith("student: 29")
    assert lines[1] == "student: accuracy 0.250 ± 0.030, epoch 1, 28.7 min left"
    assert lines[-1].startswith("the end: ")
    assert "\x1b" not in text


def test_on_a_terminal_there_is_one_display(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(True, tmp_path, monkeypatch)
    assert "accuracy 0.500 ± 0.030, epoch 2" in text
    assert "min left" in text


def test_the_page_says_how_good_it_is_beside_what_it_has_to_beat_and_its_cost() -> None:
    page = {
        "accuracy": 0.71,
        "standard_error": 0.02,
        "plain": 0.69,
        "tta": "crops",
        "n": 500,
        "largest_class": 0.2,
        "student": "largekernel",
        "size": 96,
        "classes": 10,
        "budget": 60_000,
        "parameters": 59_774,
        "bytes": 252_000,
        "macs": 14_100_000,
        "activation_bytes": 10,
        "ms": 3.2,
        "report": "RUN/report/report.html",
        "teachers": {"teacher": {"accuracy": 0.75, "standard_error": 0.019, "n": 500}},
        "exports": {
            "onnx": {"file": "student.onnx", "bytes": 250_000},
            "onnx-int8": {"failed": "int8.onnx is not written"},
        },
    }
    text = page_text(page)
    for words in (
        "0.710 ± 0.020 on 500 validation photographs",
        "0.200 by always saying it",
        "0.750 ± 0.019 in one pass",
        "59,774 of 60,000 parameters, 252 kB",
        "3.2 ms here",
        "student.onnx, 250,000 bytes",
        "onnx-int8      int8.onnx is not written",
    ):
        assert words in text
    assert "predictions" not in text


def test_a_demo_on_a_busy_machine_takes_longer_and_goes_on_with_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[float] = []

    def fitted(photographs: Path, wishes: Asked, out: Path, began: float) -> dict[str, object]:
        asked.append(wishes.seconds)
        if wishes.seconds < 250:
            raise TooShort("2 min are too short", 130.0)
        raise KeyboardInterrupt

    monkeypatch.setattr(fit, "fitted", fitted)
    with pytest.raises(KeyboardInterrupt):
        fit.demo(tmp_path)
    assert asked == [120.0, 260.0]
    assert "this machine needs longer: 2 min are too short" in capsys.readouterr().out
    machine = Machine((Candidate(Student("mobilenet_v1", 32, 5_000), Speed(1e-3, 1e-4)),))
    wishes = Asked(260.0, parameters=5_000)
    kept.write_plan(tmp_path / "run", planned(KNOWN, wishes, machine, 5.0), wishes, KNOWN, machine, "0")
    with pytest.raises(KeyboardInterrupt):
        fit.demo(tmp_path)
    assert asked[2:] == [260.0]
