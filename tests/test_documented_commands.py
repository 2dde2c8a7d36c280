"""Every documented command is parsed by the real command line, and run on a tiny data set where that is quick.

A command that a page is given must be added here too: to STEPS, or to NOT_RUN with the reason.
"""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

import documented
from bantam.cli import main as cli
from bantam.nets.teachers import build_teacher
from documented import PAGES, ROOT
from tiny_run import write_photographs

TINY = ("data.size=32", "student.size=32", "student.epochs=1", "student.views=1", "student.batch_size=10")
SETTINGS = [word for key in (*TINY, "teacher.size=32") for word in ("--set", key)]
FEW_POINTS = ["--ratios", "0,0.5", "--methods", "unstructured-global", "--images", "10"]
OWN = ("data.size=32", "teacher.epochs=1", "alone.epochs=1", "distilled.epochs=1")
EXITS = (*TINY, "teacher.size=32", *(key.replace("student", "backbone") for key in TINY if "student" in key))
EXITS_SETTINGS = [word for key in EXITS for word in ("--set", key)]
OWN_SETTINGS = [word for key in (*OWN, "alone.batch_size=10", "distilled.batch_size=10") for word in ("--set", key)]


@dataclass(frozen=True)
class Step:
    """A documented line, what is added so that it ends in seconds, and words of it that stand for something."""

    line: str
    extra: list[str] = field(default_factory=list)
    instead: dict[str, str] = field(default_factory=dict)
    slow: bool = False


# In this order: each finds what those before it have made. DIR, RUN, ZIP, FILE and PHOTO are names in the folder.
STEPS = [
    Step("bantam --help"),
    Step("bantam recipes list"),
    Step("bantam recipes show strong"),
    Step("bantam recipes copy medium mine.toml", instead={"mine.toml": "medium.toml"}),
    Step("bantam summary mobilenet_v1 --budget 60000"),
    Step("bantam predict FOLDER --out table.csv", instead={"FOLDER": "DIR/evaluation"}),
    Step("bantam summary FAMILY", instead={"FAMILY": "sample"}),
    Step("bantam data check DIR"),
    Step("bantam data prepare DIR", ["--size", "32"]),
    Step("bantam teacher audit --data DIR", ["--images", "20", "--set", "teacher.size=32", "--set", "data.size=32"]),
    Step("bantam run medium --data DIR --out RUN --dry-run", SETTINGS, {"RUN": "runs/dry"}),
    Step("bantam run medium --data DIR --out RUN", SETTINGS),
    Step("bantam bench train medium --data DIR", ["--steps", "1", *SETTINGS]),
    Step("bantam bench train RECIPE --data DIR", ["--steps", "1", *SETTINGS], {"RECIPE": "medium"}, slow=True),
    Step("bantam teacher audit --data DIR --run RUN", ["--images", "20"]),
    Step("bantam runs list", ["."]),
    Step("bantam summary RUN"),
    Step("bantam bench cost RUN"),
    Step("bantam bench pruning RUN --data DIR", ["--rounds", "2"], slow=True),
    Step("bantam predict RUN --data DIR", ["--out", "FILE"]),
    Step("bantam predict RUN --data DIR --out submission.csv"),
    Step("bantam predict RUN --data DIR --views plain", ["--out", "plain.csv"]),
    Step("bantam predict PHOTO"),
    Step("bantam predict PHOTO --run RUN"),
    Step("bantam grade submission.csv --labels labels.csv"),
    Step("bantam grade submission.csv --labels labels.csv --name medium"),
    Step("bantam grade submission.csv --labels labels.csv --name strong"),
    Step("bantam grade FILE --labels labels.csv --name NAME"),
    Step("bantam leaderboard labels.csv"),
    Step("bantam leaderboard labels.csv [--reveal]"),
    Step("bantam package RUN --data DIR"),
    Step("bantam verify ZIP --data DIR", instead={"ZIP": "RUN/hw13.zip"}),
    Step("bantam verify ZIP --data DIR [--run-code]", instead={"ZIP": "RUN/hw13.zip"}, slow=True),
    Step("bantam export RUN --data DIR --to torchscript"),
    Step("bantam export RUN --data DIR"),
    Step("bantam report RUN --data DIR"),
    Step("bantam prune RUN --data DIR", FEW_POINTS),
    Step(
        "bantam prune DIR/resnet18_teacher.ckpt --data DIR --images 1000 --out RUN/pruning/teacher",
        [*FEW_POINTS, "--size", "32"],
        slow=True,
    ),
    Step(
        "bantam prune RUN --data DIR --methods unstructured-global,structured-taylor --images 1000 --finetune 1 "
        "--finetune-images 2048",
        ["--ratios", "0,0.5", "--images", "10", "--finetune-images", "20"],
        slow=True,
    ),
    Step("bantam prune RUN --data DIR --to-params 60000 --out RUN60", ["--to-params", "20000"], slow=True),
    Step("bantam export RUN --to onnx --data DIR --out student.onnx", slow=True),
    Step("bantam export RUN --data DIR --to onnx-int8", slow=True),
    Step("bantam quantize RUN --data DIR --epochs 0", slow=True),
    Step("bantam cascade RUN --data DIR", slow=True),
    Step("bantam cascade RUN --data DIR [--drop 0.003] [--confidence 0.9]", ["--confidence", "0.34"], slow=True),
    Step("bantam run exits --data DIR --out RUN", EXITS_SETTINGS, {"RUN": "EXITS"}, slow=True),
    Step("bantam exits RUN --data DIR", instead={"RUN": "EXITS"}, slow=True),
    Step("bantam exits RUN --data DIR [--drop 0.003]", instead={"RUN": "EXITS"}, slow=True),
    Step("bantam predict RUN --data DIR --exit-confidence C", instead={"RUN": "EXITS", "C": "0"}, slow=True),
    Step("bantam predict PHOTO --run RUN --exit-confidence C", instead={"RUN": "EXITS", "C": "0"}, slow=True),
    Step("bantam views RUN --data DIR", ["--views", "flip"], slow=True),
    Step("bantam views RUN --data DIR [--drop 0.003]", ["--views", "flip"], slow=True),
    Step("bantam predict RUN --data DIR --view-confidence C", ["--views", "zoom"], {"C": "0.4"}, slow=True),
    Step("bantam predict PHOTO --run RUN --view-confidence C", ["--views", "zoom"], {"C": "0.4"}, slow=True),
    Step("bantam run slim --data DIR --out RUN", SETTINGS, {"RUN": "SLIM"}, slow=True),
    Step("bantam slim RUN --data DIR", instead={"RUN": "SLIM"}, slow=True),
    Step(
        "bantam slim RUN --data DIR [--drop 0.003] [--confidence 0.9]",
        instead={"RUN": "SLIM", "0.9": "0"},
        slow=True,
    ),
    Step("bantam predict RUN --data DIR --width 0.5", instead={"RUN": "SLIM"}, slow=True),
    Step("bantam predict PHOTO --run RUN --width 0.5", instead={"RUN": "SLIM"}, slow=True),
    Step("bantam predict RUN --data DIR --size 48", instead={"RUN": "SLIM", "48": "32"}, slow=True),
    Step("bantam export RUN --data DIR --to c --out device --example", slow=True),
    Step("bantam students --board nucleo-f446re", slow=True),
    Step("bantam export RUN --data DIR --width 0.5", instead={"RUN": "SLIM"}, slow=True),
    Step("bantam students --budget 60000 --size 64 --classes 11", slow=True),
    Step(
        "bantam students --budget 25000 --bytes 100000 --macs 5000000 --activation-memory 200000 --size 48 "
        "--classes 11",
        slow=True,
    ),
    Step("bantam recipes copy demo mine.toml", slow=True),
    Step("bantam run mine.toml --data DIR --out RUN", OWN_SETTINGS, {"RUN": "OWN"}, slow=True),
    Step(
        "bantam run mine.toml --data DIR --out RUN --set budget=25000 --set distilled.net=mobilenet_v2 "
        "--set distilled.size=48",
        OWN_SETTINGS,
        {"RUN": "SMALL"},
        slow=True,
    ),
]

