"""`bantam handin`: from a recipe to all that is handed in, what is there already left as it is, kills survived."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from bantam.cli import main as cli
from bantam.deliver.report import questions
from bantam.deliver.verify.unrun import Check
from bantam.deliver.verify.verify import Verdict
from bantam.errors import RunMismatch
from bantam.nets.teachers import build_teacher
from bantam.recipes.recipe import load, parse
from bantam.runs import runfolder
from bantam.runs.finished import open_run
from bantam.runs.watcher import Watcher
from bantam.studies import durations, handin
from tiny_run import RECIPE, write_photographs

BIG = """[[stage]]
name = "big"
kind = "given_teacher"
architecture = "resnet18"
checkpoint = "big.ckpt"
size = 32
"""

TAUGHT = (
    RECIPE.replace("[[stage]]", f"{BIG}[[stage]]", 1)
    .replace('kind = "student"', 'kind = "student"\nteacher = "big"')
    .replace("epochs = 4", "epochs = 1")
)

# Hands in two ratios, and kills itself when the point of the given number is about to be kept.
DIES = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from bantam.runs import runfolder
from bantam.runs.watcher import Watcher
from bantam.studies import handin

count, original = 0, runfolder.write

def counted(path, value):
    global count
    count += path.name == ".points.json"
    if count == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    return original(path, value)

runfolder.write = counted
handin.RATIOS = [0.0, 0.5]
handin.handin(Path(sys.argv[1]), Path(sys.argv[2]), None, {}, Watcher())
"""


class Said(Watcher):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def verified(path: Path, data: Path, budget: int, run_code: bool = False) -> Verdict:
    """In the place of the sandbox, which has tests of its own."""
    assert run_code
    return Verdict(str(path), (Check("archive", True, f"{budget}"),))


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handin, "RATIOS", [0.0, 0.5])
    monkeypatch.setattr(handin, "ROUNDS", 2)
    monkeypatch.setattr("bantam.deliver.report.facts.LATENCY_ROUNDS", 1)
    monkeypatch.setattr(handin, "verify", verified)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs, and a teacher of them that knows nothing."""
    root = write_photographs(tmp_path_factory.mktemp("taught"), 20, 10, 4)
    torch.manual_seed(0)
    torch.save(build_teacher("resnet18", 3).state_dict(), root / "big.ckpt")
    return root


def plan_of(said: Said) -> dict[str, bool]:
    """Of each part whether it was there, from the lines that say how long what takes."""
    last = next(place for place, line in enumerate(said.lines) if line.startswith("in all"))
    return {line.rsplit("  ", 1)[0].split(",")[0].strip(): line.endswith("  there") for line in said.lines[:last]}


@pytest.mark.usefixtures("few")
def test_from_a_recipe_to_all_that_is_handed_in(taught: Path, tmp_path: Path) -> None:
    out, said = tmp_path / "run", Said()
    recipe = parse(TAUGHT)
    handed = handin.handin(out, taught, recipe, {"name": "Ada", "student_id": "B1"}, said)
    assert handed.report.missing == ()
    assert handed.verdict.passed
    run = open_run(out)
    for path in (run.submission, run.package, run.report, run.pruning_speed):
        assert path.is_file(), path
    assert set(plan_of(said).values()) == {False}

    # 3-1: both nets at every ratio, as pruned, with statistics of their own, fine-tuned; the teacher first.
    for whose in ("teacher", "student"):
        points = json.loads((run.pruning / whose / "curve.json").read_text())["points"]
        assert [(each["method"], each["ratio"]) for each in points] == [
            (method, ratio) for method in handin.METHODS for ratio in (0.0, 0.5)
        ]
        for each in points:
            assert each["before"]
            assert each["reestimated"]
            assert bool(each["finetuned"]) == (each["ratio"] > 0)
    assert {row["net"] for row in json.loads(run.pruning_speed.read_text())["rows"]} == {"resnet18", "mobilenet_v1"}
    page = handed.report.html.read_text()
    assert page.index("pruning resnet18") < page.index("pruning mobilenet_v1")
    assert "Name: Ada, Student ID: B1" in page

    # Again: nothing is made a second time, and who hands in is still known.
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if "report" not in path.parts}
    said = Said()
    handin.handin(out, taught, None, {}, said)
    parts = plan_of(said)
    assert [part for part, there in parts.items() if not there] == ["the report"]
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*") if "report" not in path.parts} == before
    assert "Student ID: B1" in handed.report.html.read_text()

    # What was taken away is made anew, and that alone; another zip is verified once more.
    run.submission.unlink()
    run.package.write_bytes(b"other")
    said = Said()
    handed = handin.handin(out, taught, None, {"student_id": "C2"}, said)
    missing = [part for part, there in plan_of(said).items() if not there]
    assert [part.split(" ")[0] for part in missing] == ["submission.csv", "hw13.zip", "the"]
    assert handed.verdict.passed
    assert run.submission.is_file()
    assert "Name: Ada, Student ID: C2" in handed.report.html.read_text()
    with pytest.raises(RunMismatch, match="holds a run of the recipe"):
        handin.handin(out, taught, parse(TAUGHT.replace("epochs = 1", "epochs = 2")), {}, Said())


@pytest.mark.usefixtures("few")
def test_a_killed_call_goes_on_where_it_was(own_run: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", DIES, str(own_run), str(photographs), "4"]
    assert subprocess.run(command, env=environment, timeout=300).returncode == -signal.SIGKILL
    kept = json.loads((own_run / "pruning" / "student" / ".points.json").read_text())["points"]
    assert len(kept) == 3
    drawn: list[tuple[str, float]] = []
    monkeypatch.setattr("bantam.studies.prune.curve", spied(drawn))
    handed = handin.handin(own_run, photographs, None, {}, Said())
    assert len(drawn) == 1, "what was kept is not pruned again"
    assert handed.verdict.passed
    points = json.loads((own_run / "pruning" / "student" / "curve.json").read_text())["points"]
    assert [point for point in points if point in kept] == [
        point for point in points if point["ratio"] != drawn[0][1] or point["method"] != drawn[0][0]
    ]


def spied(drawn: list[tuple[str, float]]) -> Any:
    """`curve`, which also notes the points that it does not know."""
    from bantam.compress.pruning_curve import Prunings, curve

    def noted(prunings: Prunings, *rest: Any) -> Any:
        point = prunings.point
        prunings.point = lambda *of: drawn.append(of[:2]) or point(*of)  # pyright: ignore[reportAttributeAccessIssue]
        return curve(prunings, *rest)

    return noted


@pytest.mark.usefixtures("few")
def test_a_curve_that_somebody_drew_stays(own_run: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One without fine-tuning is not enough, and not written over; of a tiny net the ratios end where it does."""
    monkeypatch.setattr(handin, "RATIOS", [0.0, 0.5, 0.99])
    own = own_run / "pruning" / "student" / "curve.json"
    runfolder.write(own, {"points": [{"method": "unstructured-global", "ratio": 0.0, "finetuned": None}]})
    before = own.read_bytes()
    said = Said()
    run = open_run(own_run)
    here = handin.Here(
        run, run.recipe, photographs, run.open_data(photographs, said), durations.Paces(student=1.0), said
    )
    (part,) = handin.curves(here)
    assert not part.there
    part.make()
    assert own.read_bytes() == before
    made = json.loads((own_run / "pruning" / "student-finetuned" / "curve.json").read_text())
    assert made["ratios"] == [0.0, 0.5]
    assert any("above 0.5 would empty a layer" in line for line in said.lines)
    assert [part.there for part in handin.curves(here)] == [True]


