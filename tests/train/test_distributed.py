"""Two processes against one: the same statistics, gradients, curve and answers; and what a lost process does."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ranks
from bantam.data import cache
from bantam.data.splits import IMAGENET
from bantam.errors import BadData, BadRecipe
from bantam.nets.students import describe
from bantam.pipeline import run as pipeline
from bantam.recipes.recipe import parse
from bantam.runs.runfolder import Row
from bantam.runs.runfolder import rows as read_rows
from bantam.train.batchnorm import GlobalBatchNorm
from bantam.train.distributed import ALONE, Processes, joined
from bantam.train.loop import train
from bantam.train.place import Place
from bantam.train.plan import Plan
from tiny_run import RECIPE, write_photographs

SHARED = RECIPE.replace("batch_size = 10", "batch_size = 20")
# Weights that hardly move: in float32 rounding grows from step to step, faster the farther they go.
SLOW = SHARED.replace("lr = 5e-3", "lr = 1e-4")
TAUGHT = SHARED.replace('kind = "student"', 'kind = "student"\nteacher = "t"').replace(
    "[[stage]]", '[[stage]]\nname = "t"\nkind = "given_teacher"\ncheckpoint = "t.ckpt"\nsize = 32\n[[stage]]', 1
)
PROJECTED = "[stage.objectives.kd]\nweight = 1.0\n[stage.objectives.fitnet]\nweight = 2.0\n"
OBJECTIVES = {
    "supervised, sgd, no average": TAUGHT.replace("lr = 5e-3", 'lr = 0.05\nname = "sgd"').replace(
        "ema = 0.9", "ema = 0.0"
    ),
    "a projection beside others": TAUGHT + PROJECTED,
    "peers, each with a projection": TAUGHT.replace("epochs = 4", "epochs = 4\npeers = 2")
    + PROJECTED
    + "[stage.objectives.dml]\nweight = 1.0\n",
    "four widths in turn": TAUGHT.replace("epochs = 4", "epochs = 4\nwidths = [0.4, 0.6, 0.8, 1.0]"),
    "images without a label, unevenly shared": TAUGHT.replace("[data]", "[data]\nunlabelled = true")
    + "[stage.objectives.dkd]\nweight = 1.0\n",
    "a classifier that no loss reaches": TAUGHT.replace("objectives.supervised", "objectives.fitnet"),
}


@pytest.fixture(scope="module")
def normalised(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, dict[str, torch.Tensor]]]:
    folder = tmp_path_factory.mktemp("normalised")
    assert ranks.launch(ranks.batch_norms, folder) == [0, 0]
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("case", ranks.CASES)
def test_batchnorm_of_two_processes_is_batchnorm_of_the_whole_batch(
    case: str, normalised: list[dict[str, dict[str, torch.Tensor]]]
) -> None:
    whole, parts = ranks.batch_norm(case, ALONE), [results[case] for results in normalised]
    loose = 2e-2 if case == "bf16" else 1e-9
    for name, expected in whole.items():
        ours = [part[name] for part in parts]
        if name.startswith("running"):
            assert torch.equal(ours[0], ours[1])
            torch.testing.assert_close(ours[0], expected, rtol=loose, atol=loose)
        elif name.startswith("gradient of"):
            torch.testing.assert_close(ours[0] + ours[1], expected, rtol=loose, atol=loose)
        else:
            torch.testing.assert_close(torch.cat(ours), expected, rtol=loose, atol=loose)


def test_batchnorm_in_eval_mode_asks_nobody() -> None:
    norm = torch.nn.BatchNorm2d(3).eval()
    images = torch.randn(2, 3, 4, 4)
    with GlobalBatchNorm(2):
        assert torch.equal(norm(images), norm(images))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("shared") / "photos", unlabelled=50)


@pytest.fixture(scope="module")
def stepped(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stepped")
    assert ranks.launch(ranks.many_steps, OBJECTIVES, root, folder) == [0, 0]
    return folder


@pytest.mark.parametrize("name", OBJECTIVES)
def test_steps_of_two_processes_are_those_of_one_at_the_same_global_batch(name: str, stepped: Path, root: Path) -> None:
    """In float64 the losses and all weights after 4 steps, trained projections included, agree to 5 digits.

    The terms themselves are computed in float32, so a small one has fewer.
    """
    one = ranks.steps(ALONE, OBJECTIVES[name], root)
    first, second = (torch.load(stepped / f"{rank}.pt")[name] for rank in range(2))
    assert first["curve"] == second["curve"]
    assert len(first["curve"]) == 4
    for ours, theirs in zip(first["curve"], one["curve"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-5)
    assert first["trained"].keys() == one["trained"].keys()
    for item, expected in one["trained"].items():
        assert torch.equal(first["trained"][item], second["trained"][item]), item
        torch.testing.assert_close(first["trained"][item], expected, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def two(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("two") / "run"
    assert ranks.launch(ranks.run_recipe, SLOW, photographs, out) == [0, 0]
    return out


def curve(out: Path) -> list[Row]:
    rows = read_rows(out / "stages" / "student" / "metrics.jsonl")
    for row in rows:
        del row["seconds"]
    return rows


def test_a_run_of_two_processes_follows_the_run_of_one(two: Path, photographs: Path, tmp_path: Path) -> None:
    """The steps in float64 are held closely; here it is the run about them."""
    pipeline.run(parse(SLOW), photographs, tmp_path / "one")
    rows, others = curve(two), curve(tmp_path / "one")
    assert len(rows) == len(others) == 4
    for row, other in zip(rows, others, strict=True):
        assert row["training"] == pytest.approx(other["training"], rel=1e-2)
        assert row["validation"]["cross_entropy"] == pytest.approx(other["validation"]["cross_entropy"], rel=1e-2)
    ours, theirs = (
        {path.relative_to(out) for path in out.rglob("*") if path.is_file()} for out in (two, tmp_path / "one")
    )
    assert ours == theirs
    assert json.loads((two / "environment.json").read_text())["processes"] == 2


@pytest.mark.slow
def test_a_teacher_trained_by_two_processes_answers_for_both(photographs: Path, tmp_path: Path) -> None:
    teacher = SLOW[SLOW.index("[[stage]]") :].replace('"student"', '"teacher"').replace("mobilenet_v1", "resnet18")
    taught = (
        SLOW.replace("[[stage]]", teacher.replace("epochs = 4", "epochs = 1") + "[[stage]]")
        .replace('kind = "student"', 'kind = "student"\nteacher = "teacher"\nviews = 3')
        .replace("epochs = 4", "epochs = 3")
        + "[stage.objectives.kd]\nweight = 1.0\n"
    )
    assert ranks.launch(ranks.run_recipe, taught, photographs, tmp_path / "two") == [0, 0]
    pipeline.run(parse(taught), photographs, tmp_path / "one")
    for row, other in zip(curve(tmp_path / "two"), curve(tmp_path / "one"), strict=True):
        assert row["training"] == pytest.approx(other["training"], rel=1e-2)


# The command line, with a checkpoint after every step; process 1 kills itself in its eighth step, within an epoch.
RUNS_AND_DIES = """
import os, signal
from bantam.cli import main as cli
from bantam.train import loop
from bantam.train.step import Step

