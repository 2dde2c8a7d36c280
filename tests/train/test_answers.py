"""The view cache: what it stores is what the teacher says, and a kill costs at most the view under way."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bantam.data import augment, batches, cache
from bantam.data.augment import Augmentation, Viewing
from bantam.data.splits import IMAGENET, Normalisation
from bantam.errors import BadCheckpoint, NotFinite
from bantam.files import read_sealed, sha256_of, write_sealed
from bantam.nets.students import describe
from bantam.nets.teachers import Teacher
from bantam.pipeline import run as pipeline
from bantam.pipeline import stages
from bantam.recipes.recipe import parse
from bantam.runs.runfolder import rows as read_rows
from bantam.runs.watcher import Watcher
from bantam.train.answers import ROUNDING, Live, ViewCache
from bantam.train.place import Place
from damage import flipped
from tiny_run import RECIPE

MIXED = Augmentation(scale=(0.5, 1.0), brightness=0.2, cutmix=0.5, mixup=0.3, erase=0.2)
VIEWING = Viewing(3, MIXED, 32, IMAGENET)


def teacher(seed: int = 0) -> Teacher:
    torch.manual_seed(seed)
    net = describe("mobilenet_v1", 5000, 3, 32).build()
    return Teacher(net, 40, IMAGENET.mean, IMAGENET.std, IMAGENET.mean, IMAGENET.std)


def opened(photographs: Path, folder: Path, **changes: Any) -> ViewCache:
    splits = cache.open_splits(photographs, 32)
    arguments: dict[str, Any] = {
        "place": Place(folder),
        "teacher": teacher(),
        "training": splits.training,
        "fingerprint": splits.fingerprint,
        "viewing": VIEWING,
        "embedding": True,
    }
    return ViewCache(**(arguments | changes))


def test_cached_answers_equal_live_ones_on_every_mixed_view(photographs: Path, tmp_path: Path) -> None:
    cached = opened(photographs, tmp_path)
    live = Live(cached.teacher)
    for view in range(3):
        cached.begin(view)
        for index in batches.epoch(60, 12, 3, view, 3):
            numbers = torch.full_like(index, view)
            images, _ = augment.render(cached.training.images, index, numbers, VIEWING)
            said, looked_up = live(images, index, numbers), cached(images, index, numbers)
            relative, absolute = ROUNDING
            torch.testing.assert_close(looked_up.logits, said.logits, rtol=relative, atol=absolute)
            torch.testing.assert_close(looked_up.embedding, said.embedding, rtol=relative, atol=absolute)
            assert looked_up.features == ()


def test_answers_in_bf16_are_looked_up_again_and_not_for_those_in_fp32(photographs: Path, tmp_path: Path) -> None:
    coarse = teacher()
    coarse.autocast = torch.bfloat16
    cached, exact = opened(photographs, tmp_path, teacher=coarse), opened(photographs, tmp_path)
    cached.begin(0)
    opened(photographs, tmp_path, teacher=coarse).begin(0)  # what is there passes its check
    assert cached.folder != exact.folder
    assert not exact.has(0)


def test_a_finished_view_is_not_asked_again_and_a_longer_recipe_adds_views(photographs: Path, tmp_path: Path) -> None:
    first = opened(photographs, tmp_path)
    for view in range(2):
        first.begin(view)
    assert first.seconds > 0
    before = {path.name: path.stat().st_mtime_ns for path in first.folder.glob("*.npy")}
    again = opened(photographs, tmp_path)
    assert [view for view in range(4) if again.has(view)] == [0, 1]
    for view in range(2):
        again.begin(view)
    assert again.seconds == 0
    for view in range(2, 4):
        again.begin(view)
    after = {path.name: path.stat().st_mtime_ns for path in again.folder.glob("*.npy")}
    assert len(after) == 8
    assert before.items() <= after.items()


@pytest.mark.parametrize(
    "change",
    [
        {"teacher": teacher(1)},
        {"viewing": replace(VIEWING, seed=4)},
        {"viewing": replace(VIEWING, size=24)},
        {"fingerprint": "other data"},
        {"viewing": replace(VIEWING, augmentation=Augmentation())},
        {"viewing": replace(VIEWING, normalisation=Normalisation((0.5, 0.5, 0.5), IMAGENET.std))},
        {"viewing": replace(VIEWING, normalisation=Normalisation(IMAGENET.mean, (0.5, 0.5, 0.5)))},
    ],
    ids=["teacher", "seed", "size", "data", "augmentation", "mean", "std"],
)
def test_anything_that_changes_an_answer_changes_the_folder(
    change: dict[str, Any], photographs: Path, tmp_path: Path
) -> None:
    assert opened(photographs, tmp_path).folder != opened(photographs, tmp_path, **change).folder


def test_an_answer_that_is_not_the_teachers_is_a_failure(photographs: Path, tmp_path: Path) -> None:
    opened(photographs, tmp_path).build(1)
    cached = opened(photographs, tmp_path)
    cached.check(1)
    path = cached.path(1, "logits")
    wrong = np.load(path)
    wrong += np.float16(0.05)
    np.save(path, wrong)
    # As if they had been written so: whole, but another teacher's.
    write_sealed(cached.record(1), {**read_sealed(cached.record(1)), "logits": sha256_of(path)})
    with pytest.raises(BadCheckpoint, match=r"differ from the teacher's by 0\.0\d+ \(view 1\); delete this folder"):
        cached.begin(1)


def test_runs_that_come_to_the_same_view_ask_once(photographs: Path, tmp_path: Path) -> None:
    """Two threads stand for two runs; the second waits for the first and finds the answers."""
    caches = [opened(photographs, tmp_path) for _ in range(2)]
    asked: list[int] = []
    for cached in caches:
        ask = cached.asked
        cached.asked = lambda view, ask=ask: (asked.append(view), time.sleep(0.2), ask(view))[2]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda cached: cached.begin(0), caches))
    assert asked == [0]
    assert all(cached.has(0) for cached in caches)


def test_a_watcher_sees_the_answers_come(photographs: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []

    class Seen(Watcher):
        def begin(self, name: str, total: int, done: int) -> None:
            seen.append((name, total))

        def advance(self, done: int) -> None:
            seen.append(("done", done))

        def end(self) -> None:
            seen.append(("end", 0))

    opened(photographs, tmp_path, place=Place(tmp_path, Seen())).begin(2)
    assert seen == [("answers 2", 60), ("done", 60), ("end", 0)]


BUILDS_AND_DIES = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[3])
from train_answers import opened
from bantam.train import answers

original = answers.save_array
def save(path, values):
    if path.name.startswith("00001.embedding"):
        path.with_name(f".{path.name}.{os.getpid()}.tmp").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    original(path, values)
answers.save_array = save
cached = opened(Path(sys.argv[1]), Path(sys.argv[2]))
for view in range(3):
    cached.begin(view)
"""