def test_the_given_teacher_is_pruned_as_its_student_asks_it() -> None:
    """boss asks one file at two sizes: it is one teacher, at the size of the last stage."""
    (given,) = load("boss").given
    assert (given.name, given.size) == ("sharper", 112)
    assert load("simple").given == ()


def test_how_long_it_takes_is_counted_in_passes() -> None:
    recipe = parse(TAUGHT.replace("epochs = 1", "epochs = 5").replace("ema", "views = 2\nema"))
    pace = durations.Paces(big=0.1, student=0.01)
    assert pace.training(recipe.shipped, 100, 5) == pytest.approx(100 * (4 * 5 * 0.01 + 2 * 0.1))
    assert set(durations.paces(recipe, 3)) == {"big", "student"}
    said = [durations.told(seconds) for seconds in (5, 80, 3000, 9000)]
    assert said == ["under a minute", "about 1 min", "about 50 min", "about 2.5 h"]


def test_the_bonus_has_the_author_within_its_words(own_run: Path) -> None:
    assert questions.author_of(open_run(own_run)) == ""
    handin.sign(open_run(own_run), {"name": "Ada Lovelace", "student_id": ""})
    handin.sign(open_run(own_run), {"name": "", "student_id": "B12"})
    assert questions.author_of(open_run(own_run)) == "Name: Ada Lovelace, Student ID: B12"
    texts = [block.text for block in questions.bonus(open_run(own_run)).blocks]
    assert texts[0] == "Name: Ada Lovelace, Student ID: B12"
    assert len(" ".join(texts).split()) <= 200


def call(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["bantam", "handin", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "--recipe boss --data DIR` trains one"),
        (["nowhere", "--recipe", "bos"], 'did you mean "boss"'),
        (["nowhere", "--recipe", "simple"], "--data DIR"),
        (["RUN", "--name", "a\nb"], "--name must be one line"),
        (["RUN", "--student-id", "9" * 61], "--student-id must be one line"),
        (["RUN", "--name", " "], "--name must be one line"),
        (["RUN", "--data", "UNLABELLED"], "has no evaluation images to hand in"),
        (["RUN", "--data", "OTHER"], "other photographs"),
    ],
)
def test_a_wrong_call_is_one_line_and_writes_nothing(
    words: list[str],
    said: str,
    own_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    others = {"RUN": own_run, "UNLABELLED": tmp_path / "unlabelled", "OTHER": tmp_path / "other"}
    if "UNLABELLED" in words:
        write_photographs(tmp_path / "unlabelled", evaluation=0)
    if "OTHER" in words:
        write_photographs(tmp_path / "other", training=30)
    before = sorted(own_run.rglob("*"))
    assert call([str(others.get(word, word)) for word in words], monkeypatch) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert said in lines[-1]
    assert lines[-1].startswith("bantam: ")
    assert sorted(own_run.rglob("*")) == before
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.slow
def test_the_command_hands_in_for_real(
    own_run: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(handin, "RATIOS", [0.0, 0.5])
    assert call([str(own_run), "--json"], monkeypatch) == 0  # it remembers its photographs
    handed = json.loads(capsys.readouterr().out)
    assert handed["verified"]["passed"]
    assert all(check["passed"] for check in handed["verified"]["checks"])
    assert handed["report"]["missing"] == []
    rows = (own_run / "submission.csv").read_text().splitlines()
    (own_run / "submission.csv").write_text("\n".join([*rows[:1], *(row[:-1] + "2" for row in rows[1:])]) + "\n")
    assert call([str(own_run)], monkeypatch) == 1, "the package gives other answers than this file"
    assert "FAIL  reproduction" in capsys.readouterr().out