loop.SAVE_EVERY = 0.0
original, count = Step.move, 0

def move(step):
    global count
    count += 1
    if count == 8 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    original(step)

Step.move = move
cli.main()
"""


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def test_a_killed_process_fails_the_run_and_the_same_command_ends_it(
    two: Path, photographs: Path, tmp_path: Path
) -> None:
    (tmp_path / "tiny.toml").write_text(SLOW)
    (tmp_path / "dies.py").write_text(RUNS_AND_DIES)
    out = tmp_path / "run"
    words = ["run", str(tmp_path / "tiny.toml"), "--data", str(photographs), "--out", str(out)]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    torchrun += ["--master-addr", "127.0.0.1", "--master-port", free_port(), str(tmp_path / "dies.py")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    killed = subprocess.run([*torchrun, *words], env=environment, capture_output=True, text=True, timeout=200)
    assert killed.returncode != 0
    assert "SIGKILL" in killed.stderr
    assert torch.load(out / "stages" / "student" / "last.ckpt", weights_only=True)["done"] == 7
    assert not (out / "metrics.json").exists()

    shutil.copytree(out, tmp_path / "alone")
    pipeline.run(parse(SLOW), photographs, tmp_path / "alone")
    for row, other in zip(curve(tmp_path / "alone"), curve(two), strict=True):
        assert row["training"] == pytest.approx(other["training"], rel=1e-2)

    assert ranks.start(ranks.command_line, tmp_path / "said", *words) == [0, 0]
    assert f"run folder: {out}" in (tmp_path / "said.0").read_text()
    assert not (tmp_path / "said.1").read_text()
    assert curve(out) == curve(two)
    weights, others = (torch.load(folder / "student_best.ckpt", weights_only=True) for folder in (out, two))
    assert all(torch.equal(value, others[name]) for name, value in weights.items())
    assert not list(out.rglob("*.tmp"))


@pytest.mark.parametrize(
    ("work", "line"),
    [
        (ranks.lose_a_process, "another process of this run has died; run the same command again to go on"),
        (ranks.all_refuse, "the same in every process"),
        (ranks.only_the_first_refuses, "process 0 alone"),
    ],
    ids=["killed", "all fail", "one fails"],
)
def test_a_failure_is_one_line_and_a_status(work: ranks.Work, line: str, tmp_path: Path) -> None:
    assert 0 not in ranks.launch(work, said=tmp_path)
    assert [path.read_text() for path in tmp_path.iterdir()] == [line]


def test_a_view_cache_built_by_two_processes_is_that_of_one(photographs: Path, tmp_path: Path) -> None:
    assert ranks.launch(ranks.build_views, photographs, tmp_path / "two", 5) == [0, 0]
    alone = ranks.views_in(photographs, tmp_path / "one")
    for view in range(5):
        alone.begin(view)
    files = sorted(path.name for path in alone.folder.iterdir() if path.suffix != ".lock")
    assert len(files) == 16  # about.json, and for each view two arrays and their record
    assert files == sorted(path.name for path in (tmp_path / "two" / alone.folder.name).iterdir())
    for name in files:
        assert (alone.folder / name).read_bytes() == (tmp_path / "two" / alone.folder.name / name).read_bytes(), name


def test_a_batch_that_cannot_be_shared_is_refused_before_any_work(photographs: Path, tmp_path: Path) -> None:
    with pytest.raises(BadRecipe, match=r'"student": batch_size = 10 .* for 2 processes; choose a multiple of 4'):
        pipeline.run(parse(RECIPE), photographs, tmp_path / "run", None, Processes(0, 2))
    assert not (tmp_path / "run").exists()


def test_too_few_photographs_for_the_processes_are_refused(photographs: Path, tmp_path: Path) -> None:
    many = parse(SHARED.replace("batch_size = 20", "batch_size = 62"))
    splits = cache.open_splits(photographs, 32)
    net = describe("mobilenet_v1", 5000, 3, 32).build()
    with pytest.raises(BadData, match="training split has 60 .* 62 are needed"):
        plan = Plan(many.shipped, splits.training, IMAGENET, pipeline.goals_of(many.shipped))
        train(net, plan, splits.validation, Place(tmp_path, processes=Processes(0, 31)))


@pytest.mark.parametrize(("n", "world"), [(10, 1), (10, 2), (10, 3), (2, 4), (0, 2)])
def test_every_row_is_in_one_share(n: int, world: int) -> None:
    shares = [range(n)[Processes(rank, world).share(n)] for rank in range(world)]
    assert [row for share in shares for row in share] == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_without_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with joined() as processes:
        assert processes == ALONE
        terms = {"loss": torch.ones(())}
        assert processes.mean(terms) is terms
        assert processes.replicated(net := torch.nn.Linear(1, 1)) is net
