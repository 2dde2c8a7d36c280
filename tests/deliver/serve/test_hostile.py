"""Hostile requests and damaged runs: one line for whoever asks, and no traceback anywhere."""

import asyncio
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

import hostile_requests
from bantam.data.folder import FOOD_11
from bantam.deliver.serve import app, browser
from bantam.deliver.serve.desk import Desk, Setting
from bantam.runs import runfolder
from bantam.runs.finished import open_run


@pytest.fixture(autouse=True, scope="module")
def no_export() -> Iterator[None]:
    """Exporting takes seconds, and nobody asks for the graph here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(browser, "RUNTIME", Path("nowhere"))
        yield


def client_of(desk: Desk) -> TestClient:
    return TestClient(app.make_app(desk), base_url=f"http://{hostile_requests.HOST}")


def test_every_hostile_request_is_answered(setting: Setting, caplog: pytest.LogCaptureFixture) -> None:
    """The photographs are looked at without the teacher: what is tried is how requests are read."""
    faults = hostile_requests.faults(app.make_app(Desk(replace(setting, teacher=None))))
    assert len(faults) > 500
    assert {name: fault for name, fault in faults.items() if fault is not None} == {}
    assert caplog.text == ""


def test_the_example_of_the_gallery_is_refused_in_one_line(setting: Setting) -> None:
    with client_of(Desk(replace(setting, teacher=None))) as client:
        answer = client.get("/api/gallery?label=99999999999999999999999")
        assert answer.status_code == 422
        assert answer.json() == {"error": "label: Input should be less than or equal to 2147483647"}
        huge = client.get("/api/validation/99999999999999999999999.png")
        assert (huge.status_code, huge.json()) == (404, {"error": "there is no such picture"})


def answers(desk: Desk) -> dict[str, tuple[int, str | None]]:
    """The status of every route, with the line where it is refused; fails where that is none."""

    async def of_all() -> dict[str, tuple[int, str | None]]:
        found = {}
        served = app.make_app(desk)
        for method, address in hostile_requests.each_once(served):
            status, content = await hostile_requests.asked(served, method, address)
            fault = hostile_requests.fault_of(status, content, method, broken=True)
            assert fault is None, f"{method} {address}: {fault}"
            found[address] = (status, json.loads(content)["error"] if status >= 400 else None)
        return found

    return asyncio.run(of_all())


def test_a_run_that_moves_away_while_it_is_served(
    setting: Setting, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What was loaded goes on answering; the rest says what is missing; and all is well when it comes back."""
    run = shutil.copytree(setting.run.folder, tmp_path / "run")
    desk = Desk(replace(setting, run=open_run(run), teacher=None))
    before = answers(desk)
    assert before["/api/curves"] == (200, None)
    run.rename(tmp_path / "elsewhere")
    away = answers(desk)
    assert away["/api/state"] == (200, None)
    assert away["/api/gallery"] == (200, None)
    status, line = away["/api/curves"]
    assert status == 400
    assert line is not None
    assert "holds no run (no recipe.toml)" in line
    (tmp_path / "elsewhere").rename(run)
    assert answers(desk) == before
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("gone", ["the run", "the labels", "the leaderboard"])
def test_what_moves_away_before_anybody_asks(setting: Setting, tmp_path: Path, gone: str) -> None:
    run = shutil.copytree(setting.run.folder, tmp_path / "run")
    assert setting.labels is not None
    beside = shutil.copytree(setting.labels.parent, tmp_path / "beside")
    labels = beside / setting.labels.name
    desk = Desk(replace(setting, run=open_run(run), teacher=None, labels=labels))
    if gone == "the run":
        shutil.rmtree(run)
    elif gone == "the labels":
        labels.unlink()
    else:
        labels.with_suffix(".leaderboard.sqlite").write_bytes(b"no database")
    found = answers(desk)
    assert all(status < 500 for status, _ in found.values()) or gone == "the leaderboard"


DAMAGE = {
    "missing": None,
    "empty": b"",
    "garbage": bytes(range(256)) * 4,
    "an object": b"{}",
    "a list": b"[]",
    "null": b"null",
    "not UTF-8": b'{"a": "\xff"}',
    "deep": b"[" * 100_000,
    "other content": b'stage = 3\n{"stage": [1, {"epochs": []}], "validation": 7, "epoch": 1}',
    "no number": b'{"epoch": 1, "training": {"loss": NaN}, "validation": {"accuracy": 1, "standard_error": 0}}\n',
    "two lines": b'{"epoch": 1}\n{"epoch": 2}\n',
}

FILES = ("recipe.toml", "metrics.json", "student.json", "student_best.ckpt", "stages/student/metrics.jsonl")


@pytest.mark.parametrize("file", [*FILES, "quantized/int8.onnx", "exits/exits.json"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_of_the_run(
    setting: Setting, tmp_path: Path, file: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    for name in FILES:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(setting.run.folder / name, run / name)
    content = DAMAGE[damage]
    (run / file).parent.mkdir(exist_ok=True)
    if content is None:
        (run / file).unlink(missing_ok=True)
    else:
        (run / file).write_bytes(content)
    answers(Desk(Setting(open_run(run))))
    assert "Traceback" not in caplog.text


def test_what_nobody_foresaw_is_one_line_for_both_sides(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk(replace(setting, teacher=None))
    for error, status, words in (
        (RuntimeError("one\nand two"), 500, "the server could not answer this: RuntimeError: one and two"),
        (KeyError(), 500, "the server could not answer this: KeyError"),
        (MemoryError(), 503, "not enough memory"),
        (RecursionError("deep"), 500, "RecursionError: deep"),
    ):

        def fails(error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(desk, "curves", fails)
        with client_of(desk) as client:
            answer = client.get("/api/curves")
        assert answer.status_code == status
        assert words in answer.json()["error"]
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        (record,) = caplog.records
        assert record.exc_info is None
        assert words in record.getMessage()
        assert "\n" not in record.getMessage()
        caplog.clear()


# --- the names of classes


def numbered(setting: Setting, **other: object) -> Desk:
    return Desk(replace(setting, teacher=None, **other))


def test_the_classes_of_a_run_that_knows_numbers_have_the_names_of_the_data(setting: Setting) -> None:
    with client_of(numbered(setting, classes=FOOD_11[:3])) as client:
        assert client.get("/api/state").json()["classes"] == ["Bread", "Dairy product", "Dessert"]
    with client_of(numbered(setting)) as client:
        assert client.get("/api/state").json()["classes"] == ["0", "1", "2"]


def test_a_run_that_knows_names_keeps_them(setting: Setting, tmp_path: Path) -> None:
    run = shutil.copytree(setting.run.folder, tmp_path / "run")
    runfolder.write(run / "student.json", {**runfolder.student(run), "labels": ["a", "b", "c"]})
    with client_of(numbered(setting, run=open_run(run), classes=FOOD_11[:3])) as client:
        assert client.get("/api/state").json()["classes"] == ["a", "b", "c"]