SERVER = "a server does not end; tests/deliver/serve asks it and drives its page"
HOURS = "the same command as with medium; the recipe trains for hours, and tests/test_recipe.py loads it"
REUSE = "tests/test_reuse.py goes on from another run's stages"
FIT = "half an hour; tests/fit/test_whole.py fits in seconds"
HANDIN = "tests/studies/test_handin.py hands in two ratios; all twenty take minutes"
NOT_RUN = {
    "bantam handin RUN --data DIR": HANDIN,
    "bantam handin RUN --data DIR --name NAME --student-id ID": HANDIN,
    "bantam handin RUN --data DIR --recipe boss": HANDIN,
    "bantam serve RUN --data DIR": SERVER,
    "bantam serve RUN --data DIR --open": SERVER,
    "bantam serve [RUN] [--data DIR] [--labels labels.csv] [--port 8000]": SERVER,
    "bantam run strong --data DIR --out RUN": HOURS,
    "bantam run takd --data DIR --out RUN": HOURS,
    "bantam run RECIPE --data DIR --out RUN": HOURS,
    "bantam run boss --data DIR --out RUN --reuse RUN": REUSE,
    "bantam run RECIPE --data DIR --out RUN --reuse OTHER": REUSE,
    "bantam demo --out /tmp/demo": "two minutes; make demo",
    "bantam fit PHOTOS --time 30m": FIT,
    "bantam fit PHOTOS [--time 1h] [--budget 60000] [--out RUN] [--teacher CKPT] [--size 96]": FIT,
    "bantam fit PHOTOS --ram 64k --flash 128k": FIT,
    "bantam serve RUN": SERVER,
    "bantam search --budget 60000 --data DIR --trials 30": "dozens of trainings; tests/search runs searches",
    "bantam search --budget 60000 --data DIR --trials 40 --workers 2 --out RUN": "as the other search",
    "bantam quantize RUN --data DIR": "three epochs of training; tests/studies/test_quantize.py trains on integers",
    "bantam quantize RUN --data DIR --epochs 3": "as the other quantize",
    "bantam prune RUN --data DIR --finetune 2 --methods structured-taylor --ratios 0.5,0.7,0.9": (
        "three trainings; tests/test_pruning.py trains what it has pruned"
    ),
    "bantam prune DIR/resnet18_teacher.ckpt --architecture resnet18 --size 112 --data DIR --images 1000": (
        "as the other curve of a teacher"
    ),
    "bantam students --plot docs/students.svg": "needs the results of a checkout; tests/test_students_command.py plots",
    "bantam export RUN --data DIR --to executorch": "an extra that is seldom installed; tests/deliver/test_pte.py",
}