def test_a_killed_build_goes_on_where_it_was(photographs: Path, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train_answers.py").write_text(Path(__file__).read_text())
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
    command = [sys.executable, "-c", BUILDS_AND_DIES, str(photographs), str(tmp_path / "views"), str(tmp_path / "code")]
    assert subprocess.run(command, env=environment, timeout=120).returncode == -signal.SIGKILL
    cached = opened(photographs, tmp_path / "views")
    assert [view for view in range(3) if cached.has(view)] == [0]
    kept = cached.path(0, "logits").stat().st_mtime_ns
    for view in range(3):
        cached.begin(view)
        cached.check(view)
    assert cached.path(0, "logits").stat().st_mtime_ns == kept
    assert not list(cached.folder.glob(".*.tmp"))


TAUGHT = (
    RECIPE.replace('kind = "student"', 'kind = "student"\nteacher = "teacher"\nviews = 2')
    .replace(
        "[[stage]]",
        """[[stage]]
name = "teacher"
kind = "teacher"
net = "resnet18"
size = 32
epochs = 1
batch_size = 20
precision = "fp32"
[stage.objectives.supervised]
weight = 1.0
[[stage]]""",
        1,
    )
    .replace("[stage.objectives.supervised]\nweight = 1.0\n", "[stage.objectives.kd]\nweight = 1.0\n")
    .replace("[stage.objectives.kd]", "[stage.objectives.supervised]", 1)
)


def test_a_run_with_cached_answers_follows_the_run_with_live_ones(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same views, same teacher: only float16's rounding of the answers may differ; weights that hardly move keep it."""
    recipe = parse(TAUGHT.replace("lr = 5e-3", "lr = 1e-4"))
    pipeline.run(recipe, photographs, tmp_path / "cached")

    class LiveInstead(Live):
        def __init__(self, *_: object) -> None:
            super().__init__(_[1])  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(stages, "ViewCache", LiveInstead)
    pipeline.run(recipe, photographs, tmp_path / "live")
    rows, live_rows = (read_rows(tmp_path / name / "stages/student/metrics.jsonl") for name in ("cached", "live"))
    assert len(rows) == 4
    for row, other in zip(rows, live_rows, strict=True):
        assert row["training"]["loss"] == pytest.approx(other["training"]["loss"], rel=1e-2)
        assert row["validation"]["cross_entropy"] == pytest.approx(other["validation"]["cross_entropy"], rel=1e-2)


def test_features_are_asked_live(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("feature maps were cached")

    monkeypatch.setattr(stages, "ViewCache", refuse)
    metrics = pipeline.run(
        parse(TAUGHT.replace("objectives.kd]", "objectives.attention]")), photographs, tmp_path / "r"
    )
    assert metrics["stages"]["student"]["epochs"] == 4


def test_the_answer_without_begin_is_a_defect(photographs: Path, tmp_path: Path) -> None:
    cached = opened(photographs, tmp_path)
    index = torch.arange(2)
    with pytest.raises(AssertionError, match="begin"):
        cached(torch.zeros(2, 3, 32, 32), index, index)


def damaged_view(cached: ViewCache, change: str) -> None:
    """Damage what is kept of view 1."""
    path = cached.path(1, "logits")
    data = path.read_bytes()
    values = np.load(path)
    if change == "one bit, outside of what is sampled":
        path.write_bytes(flipped(data, 8 * (len(data) - 1)))
    elif change == "zeros":
        path.write_bytes(data[:200] + bytes(len(data) - 200))
    elif change == "half":
        path.write_bytes(data[: len(data) // 2])
    elif change == "empty":
        path.write_bytes(b"")
    elif change == "garbage":
        path.write_bytes(b"\xff" * 300)
    elif change == "another shape":
        np.save(path, values[:7])
    elif change == "another type":
        np.save(path, values.astype(np.float64))
    elif change == "objects":
        np.save(path, np.array([{"x": 1}], dtype=object), allow_pickle=True)
    elif change == "another view's":
        path.write_bytes(cached.path(0, "logits").read_bytes())
    elif change == "no record":
        cached.record(1).unlink()
    elif change == "a damaged record":
        cached.record(1).write_bytes(flipped(cached.record(1).read_bytes(), 200))
    elif change == "another record":
        cached.record(1).write_text("[]")
    else:
        cached.path(1, "embedding").unlink()


@pytest.mark.parametrize(
    "change",
    [
        "one bit, outside of what is sampled", "zeros", "half", "empty", "garbage", "another shape", "another type",
        "objects", "another view's", "no record", "a damaged record", "another record", "no embedding",
    ],
)  # fmt: skip
def test_a_damaged_view_is_asked_for_again(change: str, photographs: Path, tmp_path: Path) -> None:
    said: list[str] = []

    class Said(Watcher):
        def say(self, text: str) -> None:
            said.append(text)

    first = opened(photographs, tmp_path)
    for view in range(2):
        first.begin(view)
    index = torch.arange(60)
    right = first(torch.zeros(60, 3, 32, 32), index, index)
    damaged_view(first, change)
    again = opened(photographs, tmp_path, place=Place(tmp_path, Said()))
    again.begin(0)
    assert not said
    again.begin(1)
    given = again(torch.zeros(60, 3, 32, 32), index, index)
    assert torch.equal(given.logits, right.logits)
    assert torch.equal(given.embedding, right.embedding)
    assert again.whole(1)
    if change not in ("no record", "no embedding"):  # not written to the end, so not damaged
        assert len(said) == 1
        assert "view 1" in said[0]
        assert "damaged" in said[0]


def test_answers_that_are_not_finite_are_not_kept(photographs: Path, tmp_path: Path) -> None:
    cached = opened(photographs, tmp_path)
    torch.nn.init.constant_(next(cached.teacher.parameters()), float("nan"))
    with pytest.raises(NotFinite):
        cached.begin(0)
    assert not list(cached.folder.glob("*.npy"))


DIES_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[3])
from train_answers import opened
from bantam.train import answers

place = sys.argv[4]
save = answers.np.save

def half(file, values):
    if place in file.name:
        file.write(b"half")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    save(file, values)

answers.np.save = half
if place == "record":
    answers.write_sealed = lambda path, value: os.kill(os.getpid(), signal.SIGKILL)
opened(Path(sys.argv[1]), Path(sys.argv[2])).begin(0)
"""


@pytest.mark.parametrize("place", ["embedding", "record"])
def test_a_kill_while_answers_are_written_leaves_none_that_are_used(
    place: str, photographs: Path, tmp_path: Path
) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train_answers.py").write_text(Path(__file__).read_text())
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
    arguments = [str(photographs), str(tmp_path / "views"), str(tmp_path / "code"), place]
    died = subprocess.run([sys.executable, "-c", DIES_WHILE_WRITING, *arguments], env=environment, timeout=240)
    assert died.returncode == -signal.SIGKILL
    cached = opened(photographs, tmp_path / "views")
    assert not cached.has(0)
    cached.begin(0)
    assert cached.whole(0)
    cached.check(0)
    assert not list(cached.folder.glob(".*.tmp"))
