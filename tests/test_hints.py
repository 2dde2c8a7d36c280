"""Whatever command Bantam says to somebody, in an error, a report, after a command or on the page, is one that works.

Each is parsed by the real command line, which it must satisfy: with every option that the command requires. What a
command says comes next is run as it stands.
"""

import re
import shlex
import sys
from pathlib import Path

import pytest

import documented
import hints
from bantam.cli import main as cli
from bantam.deliver.report import prunings
from bantam.recipes.recipe import parse
from bantam.runs.finished import open_run
from tiny_run import RECIPE, write_photographs

SAID = hints.hints()


def call(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["bantam", *words])
    try:
        cli.main()
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


def next_steps(text: str) -> list[list[str]]:
    """What comes after `bantam` in the "next:" lines of a command's output."""
    return [shlex.split(line, comments=True)[1:] for line in re.findall(r"^next: (bantam .*)$", text, re.MULTILINE)]


@pytest.mark.parametrize("line", SAID)
def test_what_is_said_is_a_command_with_all_that_it_requires(line: str) -> None:
    documented.parse(line)


def test_every_kind_of_place_is_looked_through() -> None:
    assert len(SAID) > 25
    places = {place.split(":")[0] for where in SAID.values() for place in where}
    for one in ("recipes/takd.toml", "runs/runfolder.py", "deliver/report/prunings.py", "pipeline/given.py"):
        assert f"src/bantam/{one}" in places, one
    assert not any(line.startswith("bantam trian") for line in SAID)


def test_no_command_is_said_where_it_would_not_be_looked_for() -> None:
    verbs = {name.split()[0] for name in cli.COMMANDS}
    assert [line for line in hints.without_ticks() if line.split(": bantam ")[1].split()[0].strip(".,") in verbs] == []


def test_the_page_says_commands_that_there_are() -> None:
    page = (hints.SOURCE / "deliver" / "serve" / "static" / "page.js").read_text(encoding="utf-8")
    said = re.findall(r'\{\}, "(bantam [^"]*)"\)', page)
    assert said
    for line in said:
        documented.parse(line)


def test_a_report_says_how_the_given_teachers_curve_is_drawn(own_run: Path) -> None:
    (own_run / "recipe.toml").unlink()
    given = (
        '[[stage]]\nname = "t"\nkind = "given_teacher"\narchitecture = "resnet34"\ncheckpoint = "t.ckpt"\nsize = 40\n'
    )
    (own_run / "recipe.toml").write_text(RECIPE.replace("[[stage]]", f"{given}[[stage]]", 1))
    assert parse((own_run / "recipe.toml").read_text()).stage[0].name == "t"
    said = hints.TICKED.findall(vars(prunings.curves(open_run(own_run)).blocks[0])["text"])
    assert len(said) == 3
    for line in said:
        documented.parse(line)


def test_a_path_with_a_space_is_one_word_of_what_is_said(
    own_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = write_photographs(tmp_path / "my photos", 6, 3, 0), own_run.rename(tmp_path / "my run")
    for name in ("0_0.png", "1_1.png"):
        (data / "training" / name).write_text("milk")
    assert call(["data", "prepare", str(data)], monkeypatch) == 1
    said = hints.TICKED.findall(capsys.readouterr().err)
    assert [shlex.split(line) for line in said] == [["bantam", "data", "check", str(data)]]
    blocks = [*prunings.curves(open_run(run)).blocks, *prunings.speed(open_run(run)).blocks]
    said = [line for block in blocks for line in hints.TICKED.findall(vars(block)["text"])]
    assert len(said) == 3
    for line in said:
        assert str(run) in shlex.split(line)
        documented.parse(line)


def test_what_comes_next_can_be_done(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody is told to grade with labels that they have not; names that a shell would cut are quoted."""
    (tmp_path / "tiny.toml").write_text(RECIPE.replace("epochs = 4", "epochs = 1"))
    out = tmp_path / "my run"
    assert call(["run", str(tmp_path / "tiny.toml"), "--data", str(photographs), "--out", str(out)], monkeypatch) == 0
    packages, serves = next_steps(capsys.readouterr().out)
    assert packages == ["package", str(out), "--data", str(photographs)]
    assert serves == ["serve", str(out), "--data", str(photographs)]  # tests/deliver/serve starts servers
    assert call(["package", str(out)], monkeypatch) == 0
    (verifies,) = next_steps(capsys.readouterr().out)
    assert verifies[verifies.index("--data") + 1] == str(photographs), "the run remembers its photographs"
    assert verifies[verifies.index("--budget") + 1] == "5000"
    assert call(["report", str(out)], monkeypatch) == 0
    (reports,) = next_steps(capsys.readouterr().out)
    assert reports == ["report", str(out), "--data", str(photographs)], "what is missing is measured there"
    (out / "submission.csv").unlink()  # as where the photographs have no evaluation images
    assert call(["package", str(out)], monkeypatch) == 0
    printed = capsys.readouterr().out
    assert next_steps(printed) == [], "such a package cannot be verified"
    (predicts,) = (shlex.split(line)[1:] for line in hints.TICKED.findall(printed))
    assert predicts[1:] == [str(out), "--data", "DIR", "--out", str(out / "submission.csv")]
    for words in (packages, serves, verifies, reports, predicts):
        documented.parse(shlex.join(["bantam", *words]))


@pytest.mark.slow
def test_what_comes_next_is_run_as_it_is_said(
    own_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A package is verified; after a curve comes a smaller student, and then what both cost."""
    assert call(["package", str(own_run)], monkeypatch) == 0
    (verifies,) = next_steps(capsys.readouterr().out)
    assert call(verifies, monkeypatch) == 0
    few = ["--ratios", "0,0.5", "--methods", "unstructured-global"]
    assert call(["prune", str(own_run), *few], monkeypatch) == 0
    assert (own_run / "pruning" / "student" / "curve.json").is_file(), "where the report reads"
    (prunes,) = next_steps(capsys.readouterr().out)
    assert call(prunes, monkeypatch) == 0
    (costs,) = next_steps(capsys.readouterr().out)
    assert costs == ["bench", "cost", str(own_run), str(own_run.parent / "run-pruned")]


def test_an_unfinished_run_is_gone_on_with_as_it_is_said(
    own_run: Path, photographs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (own_run / "metrics.json").unlink()
    assert call(["package", str(own_run)], monkeypatch) == 1
    (said,) = hints.TICKED.findall(capsys.readouterr().err)
    words = [str(photographs) if word == "DIR" else word for word in shlex.split(said)[1:]]
    assert call(words, monkeypatch) == 0
    assert (own_run / "metrics.json").is_file()