def canonical(line: str) -> str:
    """A line with one name for every run's folder, and without dots."""
    return re.sub(r"\bruns/\w+", "RUN", line).replace("...", "")


DOCUMENTED = documented.commands()
LINES = sorted({canonical(line) for line in DOCUMENTED if not documented.named_only(line) or line.endswith("list")})


@pytest.mark.parametrize("line", DOCUMENTED)
def test_a_documented_command_is_one(line: str) -> None:
    """It exists, has these options, and lacks no argument."""
    if documented.named_only(line):
        documented.command_of(documented.words_of(line))
    else:
        documented.parse(line)


def test_the_parser_is_not_lenient() -> None:
    with pytest.raises(KeyError):
        documented.command_of(documented.words_of("bantam trian DIR"))
    for line in (
        "bantam verify ZIP",
        "bantam run medium --data DIR --out RUN --epocs 3",
        "bantam grade --labels a.csv",
    ):
        with pytest.raises(Exception, match="needs|has no option"):
            documented.parse(line)


def test_every_documented_command_is_run_or_left_for_a_reason() -> None:
    known = [step.line for step in STEPS] + list(NOT_RUN)
    assert sorted(known) == LINES


def test_the_page_of_every_command_has_every_command() -> None:
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    there = re.findall(r"^ {4}(?:.* -m )?bantam (.*)$", page, re.MULTILINE)
    assert [name for name in cli.COMMANDS if not any(f"{line} ".startswith(f"{name} ") for line in there)] == []


def test_every_target_that_is_named_is_in_the_makefile() -> None:
    makefile = (documented.ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    assert {"demo", "test", "docs", "web"} <= documented.made_targets() <= targets


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which the names that the documentation uses mean something."""
    root = tmp_path_factory.mktemp("documented")
    data = write_photographs(root / "DIR")
    torch.manual_seed(0)
    torch.save(build_teacher("resnet18", 3).state_dict(), data / "resnet18_teacher.ckpt")
    shutil.copy(data / "validation" / "0_0.png", root / "PHOTO")
    rows = "".join(f"{n:04d},{n % 3},{'Public' if n < 6 else 'Private'}\n" for n in range(12))
    (root / "labels.csv").write_text("Id,Category,Usage\n" + rows)
    before = Path.cwd()
    os.chdir(root)
    yield root
    os.chdir(before)


def run(step: Step) -> int:
    """The exit status of a step."""
    words = documented.words_of(step.line)
    argv, sys.argv = sys.argv, ["bantam", *(step.instead.get(word, word) for word in words), *step.extra]
    try:
        cli.main()
    except SystemExit as stopped:
        return int(stopped.code or 0)
    finally:
        sys.argv = argv
    return 0


def test_the_quick_ones_run_one_after_the_other(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for step in STEPS:
        if not step.slow:
            assert run(step) == 0, f"{step.line}: {capsys.readouterr().err}"
    assert "all 12 rows equal the packaged submission" in capsys.readouterr().out
    for made in ("submission.csv", "hw13.zip", "student.onnx", "report/report.html"):
        assert (place / "RUN" / made).is_file()


@pytest.mark.slow
def test_all_of_them_run_one_after_the_other(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for step in STEPS:
        if step.slow or not (place / "RUN" / "report" / "report.html").is_file():
            assert run(step) == 0, f"{step.line}: {capsys.readouterr().err}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name == "docs"], ids=lambda page: page.name)
def test_each_page_starts_with_the_command_a_reader_came_for(page: Path) -> None:
    title, blank, first = page.read_text(encoding="utf-8").splitlines()[:3]
    assert (title[:2], blank) == ("# ", "")
    assert re.match(r" {4}(bantam|make|torchrun) ", first), first


def test_the_readme_is_the_front_door_only() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 120
    linked = set(re.findall(r"\]\(docs/([\w-]+\.md)\)", text))
    assert linked == {page.name for page in PAGES if page.parent.name == "docs"}, "where to go next: every page"
