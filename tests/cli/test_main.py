"""The commands as a user types them: what they print, their exit status, and one line for what a user can cause."""

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import typer

from bantam.cli import main as cli
from children import bound_to_parent
from tiny_run import RECIPE, write_photographs


class Said:
    def __init__(self, status: int, out: str, error: str) -> None:
        self.status, self.out, self.error = status, out, error


@pytest.fixture
def bantam(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Call the command line in this process: `bantam("grade", "x.csv")`."""

    def call(*words: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["bantam", *map(str, words)])
        try:
            cli.main()
            status = 0
        except SystemExit as stopped:
            status = int(stopped.code or 0)
        captured = capsys.readouterr()
        return Said(status, captured.out, captured.err)

    return call


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE)
    return path


def one_line(said: Said) -> str:
    assert said.status == 1
    assert said.error.startswith("bantam: ")
    assert said.error.count("\n") == 1
    assert "Traceback" not in said.error
    return said.error


def test_run_predict_and_grade_follow_each_other(bantam, photographs: Path, recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    said = bantam("run", recipe_file, "--data", photographs, "--out", out, "--set", "student.epochs=6")
    assert said.status == 0, said.error
    assert "of 5,000 parameters" in said.out
    assert "±" in said.out

    again = tmp_path / "again.csv"
    probabilities = tmp_path / "probabilities.csv"
    said = bantam("predict", out, "--data", photographs, "--out", again, "--probabilities", probabilities)
    assert said.status == 0, said.error
    assert again.read_text() == (out / "submission.csv").read_text()
    rows = list(csv.reader(probabilities.open()))
    assert len(rows) == 13
    for row in rows[1:]:
        assert sum(map(float, row[1:])) == pytest.approx(1, abs=1e-3)

    labels = tmp_path / "labels.csv"
    lines = [f"{n:04d},{n % 3},{'Public' if n < 6 else 'Private'}" for n in range(12)]
    labels.write_text("Id,Category,Usage\n" + "\n".join(lines) + "\n")
    said = bantam("grade", again, "--labels", labels, "--json")
    assert json.loads(said.out)["parts"]["public"]["n"] == 6
    assert "points" in bantam("grade", again, "--labels", labels).out


def test_how_it_is_computed_is_kept_and_said_to_whoever_asks(
    bantam, photographs: Path, recipe_file: Path, tmp_path: Path
) -> None:
    words = ["run", recipe_file, "--data", photographs, "--set", "student.epochs=1", "--out"]
    quiet, loud = bantam(*words, tmp_path / "quiet"), bantam(*words, tmp_path / "loud", "--verbose")
    assert (quiet.status, loud.status) == (0, 0)
    for words in ("thread(s)", "channels_last"):
        assert words in loud.out
        assert words not in quiet.out
        for run in ("quiet", "loud"):
            (fact,) = json.loads((tmp_path / run / "environment.json").read_text())["computed"]
            assert words in fact


def test_a_dry_run_checks_everything_times_real_steps_and_leaves_nothing(
    bantam, photographs: Path, recipe_file: Path, own_run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new"
    words = ["run", recipe_file, "--data", photographs, "--out", out, "--dry-run"]
    said = bantam(*words)
    assert said.status == 0, said.error
    assert re.search(r"^student: 4 epochs of 6 steps, about \d+ seconds$", said.out, re.MULTILINE)
    assert "in all about" in said.out
    assert not out.exists()
    (row,) = json.loads(bantam(*words, "--json").out)
    assert row["seconds"] > 0
    assert row["minutes"] == pytest.approx((row["seconds"] + row["asking"]) / 60)
    longer = json.loads(bantam(*words, "--json", "--set", "student.epochs=4000").out)
    assert longer[0]["epochs"] == 4000
    assert "in all about" in bantam(*words[:-2], own_run, "--dry-run").out, "of a finished run nothing is left"
    assert "choose another --out" in one_line(bantam(*words[:-2], own_run, "--dry-run", "--set", "seed=9"))
    assert "budget" in one_line(bantam(*words, "--set", "budget=100"))


def test_a_dry_run_times_every_training_of_a_recipe(bantam, photographs: Path, tmp_path: Path) -> None:
    """A teacher that is trained, cached answers, early exits on an earlier net, and a refit."""
    teacher = RECIPE[RECIPE.index("[[stage]]") :].replace('"student"', '"teacher"').replace("mobilenet_v1", "resnet18")
    student = RECIPE[RECIPE.index("[[stage]]") :].replace("epochs = 4", 'epochs = 4\nteacher = "teacher"\nviews = 2')
    early = RECIPE[RECIPE.index("[[stage]]") :].replace('"student"\nkind = "student"', '"early"\nkind = "exits"')
    early = early.replace('net = "mobilenet_v1"', 'of = "student"\nafter = [1, 3]')
    early += "[stage.objectives.self_distillation]\nweight = 1.0\n"
    text = RECIPE[: RECIPE.index("[[stage]]")] + teacher.replace("ema = 0.9", "") + student
    text += "[stage.objectives.kd]\nweight = 1.0\n"
    (tmp_path / "refit.toml").write_text(text + '[[stage]]\nname = "again"\nkind = "refit"\nof = "student"\n')
    (tmp_path / "early.toml").write_text(
        text.replace("budget = 5000", "budget = 20000").replace('kind = "student"', 'kind = "assistant"\nbudget = 5000')
        + early
    )
    for name, last in (("refit", "again"), ("early", "early")):
        words = ["run", tmp_path / f"{name}.toml", "--data", photographs, "--out", tmp_path / "x"]
        said = bantam(*words, "--dry-run", "--json")
        assert said.status == 0, said.error
        rows = {row["stage"]: row for row in json.loads(said.out)}
        assert list(rows) == ["teacher", "student", last]
        assert all(row["seconds"] > 0 for row in rows.values())
        assert rows["student"]["asking"] > 0
        assert rows["teacher"]["asking"] == 0
    assert rows["student"]["steps"] == 6
    assert not (tmp_path / "x").exists()


def test_runs_are_listed_with_how_far_each_has_come(bantam, own_run: Path, tmp_path: Path) -> None:
    place = own_run.parent
    shutil.copytree(own_run, place / "deep" / "halfway").joinpath("metrics.json").unlink()
    (place / "deep" / "halfway" / "stages" / "student" / "done.json").unlink()
    shutil.copytree(own_run, place / "damaged").joinpath("metrics.json").write_text("{")
    shutil.copytree(own_run, own_run / "within")  # belongs to the run
    (place / "begun").mkdir()
    shutil.copy(own_run / "recipe.toml", place / "begun")
    (place / "empty").mkdir()
    said = bantam("runs", "list", place)
    assert said.status == 0, said.error
    lines = {line.split()[-1].removeprefix(f"{place}/"): line for line in said.out.splitlines()[1:]}
    assert set(lines) == {"run", "deep/halfway", "damaged", "begun"}
    metrics = json.loads((own_run / "metrics.json").read_text())
    assert f"{metrics['validation']['accuracy']:.3f} ± " in lines["run"]
    assert f"{metrics['parameters']['torchsummary']:,}" in lines["run"]
    assert "student: epoch 4 of 4" in lines["deep/halfway"]
    assert "metrics.json is damaged" in lines["damaged"]
    rows = json.loads(bantam("runs", "list", place, "--json").out)
    assert {row["run"].removeprefix(f"{place}/"): row["state"].split(" ")[0] for row in rows}["begun"] == "begun"
    assert [row["changed"] for row in rows] == sorted((row["changed"] for row in rows), reverse=True)
    assert "there is no run below" in bantam("runs", "list", place / "empty").out
    assert "there is no folder" in one_line(bantam("runs", "list", place / "nowhere"))


def test_views_may_be_asked_for(bantam, photographs: Path, recipe_file: Path, tmp_path: Path) -> None:
    bantam("run", recipe_file, "--data", photographs, "--out", tmp_path / "run")
    for views in ("plain", "flip", "crops"):
        out = tmp_path / f"{views}.csv"
        said = bantam("predict", tmp_path / "run", "--data", photographs, "--out", out, "--views", views)
        assert said.status == 0, said.error
        assert len(out.read_text().splitlines()) == 13
    assert "--views is one of plain, flip" in one_line(
        bantam("predict", tmp_path / "run", "--data", photographs, "--out", out, "--views", "none")
    )


def test_check_counts_and_its_exit_status_says_whether_training_is_safe(bantam, tmp_path: Path) -> None:
    root = write_photographs(tmp_path / "photos")
    said = bantam("data", "check", root)
    assert said.status == 0
    assert "training here is safe" in said.out
    (root / "training" / "1_99.jpg").write_text("text")
    said = bantam("data", "check", root, "--json")
    assert said.status == 1
    assert list(json.loads(said.out)["unreadable"]) == ["training/1_99.jpg"]


def test_prepare_says_what_is_ready(bantam, photographs: Path) -> None:
    said = bantam("data", "prepare", photographs, "--size", 32)
    assert "ready at 32 px: 60 training, 30 validation, 12 evaluation images in 3 classes" in said.out


def test_summary_prints_the_table_both_counts_and_the_verdict(bantam) -> None:
    said = bantam("summary", "sample")
    assert "Total params: 59,723" in said.out
    assert "As torchsummary counts: 59,723" in said.out
    said = bantam("summary", "mobilenet_v1", "--budget", 20_000, "--json")
    assert 19_900 <= json.loads(said.out)["parameters"]["unique"] <= 20_000
    assert "budget" in one_line(bantam("summary", "sample", "--budget", 100))


def test_summary_of_a_run_is_of_what_it_ships(bantam, own_run: Path) -> None:
    told, shipped = (
        json.loads(text) for text in (bantam("summary", own_run, "--json").out, (own_run / "metrics.json").read_text())
    )
    assert told["parameters"] == shipped["parameters"]
    assert told["budget"] == shipped["budget"] == 5000
    assert json.loads(bantam("summary", own_run, "--json", "--budget", "100").out)["budget"] == 100
    assert "a run has its own" in one_line(bantam("summary", own_run, "--size", "64"))
    assert "there is no run" in one_line(bantam("summary", own_run.parent / "rum")), "a path is no family's name"
    assert "holds no run" in one_line(bantam("summary", own_run.parent))


def test_version_is_that_of_the_package(bantam) -> None:
    said = bantam("--version")
    assert said.status == 0
    assert re.fullmatch(r"bantam (\d+\.\d+\.\d+|of a checkout that is not installed)\n", said.out)


def test_audit_reads_a_given_teacher(bantam, photographs: Path, tmp_path: Path) -> None:
    import torch

    from bantam.nets.teachers import build_teacher

    root = shutil.copytree(photographs, tmp_path / "root")
    torch.manual_seed(0)
    torch.save(build_teacher("resnet18", 3).state_dict(), root / "resnet18_teacher.ckpt")
    said = bantam("teacher", "audit", "--data", root, "--images", 20, "--json", "--set", "teacher.size=32")
    assert said.status == 0, said.error
    looks = json.loads(said.out)["looks"]
    assert [(look["split"], look["augmented"], look["n"]) for look in looks] == [
        ("training", False, 20), ("validation", False, 20), ("training", True, 20), ("validation", True, 20),
    ]  # fmt: skip
    for look in looks:
        entropies = [look["soft_labels"][name]["entropy"] for name in ("1", "2", "4", "8")]
        assert entropies == sorted(entropies)
    assert "T = 8" in bantam("teacher", "audit", "--data", root, "--images", 20, "--set", "teacher.size=32").out
    assert "given_teacher" in one_line(bantam("teacher", "audit", "--data", root, "--recipe", "simple"))


def test_recipes_are_listed_shown_and_copied(bantam, tmp_path: Path) -> None:
    lines = bantam("recipes", "list").out.splitlines()
    assert {"demo", "simple", "medium"} <= {line.split()[0] for line in lines if line[0] != " "}
    assert max(map(len, lines)) <= 80
    shown = bantam("recipes", "show", "medium").out
    assert bantam("recipes", "copy", "medium", tmp_path / "mine.toml").status == 0
    assert (tmp_path / "mine.toml").read_text() == shown
    assert "exists already" in one_line(bantam("recipes", "copy", "medium", tmp_path / "mine.toml"))
    assert 'did you mean "medium"' in one_line(bantam("recipes", "show", "medum"))


@pytest.mark.parametrize("words", [(), ("--help",), ("data", "--help"), ("run", "--help"), ("teacher", "--help")])
def test_help_is_there(bantam, words: tuple[str, ...]) -> None:
    assert "Usage" in bantam(*words).out + bantam(*words).error


def broken(kind: str, tmp_path: Path) -> Path:
    """A data folder that is wrong in one way."""
    root = tmp_path / "data"
    if kind == "missing":
        return root
    if kind == "empty":
        root.mkdir()
        return root
    write_photographs(root)
    if kind == "label out of range":
        shutil.copy(root / "validation" / "0_0.png", root / "validation" / "9_0.png")
    if kind == "no label":
        shutil.copy(root / "training" / "0_0.png", root / "training" / "holiday.png")
    if kind == "class without image":
        for path in (root / "training").glob("1_*.png"):
            path.unlink()
    if kind == "truncated":
        from PIL import Image

        Image.open(root / "training" / "0_0.png").save(tmp_path / "whole.jpg")
        (root / "training" / "0_500.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:300])
    return root


@pytest.mark.parametrize(
    "kind", ["missing", "empty", "label out of range", "no label", "class without image", "truncated"]
)
def test_bad_folders_are_one_line_and_leave_no_run(bantam, kind: str, recipe_file: Path, tmp_path: Path) -> None:
    root = broken(kind, tmp_path)
    said = bantam("run", recipe_file, "--data", root, "--out", tmp_path / "run")
    assert str(root) in one_line(said)
    assert not (tmp_path / "run").exists()


def test_other_mistakes_are_one_line(bantam, photographs: Path, recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert "did you mean" in one_line(bantam("run", "medum", "--data", photographs, "--out", out))
    said = bantam("run", recipe_file, "--data", photographs, "--out", out, "--set", "student.epoch=3")
    assert 'did you mean "epochs"' in one_line(said)
    assert "holds no run" in one_line(bantam("predict", tmp_path, "--data", photographs))
    assert "labels.csv" in one_line(bantam("grade", tmp_path / "nowhere.csv", "--labels", tmp_path / "labels.csv"))
    (tmp_path / "file").write_text("")
    said = bantam("run", recipe_file, "--data", photographs, "--out", tmp_path / "file" / "run")
    assert "cannot write" in one_line(said)


def test_a_number_that_is_none_or_out_of_range_is_one_line_before_any_work(bantam, tmp_path: Path) -> None:
    """Every option of every command that takes a number."""
    tried: set[str] = set()

    def walk(command: Any, words: list[str]) -> None:
        for name, inner in getattr(command, "commands", {}).items():
            walk(inner, [*words, name])
        for option in command.params:
            if option.metavar not in ("N", "SHARE", "MILLION", "BYTES"):
                kind = str(option.type_descriptor.annotation)
                assert not re.search(r"\b(int|float)\b", kind), f"{words} {option.opts} takes any number"
                continue
            tried.add(" ".join([*words, option.opts[0]]))
            places = [str(tmp_path / "nowhere") for one in command.params if one.param_type_name == "argument"]
            needed = [word for one in command.params if one.required and one.opts[0].startswith("--")
                      for word in (one.opts[0], str(tmp_path / "nowhere"))]  # fmt: skip
            for wrong in ("nan", "-1", "1e400", "1" + "0" * 63, "9" * 5000, "x\x1b[31m"):
                line = one_line(bantam(*words, *places, *needed, f"{option.opts[0]}={wrong}"))
                assert line.startswith(f"bantam: {option.opts[0]} "), (words, option.opts, wrong, line)
                assert line[:-1].isprintable()

    walk(typer.main.get_command(cli.app), [])
    assert len(tried) > 30
    assert {"run", "search"} & {name.split()[0] for name in tried}
    assert not list(tmp_path.iterdir())


def test_a_traceback_never_reaches_a_user_of_the_real_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bantam", "data", "check", str(tmp_path / "nowhere")]
    finished = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert finished.returncode == 1
    assert finished.stderr.startswith("bantam: ")
    assert finished.stderr.count("\n") == 1


def test_the_command_line_starts_without_torch() -> None:
    code = "import sys; import bantam.cli.main; print('torch' in sys.modules)"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "False"


def test_an_interrupt_says_how_to_go_on(photographs: Path, recipe_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "bantam", "run", str(recipe_file), "--data", str(photographs), "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, "--set", "student.epochs=2000"], env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
        text=True, preexec_fn=bound_to_parent(),
    )  # fmt: skip
    log = out / "stages" / "student" / "metrics.jsonl"
    while process.poll() is None and not (log.exists() and log.read_text()):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    error = process.stderr.readline()
    while process.poll() is None:  # torch takes a while to end, and people are impatient
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    assert process.returncode == 130
    assert error + process.stderr.read() == "bantam: stopped; run the same command again to go on\n"


@pytest.mark.parametrize(
    "error",
    [
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        OSError(12, "Cannot allocate memory"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("can't start new thread"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_too_little_memory_is_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> None:
        try:
            raise error
        except type(error) as cause:
            raise ImportError("the extension could not be imported") from cause

    monkeypatch.setattr(cli, "app", fails)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("bantam: there is too little memory")
    assert said.count("\n") == 1


def test_an_error_that_is_not_about_memory_stays_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise ImportError("No module named torch")

    monkeypatch.setattr(cli, "app", fails)
    with pytest.raises(ImportError):
        cli.main()


@pytest.mark.parametrize("gigabytes", [1, 3])
def test_a_process_that_may_not_have_the_memory_says_so(gigabytes: int) -> None:
    limit = f"ulimit -v {gigabytes * 1_000_000}; exec {sys.executable} -m bantam summary sample"
    ended = subprocess.run(["sh", "-c", limit], capture_output=True, text=True, timeout=300)
    if ended.returncode == 0:
        pytest.skip(f"here {gigabytes} GB are enough")
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("bantam: there is too little memory")
    assert "Traceback" not in ended.stderr


def test_a_path_that_the_system_does_not_take_is_one_line(bantam, photographs: Path, tmp_path: Path) -> None:
    long = "a" * 300
    for words in (
        ("fit", long), ("fit", photographs, "--out", long), ("data", "check", long), ("predict", long),
        ("handin", long), ("fit", photographs, "--teacher", long),
    ):  # fmt: skip
        error = one_line(bantam(*words))
        assert f"{long[:60]}... (300 characters) cannot be looked at: File name too" in error


def test_a_number_sign_may_stand_in_the_name_of_a_folder(bantam, tmp_path: Path) -> None:
    (tmp_path / "a #1").mkdir()
    assert "a #1 is empty" in one_line(bantam("fit", tmp_path / "a #1", "--time", "40s"))
    (tmp_path / "a").mkdir()
    assert "a#1 does not exist" in one_line(bantam("fit", tmp_path / "a#1"))
    error = one_line(bantam("fit", tmp_path / "a", "--teacher", tmp_path / "x#1" / "t.ckpt#model"))
    assert f"there is no {tmp_path / 'x#1' / 't.ckpt#model'}" in error


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_names_that_the_terminal_does_not_know_are_printed_all_the_same(
    tmp_path: Path, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = os.fsdecode("\u0142\u20ac".encode() + b"\xe9")
    write_photographs(tmp_path / name)
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "argv", ["bantam", "data", "check", str(tmp_path / name)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    assert b"training here is safe" in stream.buffer.getvalue()


def test_what_is_read_is_never_written_over(bantam, photographs: Path, tmp_path: Path) -> None:
    photo = next(path for path in photographs.rglob("*.*") if path.suffix in (".jpg", ".png"))
    own = tmp_path / "photos" / "own.jpg"
    own.parent.mkdir()
    shutil.copy(photo, own)
    (tmp_path / "link.jpg").symlink_to(own)
    for given in (own, own.parent, tmp_path / "link.jpg"):
        error = one_line(bantam("predict", given, "--out", own))
        assert "is read here, and what is written there would take its place" in error
    assert own.read_bytes() == photo.read_bytes()
