"""The page in a real Chromium: what a person sees, hears and reaches by keyboard.

Needs node, Chromium and npm's playwright-core (`make browser` fetches it), and for the student in the browser ONNX
Runtime Web (`make web`). Each test that lacks something is skipped and says what.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pillow_heif
import pytest
from PIL import Image

from bantam.data.folder import scan
from bantam.data.images import KINDS
from bantam.deliver.classify import classify_files, load_classifier
from bantam.deliver.serve import browser
from bantam.deliver.serve.desk import Desk, Setting
from bantam.runs import runfolder
from bantam.runs.finished import open_run
from served import serving

DRIVER = Path(__file__).with_name("drive.mjs")
PLAYWRIGHT = Path(__file__).parents[3] / "build" / "browser"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
SECONDS = 120


@pytest.fixture(autouse=True, scope="module")
def tools() -> None:
    lacking = [name for name, there in (("node", shutil.which("node")), ("chromium", CHROMIUM)) if not there]
    if not (PLAYWRIGHT / "node_modules" / "playwright-core").is_dir():
        lacking.append("playwright-core (make browser)")
    if lacking:
        pytest.skip(f"a real browser is not here: {', '.join(lacking)}")


@pytest.fixture(scope="module")
def address(setting: Setting) -> Iterator[str]:
    """The server of a finished run."""
    with serving(Desk(setting)) as address:
        yield address


def command(scenario: str, address: str, files: tuple[object, ...]) -> list[str]:
    return ["node", str(DRIVER), scenario, address, str(PLAYWRIGHT), CHROMIUM, *map(str, files)]


def drive(scenario: str, address: str, *files: object) -> dict[str, Any]:
    """What one scenario saw; fails on errors in the page and on requests that leave this machine."""
    ended = subprocess.run(command(scenario, address, files), capture_output=True, text=True, timeout=SECONDS)
    assert ended.returncode == 0, ended.stderr[-2000:]
    seen = json.loads(ended.stdout.splitlines()[-1])
    assert seen["foreign"] == []
    return seen


@pytest.fixture(scope="module")
def photo(photographs: Path) -> Path:
    return scan(photographs).validation[4].path


@pytest.fixture(scope="module")
def expected(page_run: Path, photo: Path) -> dict[str, float]:
    """What the command line says of `photo`, in percent."""
    (row,) = classify_files(load_classifier(open_run(page_run)), [photo])
    return {str(k): 100 * float(p) for k, p in enumerate(row)}


def test_an_upload_shows_classes_time_and_teacher(address: str, photo: Path, expected: dict[str, float]) -> None:
    seen = drive("upload", address, photo)
    assert seen["bars"] == pytest.approx(expected, abs=0.06)
    best = max(expected, key=lambda name: expected[name])
    assert seen["said"].startswith(f"{best}, ")
    assert "ms" in seen["time"]
    assert not seen["early"]
    assert set(seen["teacher"]) == {"0", "1", "2"}
    assert seen["shown"]
    assert photo.name in seen["alt"]
    assert seen["problems"] == []


def test_a_photograph_may_be_dropped(address: str, photo: Path, expected: dict[str, float]) -> None:
    assert drive("drop", address, photo)["bars"] == pytest.approx(expected, abs=0.06)


def test_a_photograph_may_be_taken(address: str) -> None:
    seen = drive("camera", address)
    assert sum(seen["bars"].values()) == pytest.approx(100, abs=0.3)
    assert not seen["open"]


def test_an_invalid_file_is_said_and_the_page_goes_on(address: str, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "no.png").write_text("no photograph")
    seen = drive("invalid", address, tmp_path / "no.png", photo)
    assert seen["refused"] == f"This file is not a picture; choose a {KINDS}."
    assert seen["cards"] == 0
    assert seen["after"].endswith("says the student.")


def test_the_answer_is_seen_first_and_beside_the_teachers(address: str, photo: Path) -> None:
    """On a desktop and on a telephone: the largest type, above the fold, with the bars of a class on one line."""
    seen = drive("layout", address, photo)
    for name, fold in (("desktop", 800), ("phone", 844)):
        here = seen[name]
        largest, *others = here["sizes"]
        assert seen["said"].startswith(largest[1]), "the class's name"
        assert largest[0] > 1.2 * max(size for size, _ in others)
        assert here["scrolled"] == 0
        assert 0 < here["answer"]["top"] < here["student"]["top"] < here["student"]["bottom"] < fold
        assert here["teacher"]["top"] == here["student"]["top"]
        assert here["teacher"]["left"] > here["student"]["left"] + here["student"]["width"]
        students, teachers = here["rows"]
        assert students == teachers, "in one order, on one line"
        assert len(students) == 3
    assert "teacher" in seen["also"]
    assert seen["problems"] == []


def test_the_header_claims_what_the_page_does(setting: Setting, photo: Path, tmp_path: Path) -> None:
    """The accuracy is that over the views by which the page answers, not that of one."""
    run = Path(shutil.copytree(setting.run.folder, tmp_path / "run"))
    metrics = runfolder.result(run)
    metrics["validation"] |= {"views": "zoom", "accuracy": 0.9, "standard_error": 0.055, "plain": 0.7}
    runfolder.write(run / "metrics.json", metrics)
    with serving(Desk(replace(setting, run=open_run(run)))) as address:
        facts = drive("layout", address, photo)["facts"]
    assert facts.endswith("validation accuracy 0.900 ± 0.055 on 30 images, averaged over 4 views, as here.")


def test_errors_look_like_errors_and_name_what_a_file_is(address: str, tmp_path: Path) -> None:
    (tmp_path / "no.heic").write_text("no photograph")
    (tmp_path / "cut.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    pillow_heif.from_pillow(Image.linear_gradient("L").convert("RGB").resize((64, 64))).save(tmp_path / "phone.heic")
    Image.linear_gradient("L").convert("RGB").save(tmp_path / "scan.tiff")
    files = [tmp_path / name for name in ("no.heic", "cut.heic", "phone.heic", "scan.tiff")]
    no, cut, heic, tiff = drive("strange", address, *files)["seen"]
    assert no["said"].startswith("This file is not a picture")
    assert "HEIC" in cut["said"]
    for wrong in (no, cut):
        assert wrong["kind"] == "error"
        assert wrong["color"] != wrong["ink"]
        assert wrong["border"] > 3
    for right, kind in ((heic, "HEIC"), (tiff, "TIFF")):
        assert right["kind"] == "answer"
        assert f"{kind}, which this browser cannot show" in right["unshown"]
        assert kind in right["beside"] or "make web" in right["beside"]


def test_what_a_run_has_nothing_for_is_not_shown(address: str, page_run: Path, tmp_path: Path) -> None:
    everything = drive("sections", address)
    assert everything["shown"] == ["photograph", "gallery", "training", "leaderboard"]
    assert everything["links"] == ["#photograph", "#gallery", "#training", "#leaderboard"]
    run = Path(shutil.copytree(page_run, tmp_path / "run"))
    shutil.rmtree(run / "stages")  # as runs that were handed on
    with serving(Desk(Setting(open_run(run)))) as alone:
        little = drive("sections", alone)
    assert little["shown"] == ["photograph"]
    assert little["links"] == ["#photograph"]


def test_without_the_runtime_the_page_says_what_to_run(
    setting: Setting, photo: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(browser, "RUNTIME", tmp_path)
    with serving(Desk(setting)) as address:
        assert "make web" in drive("unprepared", address, photo)["words"]


def test_the_servers_answer_stays_when_the_browsers_student_becomes_ready(address: str, photo: Path) -> None:
    seen = drive("readied", address, photo)
    assert "being prepared" in seen["before"]
    assert "being prepared" not in seen["after"]
    assert seen["same"] == "yes"
    assert seen["asked"] == 1
    assert seen["problems"] == []


def test_the_gallery_filters_and_opens_pictures(address: str) -> None:
    seen = drive("gallery", address)
    counts = seen["counts"]
    assert counts["all"]["pictures"] == 30
    assert 0 < counts["wrong"]["pictures"] == counts["wrong"]["crosses"] == counts["all"]["crosses"] < 30
    assert f"{counts['unsure']['pictures']} images of 30." == counts["unsure"]["words"]
    assert set(seen["labels"]) == {"is 1"}
    assert seen["loaded"] == 32
    assert all(alt.startswith("Validation image ") for alt in seen["alts"])
    assert seen["preview"].startswith("Validation image ")
    assert sum(seen["bars"].values()) == pytest.approx(100, abs=0.3)
    assert seen["problems"] == []


def test_where_nothing_is_wrong_all_are_shown_at_first(setting: Setting) -> None:
    assert setting.validation is not None
    answers = load_classifier(setting.run).probabilities(setting.validation.images)
    right = replace(setting.validation, labels=answers.argmax(1))
    with serving(Desk(Setting(setting.run, right))) as address:
        seen = drive("faultless", address)
    assert (seen["first"], seen["then"]) == ("all", "wrong"), "whoever asks for the wrong ones gets them"
    assert seen["problems"] == []


def test_everything_is_reached_by_keyboard(address: str, photo: Path) -> None:
    seen = drive("keyboard", address, photo)
    reached = [here["what"] for here in seen["reached"]]
    for name in ("#photograph", "choose", "take", "teacher", "show", "label"):
        assert name in reached, name
    assert reached.index("choose") < reached.index("show") < reached.index("label")
    assert all(here["ring"] for here in seen["reached"])
    assert seen["preview"].startswith("Validation image ")


def test_a_photograph_leaves_early_by_keyboard(
    exits_run: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browser, "RUNTIME", tmp_path / "none")  # the exits are the server's; nothing need be exported
    chosen = exits_run / "exits" / "exits.json"
    chosen.parent.mkdir()
    chosen.write_text(json.dumps({"chosen": {"threshold": 0.0}}))
    try:
        with serving(Desk(Setting(open_run(exits_run)))) as address:
            seen = drive("exits", address, photo, tmp_path / "exits.png")
    finally:
        shutil.rmtree(chosen.parent)
    assert seen["words"] == "leave at an early exit that is 0.0% sure"
    assert "Left at" not in seen["before"]
    assert seen["after"].startswith("Left at exit 1 of 2, after ")
    assert "million multiply-accumulates" in seen["after"]
    assert seen["ring"]
    assert seen["problems"] == []


def test_the_leaderboard_is_shown_as_text(address: str) -> None:
    rows = drive("leaderboard", address)["rows"]
    assert any("<b>bold</b>" in row for row in rows)
    assert sum(row.startswith("baseline") for row in rows) == 4


def test_curves_grow_while_a_run_trains(page_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "stages" / "student").mkdir(parents=True)
    shutil.copy(page_run / "recipe.toml", run)
    metrics = run / "stages" / "student" / "metrics.jsonl"
    lines = (page_run / "stages" / "student" / "metrics.jsonl").read_text().splitlines(keepends=True)
    metrics.write_text(lines[0])
    with serving(Desk(Setting(open_run(run)))) as address:
        process = subprocess.Popen(command("live", address, ()), stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            metrics.write_text(lines[0] + lines[1])
            seen = json.loads(process.communicate(timeout=SECONDS)[0].splitlines()[-1])
        finally:
            process.kill()
    assert (seen["before"], seen["after"]) == ("student: epoch 1 of 4", "student: epoch 2 of 4")
    assert "Still training" in seen["facts"]
    assert "2 of 4 epochs" in seen["label"]


def test_no_width_scrolls_sideways_and_the_schemes_differ(address: str, photo: Path, tmp_path: Path) -> None:
    seen = drive("pictures", address, tmp_path, photo)
    assert len(seen["wide"]) == 6
    for name, beyond in seen["wide"].items():
        assert beyond <= 0, name
        corner = Image.open(tmp_path / f"{name}.png").convert("L").getpixel((2, 2))
        assert isinstance(corner, int)
        assert (corner > 200) if name.startswith("light") else (corner < 60), name


def test_the_browsers_own_answer_is_the_servers(address: str, tmp_path: Path) -> None:
    if not browser.runtime_is_here():
        pytest.skip("ONNX Runtime Web is not here: make web")
    gradient = Image.merge("RGB", [Image.radial_gradient("L").rotate(90 * n).resize((330, 250)) for n in range(3)])
    gradient.save(tmp_path / "wide.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    gradient.crop((0, 0, 90, 200)).save(tmp_path / "lying.jpg", quality=95, exif=exif)
    gradient.crop((100, 0, 132, 60)).save(tmp_path / "narrow.webp", lossless=True)
    clear = gradient.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    clear.save(tmp_path / "clear.png")
    names = ("wide.png", "lying.jpg", "narrow.webp", "clear.png")
    seen = drive("browser", address, *(tmp_path / name for name in names))
    assert len(seen["seen"]) == len(names)
    for name, both in zip(names, seen["seen"], strict=True):
        assert both["browser"] == pytest.approx(both["server"], abs=1.0), name
        assert "ms" in both["time"]
    assert seen["problems"] == []
