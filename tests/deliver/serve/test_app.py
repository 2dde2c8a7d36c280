"""The page's server by its addresses: answers, limits, and that nothing of an upload stays."""

import asyncio
import io
import json
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fastapi import Request
from fastapi.testclient import TestClient
from PIL import Image

from bantam.data.folder import scan
from bantam.deliver.classify import classify_files, load_classifier
from bantam.deliver.serve import app, browser
from bantam.deliver.serve.desk import PLAIN, Desk, Setting, load_forms
from bantam.errors import BadData, BantamError
from bantam.measure.tta import logits_of_tta
from bantam.runs import runfolder
from bantam.runs.finished import open_run


@pytest.fixture(autouse=True, scope="module")
def no_export() -> Iterator[None]:
    """Exporting takes seconds; the graph is tested once, by itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(browser, "RUNTIME", Path("nowhere"))
        yield


@pytest.fixture(scope="module")
def desk(setting: Setting) -> Desk:
    desk = Desk(setting)
    desk.student()
    wait_for_gallery(desk)
    return desk


def wait_for_gallery(desk: Desk) -> None:
    until = time.monotonic() + 60
    while desk.gallery is None or desk.gallery.done < len(desk.gallery.split):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_photographs_are_answered_while_the_graph_is_made(
    setting: Setting, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def slow_export(_run: Path) -> bytes:
        begun.set()
        assert may_end.wait(60)
        return b"graph"

    monkeypatch.setattr(browser, "runtime_is_here", lambda: True)
    monkeypatch.setattr(browser, "exported", slow_export)
    desk = Desk(setting)
    desk.student()
    assert begun.wait(60)
    photograph = scan(photographs).validation[0].path.read_bytes()
    assert desk.classify(photograph, PLAIN, teacher=False)["student"]["ms"] > 0
    wait_for_gallery(desk)
    assert desk.in_browser() == "preparing"
    may_end.set()
    until = time.monotonic() + 60
    while desk.in_browser() != "ready":
        assert time.monotonic() < until
        time.sleep(0.01)


def test_the_graph_comes_from_a_process_of_its_own(setting: Setting, tmp_path: Path) -> None:
    """torch's exporter traces every net that is called meanwhile: once it took the gallery's thread with it."""
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(browser.exported(setting.run.folder), providers=["CPUExecutionProvider"])
    classifier = load_classifier(setting.run)
    size = classifier.shipped.student.size
    images = torch.rand(2, 3, size, size)
    normalisation = classifier.shipped.normalisation
    mean, std = (torch.tensor(of).view(3, 1, 1) for of in (normalisation.mean, normalisation.std))
    expected = classifier.net((images - mean) / std)
    torch.testing.assert_close(torch.from_numpy(session.run(None, {"images": images.numpy()})[0]), expected)
    with pytest.raises(BantamError, match="nowhere"):
        browser.exported(tmp_path / "nowhere")


def client_of(desk: Desk) -> TestClient:
    return TestClient(app.make_app(desk), base_url="http://127.0.0.1:8000")


@pytest.fixture
def client(desk: Desk) -> Iterator[TestClient]:
    with client_of(desk) as client:
        yield client


def png(side: int = 50, colour: str = "red") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(file, "png")
    return file.getvalue()


def test_an_upload_gets_the_answer_of_the_command_line(client: TestClient, desk: Desk, photographs: Path) -> None:
    path = scan(photographs).validation[4].path
    answer = client.post("/api/classify", content=path.read_bytes()).json()
    classifier = load_classifier(desk.setting.run)
    (expected,) = classify_files(classifier, [path])
    assert answer["student"]["probabilities"] == pytest.approx(expected.tolist(), abs=1e-6)
    assert answer["student"]["ms"] > 0
    assert answer["decode_ms"] > 0
    assert sum(answer["teacher"]["probabilities"]) == pytest.approx(1, abs=1e-5)
    assert answer["teacher"]["probabilities"] != pytest.approx(expected.tolist(), abs=1e-3)
    assert "teacher" not in client.post("/api/classify?teacher=false", content=path.read_bytes()).json()


def test_the_state_tells_what_there_is(client: TestClient) -> None:
    told = client.get("/api/state").json()
    assert told["classes"] == ["0", "1", "2"]
    assert (told["finished"], told["gallery"], told["leaderboard"], told["teacher"]) == (True, True, True, "resnet18")
    assert told["forms"] == [PLAIN]
    assert told["parameters"] <= 5000
    assert told["refit_of"] is None


def test_the_state_tells_of_a_refit(setting: Setting, tmp_path: Path) -> None:
    run = shutil.copytree(setting.run.folder, tmp_path / "run")
    told = runfolder.result(run)
    refit = {"stage": "again", "of": "student", "images": 9, "note": "it has trained on validation too"}
    runfolder.write(run / runfolder.RESULT, {**told, "refit": refit})
    assert Desk(Setting(open_run(run))).state()["refit_of"] == "student"


def test_foreign_pages_are_refused_before_anything_is_read(client: TestClient) -> None:
    for headers in ({"host": "evil.example"}, {"origin": "http://evil.example"}, {"origin": "null"}):
        for answer in (
            client.post("/api/classify", content=png(), headers=headers),
            client.get("/", headers=headers),
            client.get("/static/page.js", headers=headers),
        ):
            assert answer.status_code == 403
            assert set(answer.json()) == {"error"}
    assert client.post("/api/classify", content=png(), headers={"origin": "http://127.0.0.1:8000"}).status_code == 200


def test_every_answer_forbids_what_comes_from_elsewhere(client: TestClient) -> None:
    for path in ("/", "/static/page.css", "/api/state", "/api/nothing"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe-inline" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
    assert [client.get(path).status_code for path in ("/docs", "/redoc", "/openapi.json")] == [404, 404, 404]


def test_pages_name_no_address_elsewhere() -> None:
    for path in app.STATIC.iterdir():
        if path.is_file():
            text = path.read_text().replace("http://www.w3.org/2000/svg", "")
            assert "http:" not in text, path
            assert "https:" not in text, path


@pytest.mark.parametrize("content", [b"", b"text", png()[:60]])
def test_what_is_no_photograph_is_answered_in_one_line(client: TestClient, content: bytes) -> None:
    answer = client.post("/api/classify", content=content)
    assert answer.status_code == 422
    assert answer.json()["error"].startswith(("the photograph is ", "this file is not a picture; choose a JPEG"))


def test_a_bomb_of_pixels_is_refused_by_its_header(client: TestClient) -> None:
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "png")
    assert len(file.getvalue()) < 100_000
    answer = client.post("/api/classify", content=file.getvalue())
    assert answer.status_code == 422
    assert "pixels" in answer.json()["error"]


def test_a_body_that_is_too_large_is_not_read_to_its_end(client: TestClient) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(200):
            sent += 2**20
            yield bytes(2**20)

    announced = client.post("/api/classify", content=b"x", headers={"content-length": str(app.MAX_BYTES + 1)})
    streamed = client.post("/api/classify", content=endless())
    for answer in (announced, streamed):
        assert answer.status_code == 413
        assert answer.headers["connection"] == "close"


def test_only_a_few_uploads_are_looked_at_at_once(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Desk(setting)
    held, let_go = threading.Semaphore(0), threading.Event()

    def wait(data: bytes, form: str, teacher: bool, early: bool) -> dict[str, int]:
        held.release()
        let_go.wait(30)
        return {}

    monkeypatch.setattr(slow, "classify", wait)
    statuses: list[int] = []
    with client_of(slow) as client:

        def send() -> None:
            statuses.append(client.post("/api/classify", content=png()).status_code)

        senders = [threading.Thread(target=send) for _ in range(app.MAX_AT_ONCE)]
        for sender in senders:
            sender.start()
        for _ in senders:
            assert held.acquire(timeout=30)
        monkeypatch.setattr(app, "WAIT_SECONDS", 0.05)
        late = client.post("/api/classify", content=png())
        assert (late.status_code, late.json()["error"][:28]) == (503, "many photographs are being l")
        monkeypatch.setattr(app, "WAIT_SECONDS", 30.0)
        waiting = threading.Thread(target=send)
        waiting.start()
        let_go.set()
        for sender in senders:
            sender.join(30)
        waiting.join(30)
        assert statuses == [200] * (app.MAX_AT_ONCE + 1)
        assert client.post("/api/classify", content=png()).status_code == 200


def test_a_stalled_upload_loses_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "UPLOAD_SECONDS", 0.05)
    parts = [{"type": "http.request", "body": b"half", "more_body": True}]

    async def receive() -> dict[str, object]:
        if not parts:
            await asyncio.sleep(30)
        return parts.pop()

    uploads = app.Uploads(asyncio.Semaphore(1))

    async def upload() -> None:
        async with uploads.body(Request({"type": "http", "method": "POST", "headers": []}, receive)):
            raise AssertionError("half of it is no photograph")

    with pytest.raises(app.Refused, match="did not arrive in time") as refused:
        asyncio.run(upload())
    assert refused.value.status == 408
    assert uploads.held == 0


def test_the_bytes_of_all_uploads_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "MAX_HELD", 5)
    uploads = app.Uploads(asyncio.Semaphore(1))

    def request(body: bytes) -> Request:
        async def receive() -> dict[str, object]:
            return {"type": "http.request", "body": body, "more_body": False}

        return Request({"type": "http", "method": "POST", "headers": []}, receive)

    async def both() -> None:
        async with uploads.body(request(b"abc")) as first:
            assert (first, uploads.held) == (b"abc", 3)
            with pytest.raises(app.Refused, match="too many photographs") as refused:
                async with uploads.body(request(b"def")):
                    pass
            assert refused.value.status == 503
        assert uploads.held == 0
        async with uploads.body(request(b"defgh")) as second:
            assert second == b"defgh"

    asyncio.run(both())


def test_an_unknown_form_is_refused(client: TestClient) -> None:
    answer = client.post("/api/classify?form=int3", content=png())
    assert answer.status_code == 400
    assert "no form 'int3'" in answer.json()["error"]


def test_a_photograph_leaves_early_where_the_page_asks_for_it(exits_run: Path, photographs: Path) -> None:
    path = scan(photographs).validation[4].path
    desk = Desk(Setting(open_run(exits_run)))
    with client_of(desk) as client:
        assert client.get("/api/state").json()["exits"] == {"confidence": 0.9, "calibrated": False}
        whole = client.post("/api/classify", content=path.read_bytes()).json()["student"]
        assert "macs" not in whole
    chosen = exits_run / "exits" / "exits.json"
    chosen.parent.mkdir()
    try:
        for threshold, place in ((0.0, 1), (1.0, None)):
            chosen.write_text(json.dumps({"chosen": {"threshold": threshold}}))
            desk = Desk(Setting(open_run(exits_run)))
            with client_of(desk) as client:
                assert client.get("/api/state").json()["exits"] == {"confidence": threshold, "calibrated": True}
                early = client.post("/api/classify?early=true", content=path.read_bytes()).json()["student"]
            assert (early["exit"], early["exits"]) == (place, 2)
            assert sum(early["probabilities"]) == pytest.approx(1, abs=1e-5)
            assert (early["macs"] < early["all_macs"]) == (place is not None)
        chosen.write_text("half a file")
        with pytest.raises(BadData, match="bantam exits"):
            Desk(Setting(open_run(exits_run))).student()
    finally:
        shutil.rmtree(chosen.parent)


def test_exits_that_are_not_there_are_refused(client: TestClient) -> None:
    assert client.get("/api/state").json()["exits"] is None
    answer = client.post("/api/classify?early=true", content=png())
    assert answer.status_code == 400
    assert "no early exits" in answer.json()["error"]


def test_nothing_of_an_upload_is_stored(client: TestClient, desk: Desk) -> None:
    def everything() -> dict[str, int]:
        folders = (desk.setting.run.folder, app.STATIC, desk.setting.run.folder.parent)
        return {str(path): path.stat().st_mtime_ns for folder in folders for path in folder.rglob("*")}

    before = everything()
    client.post("/api/classify", content=png(80, "blue"))
    assert everything() == before


# --- gallery, curves, leaderboard


def test_the_gallery_filters_by_the_students_answers(client: TestClient, desk: Desk) -> None:
    split = desk.setting.validation
    assert split is not None
    classifier = load_classifier(desk.setting.run)
    logits = logits_of_tta(classifier.net, split, 32, classifier.shipped.normalisation, classifier.tta)
    sure, predicted = logits.softmax(1).max(1)
    expected = {
        "all": list(range(30)),
        "wrong": (predicted != split.labels).nonzero().flatten().tolist(),
        "unsure": (sure < 0.5).nonzero().flatten().tolist(),
    }
    assert expected["wrong"]
    for show, indices in expected.items():
        page = client.get(f"/api/gallery?show={show}").json()
        assert page["found"] == len(indices)
        assert sorted(item["index"] for item in page["items"]) == indices
        ones = client.get(f"/api/gallery?show={show}&label=1").json()
        assert {item["label"] for item in ones["items"]} <= {1}
        assert ones["found"] == sum(int(split.labels[i]) == 1 for i in indices)
    wrong = [item["sure"] for item in client.get("/api/gallery?show=wrong").json()["items"]]
    assert wrong == sorted(wrong, reverse=True)
    rest = client.get("/api/gallery?offset=25").json()
    assert [item["index"] for item in rest["items"]] == list(range(25, 30))
    assert client.get("/api/gallery?show=nothing").status_code == 400
    assert client.get("/api/gallery?offset=-1").status_code == 422


def test_the_gallerys_pictures_are_the_stored_pixels(client: TestClient, desk: Desk) -> None:
    assert desk.setting.validation is not None
    picture = Image.open(io.BytesIO(client.get("/api/validation/7.png").content))
    assert torch.equal(torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(32, 32, 3), desk.setting.validation.images[7])  # fmt: skip # noqa: E501
    assert client.get("/api/validation/30.png").status_code == 404
    assert client.get("/api/validation/-1.png").status_code == 404


def test_the_leaderboard_shows_public_scores_alone(client: TestClient) -> None:
    rows = client.get("/api/leaderboard").json()
    assert [row["name"] for row in rows if "name" in row] == ["<b>bold</b>"]
    assert next(row["n"] for row in rows if "name" in row) == 6
    assert "private" not in json.dumps(rows)


def test_without_photographs_and_labels_the_page_says_what_to_give(setting: Setting) -> None:
    bare = Desk(replace(setting, validation=None, teacher=None, labels=None))
    with client_of(bare) as client:
        assert "--data DIR" in client.get("/api/gallery").json()["error"]
        assert "--labels FILE" in client.get("/api/leaderboard").json()["error"]
        assert client.get("/api/validation/0.png").status_code == 404
        assert client.get("/api/state").json()["teacher"] is None


def test_a_run_that_trains_shows_its_curves_and_becomes_a_student(setting: Setting, tmp_path: Path) -> None:
    whole = setting.run.folder
    run = tmp_path / "run"
    (run / "stages" / "student").mkdir(parents=True)
    shutil.copy(whole / "recipe.toml", run)
    with client_of(Desk(Setting(open_run(run)))) as client:
        assert client.get("/api/state").json()["finished"] is False
        assert client.get("/api/curves").json()[0]["rows"] == []
        answer = client.post("/api/classify", content=png())
        assert answer.status_code == 400
        assert "still training" in answer.json()["error"]
        lines = (whole / "stages" / "student" / "metrics.jsonl").read_text().splitlines()
        (run / "stages" / "student" / "metrics.jsonl").write_text(lines[0] + "\n" + lines[1][:40])
        (stage,) = client.get("/api/curves").json()
        assert (stage["epochs"], stage["done"]) == (4, False)
        assert [row["epoch"] for row in stage["rows"]] == [1]
        assert stage["rows"][0]["accuracy"] == json.loads(lines[0])["validation"]["accuracy"]
        for name in ("student.json", "student_best.ckpt", "metrics.json"):
            shutil.copy(whole / name, run)
        assert client.get("/api/state").json()["finished"] is True
        assert client.post("/api/classify", content=png()).status_code == 200


# --- the student's other forms


def test_the_exported_students_are_forms_that_agree(setting: Setting, tmp_path: Path, photographs: Path) -> None:
    pytest.importorskip("onnxruntime")
    run = shutil.copytree(setting.run.folder, tmp_path / "run")
    classifier = load_classifier(open_run(run))
    (run / "quantized").mkdir()
    (run / "quantized" / "copy.onnx").write_bytes(browser.as_onnx(run))
    forms = load_forms(Setting(open_run(run)))
    pixels = torch.cat([classifier.pixels(r.path.read_bytes(), r.path) for r in scan(photographs).validation[:5]])
    torch.testing.assert_close(
        classifier.probabilities(pixels, forms.looks["copy"]), classifier.probabilities(pixels), atol=1e-4, rtol=1e-4
    )
    (run / "quantized" / "broken.onnx").write_text("no graph")
    with pytest.raises(BantamError, match=r"broken\.onnx cannot be used"):
        load_forms(Setting(open_run(run)))


def test_the_browser_needs_the_runtime(desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(browser, "RUNTIME", tmp_path)
    assert "make web" in desk.in_browser()
    for name in browser.RUNTIME_FILES:
        (tmp_path / name).write_text("")
    monkeypatch.setattr(desk, "onnx", None)
    assert desk.in_browser() == "preparing"
    with client_of(desk) as client:
        assert client.get("/api/student.onnx").status_code == 404
    monkeypatch.setattr(desk, "onnx", b"graph")
    assert desk.in_browser() == "ready"
    with client_of(desk) as client:
        assert client.get("/api/student.onnx").content == b"graph"
    monkeypatch.setattr(desk, "onnx_problem", "no operator")
    assert "no operator" in desk.in_browser()


def test_other_photographs_are_refused(setting: Setting) -> None:
    assert setting.validation is not None
    four = replace(setting.validation, classes=("a", "b", "c", "d"))
    with pytest.raises(BadData, match="knows 3 classes, the photographs have 4"):
        load_forms(replace(setting, validation=four))


def test_a_taken_port_is_said_in_one_line() -> None:
    first = app.listen("127.0.0.1", 0)
    address = app.address_of(first)
    assert address.startswith("http://127.0.0.1:")
    with pytest.raises(BantamError, match="choose another --port"):
        app.listen("127.0.0.1", first.getsockname()[1])
    first.close()
    with pytest.raises(BantamError, match="cannot listen on no such host"):
        app.listen("no such host", 0)
