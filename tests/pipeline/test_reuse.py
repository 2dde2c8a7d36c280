"""Stages of another run: taken where they are the same, refused where they are not, restored from what shipped."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from bantam.data import cache
from bantam.errors import BadData, BadRecipe
from bantam.measure.logits import logits_of
from bantam.measure.temperature import temperatures_of
from bantam.nets.teachers import build_teacher
from bantam.pipeline import run as pipeline
from bantam.recipes.keys import PRETRAINED
from bantam.recipes.recipe import parse
from bantam.runs import checkpoint
from bantam.runs.finished import FOOD11, MODELS, load_shipped, open_run
from bantam.runs.photographs import open_data
from bantam.runs.runfolder import rows as read_rows
from bantam.runs.watcher import Watcher
from tiny_run import RECIPE

HEAD, STUDENT = RECIPE[: RECIPE.index("[[stage]]")], RECIPE[RECIPE.index("[[stage]]") :]
LONGER = RECIPE + STUDENT.replace('name = "student"', 'name = "longer"').replace(
    "epochs = 4", 'start = "student"\nepochs = 2'
)


@pytest.fixture(scope="module")
def finished(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reused") / "run"
    pipeline.run(parse(RECIPE), photographs, out)
    return out


def shipped_only(run: Path, out: Path) -> Path:
    shutil.copytree(run, out, ignore=shutil.ignore_patterns("stages"))
    return out


def test_a_finished_stage_is_copied_and_the_next_starts_from_its_weights(
    finished: Path, photographs: Path, tmp_path: Path
) -> None:
    metrics = pipeline.run(parse(LONGER), photographs, tmp_path / "run", reuse=finished)
    mine, theirs = tmp_path / "run" / "stages", finished / "stages"
    assert (mine / "student" / "best.ckpt").read_bytes() == (theirs / "student" / "best.ckpt").read_bytes()
    assert (mine / "student" / "metrics.jsonl").read_bytes() == (theirs / "student" / "metrics.jsonl").read_bytes()
    assert [row["epoch"] for row in read_rows(mine / "longer" / "metrics.jsonl")] == [1, 2]
    assert metrics["stages"].keys() == {"student", "longer"}

    # Without --reuse the same recipe trains the first stage itself, to the same end.
    pipeline.run(parse(LONGER), photographs, tmp_path / "alone")
    ends = [checkpoint.load(tmp_path / name / "stages" / "longer" / "best.ckpt") for name in ("run", "alone")]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_it_starts_where_the_earlier_stage_ended(finished: Path, photographs: Path, tmp_path: Path) -> None:
    still = LONGER.replace("lr = 5e-3", "lr = 0.0").replace("epochs = 4", "epochs = 1", 1)
    pipeline.run(parse(still), photographs, tmp_path / "run")
    before, after = (
        checkpoint.load(tmp_path / "run" / "stages" / name / "best.ckpt") for name in ("student", "longer")
    )
    weights = [name for name in before if name.endswith("weight")]
    assert weights
    assert all(torch.equal(before[name], after[name]) for name in weights)


def test_a_pretrained_student_starts_from_the_model_that_comes_with_bantam(photographs: Path, tmp_path: Path) -> None:
    still = (
        RECIPE.replace("mobilenet_v1", "largekernel")
        .replace("lr = 5e-3", "lr = 0.0")
        .replace("epochs = 4", "epochs = 1")
    )
    still = still.replace("budget = 5000", "budget = 60000").replace("epochs = 1", 'pretrained = "food11"\nepochs = 1')
    metrics = pipeline.run(parse(still), photographs, tmp_path / "run")
    assert metrics["stages"]["student"]["pretrained"] == "food11"
    mine = checkpoint.load(tmp_path / "run" / "stages" / "student" / "best.ckpt")
    food = open_run(FOOD11)
    splits = open_data(parse(still), photographs, Watcher())
    theirs = food.unfolded(splits.training).state_dict()
    convolutions = [name for name, value in theirs.items() if value.ndim == 4]
    assert convolutions
    for name in convolutions:
        shared = tuple(slice(min(pair)) for pair in zip(mine[name].shape, theirs[name].shape, strict=True))
        assert torch.equal(mine[name][shared], theirs[name][shared]), name


def test_each_pretrained_model_is_there_and_of_its_family() -> None:
    assert PRETRAINED
    for name, family in PRETRAINED.items():
        assert open_run(MODELS / name).shipped.student.family == family


def test_a_student_comes_back_from_what_shipped(finished: Path, photographs: Path, tmp_path: Path) -> None:
    source = shipped_only(finished, tmp_path / "shipped")
    pipeline.run(parse(LONGER), photographs, tmp_path / "run", reuse=source)
    stage = tmp_path / "run" / "stages" / "student"
    assert json.loads((stage / "done.json").read_text())["restored"] == "from the shipped form"
    net, shipped = load_shipped(source)
    trained = shipped.student.build()
    trained.load_state_dict(checkpoint.load(stage / "best.ckpt"))
    split = cache.open_splits(photographs, 32).validation
    # Before its temperature: what learns on, or teaches, does so as the stage did that was trained.
    (temperature,) = temperatures_of(json.loads((source / "metrics.json").read_text())["validation"])
    assert temperature != 1
    wanted = logits_of(net, split, 32, shipped.normalisation) * temperature
    assert (logits_of(trained.eval(), split, 32, shipped.normalisation) - wanted).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("epochs = 4", "epochs = 5"), "no stage that is the same"),
        (("budget = 5000", "budget = 6000"), "no stage that is the same"),
        (("budget = 5000", "budget = 5000\nseed = 1"), "another seed"),
        (("scale = [0.6, 1.0]", "scale = [0.5, 1.0]"), "no stage that is the same"),
    ],
)
def test_what_is_not_the_same_is_not_taken(
    finished: Path, photographs: Path, tmp_path: Path, change: tuple[str, str], said: str
) -> None:
    with pytest.raises(BadData, match=said):
        pipeline.run(parse(RECIPE.replace(*change)), photographs, tmp_path / "run", reuse=finished)
    assert not (tmp_path / "run").exists()


def test_a_stage_is_another_where_its_teacher_is(photographs: Path, tmp_path: Path) -> None:
    taught = STUDENT.replace("epochs = 4", 'teacher = "first"\nepochs = 1') + "[stage.objectives.kd]\nweight = 1.0\n"
    first = STUDENT.replace('name = "student"\nkind = "student"', 'name = "first"\nkind = "assistant"\nbudget = 6000')
    chain = HEAD + first.replace("epochs = 4", "epochs = 1") + taught
    pipeline.run(parse(chain), photographs, tmp_path / "one")
    with pytest.raises(BadData, match="no stage that is the same"):
        other = chain.replace("epochs = 1", "epochs = 2", 1)
        pipeline.run(parse(other), photographs, tmp_path / "two", reuse=tmp_path / "one")


def test_no_run_is_named_as_such(photographs: Path, tmp_path: Path) -> None:
    with pytest.raises(BadData, match="holds no run whose stages could be reused"):
        pipeline.run(parse(RECIPE), photographs, tmp_path / "run", reuse=tmp_path / "nothing")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({'start = "student"': 'start = "stduent"'}, 'no earlier stage that has a net; did you mean "student"'),
        ({'start = "student"': 'start = "student"\npeers = 2'}, "peers start anew"),
        ({'net = "mobilenet_v1"\nsize = 32\nstart': 'net = "reparam"\nsize = 32\nstart'}, "must be the same net"),
    ],
)
def test_a_wrong_start_is_refused(changes: dict[str, str], said: str) -> None:
    text = LONGER
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    with pytest.raises(BadRecipe, match=said):
        parse(text)


def test_it_may_go_on_with_larger_views_in_the_same_shape(finished: Path, photographs: Path, tmp_path: Path) -> None:
    larger = LONGER.replace('size = 32\nstart = "student"\nepochs = 2', 'size = 40\nstart = "student"\nepochs = 1')
    assert larger != LONGER
    metrics = pipeline.run(parse(larger), photographs, tmp_path / "run", reuse=finished)
    _, shipped = open_run(tmp_path / "run").as_shipped()
    before = open_run(finished).shipped.student
    assert (shipped.student.size, shipped.student.shape) == (40, before.shape)
    assert metrics["stages"]["longer"]["epochs"] == 1

    with pytest.raises(BadRecipe, match='"longer" starts from "student", which has another shape than is fitted to 96'):
        pipeline.run(parse(larger.replace("size = 40", "size = 96")), photographs, tmp_path / "none", reuse=finished)
    assert not (tmp_path / "none").exists()


GOES_ON = """
[[stage]]
name = "given"
kind = "given_teacher"
architecture = "shufflenet_v2_x0_5"
checkpoint = "teacher.ckpt"
size = 32
[[stage]]
name = "on"
kind = "teacher"
net = "shufflenet_v2_x0_5"
start = "given"
size = 32
epochs = 1
[stage.optimizer]
lr = 0.0
[stage.objectives.supervised]
weight = 1.0
"""


def test_a_given_teacher_is_trained_on_from_its_weights(photographs: Path, tmp_path: Path) -> None:
    root = shutil.copytree(photographs, tmp_path / "root")
    given = build_teacher("shufflenet_v2_x0_5", 3)
    torch.save(given.state_dict(), root / "teacher.ckpt")
    pipeline.run(parse(HEAD + GOES_ON + STUDENT.replace("epochs = 4", "epochs = 1")), root, tmp_path / "run")
    trained = checkpoint.load(tmp_path / "run" / "stages" / "on" / "best.ckpt")
    assert all(torch.equal(value, trained[name]) for name, value in given.named_parameters())


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('kind = "teacher"\nnet = "shufflenet_v2_x0_5"', 'kind = "student"\nnet = "resnet"', 'kind = "teacher"'),
        ('net = "shufflenet_v2_x0_5"', 'net = "resnet18"', 'and net = "shufflenet_v2_x0_5"'),
        ("[[stage]]", '[data]\nnormalisation = "training"\n[[stage]]', 'normalisation = "imagenet"'),
    ],
)
def test_a_given_teacher_goes_on_as_itself_alone(old: str, new: str, said: str) -> None:
    text = 'name = "on"\n' + GOES_ON + STUDENT
    assert old in text
    with pytest.raises(BadRecipe, match=said):
        parse(text.replace(old, new, 1))
