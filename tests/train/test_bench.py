"""The breakdown of a step: all pieces, the same step as training takes, and a hint that fits."""

import json
import sys
import time
from pathlib import Path

import pytest
import torch

from bantam.cli import main as cli
from bantam.data import cache
from bantam.nets.teachers import Ensemble
from bantam.pipeline import run as pipeline
from bantam.recipes.recipe import parse
from bantam.train import bench
from bantam.train.answers import Answers, Live
from bantam.train.arithmetic import Arithmetic
from bantam.train.bench import PIECES, Breakdown, bench_train, time_step
from bantam.train.place import Place
from tiny_run import RECIPE, tiny_step

TAUGHT = (
    RECIPE.replace('kind = "student"', 'kind = "student"\nteacher = "t"').replace(
        "[[stage]]",
        '[[stage]]\nname = "t"\nkind = "given_teacher"\ncheckpoint = "none.ckpt"\nsize = 32\n[[stage]]',
        1,
    )
    + "[stage.objectives.kd]\nweight = 0.6\n"
)


def test_a_timed_step_is_the_step_of_training(photographs: Path) -> None:
    timed, plain = tiny_step(photographs), tiny_step(photographs)
    for number in range(3):
        index = torch.arange(10) + 10 * number
        time_step(timed, index)
        plain(index, torch.zeros_like(index))
    for name, value in plain.net.state_dict().items():
        assert torch.equal(timed.net.state_dict()[name], value), name
    assert timed.ema is not None
    assert plain.ema is not None
    assert torch.equal(timed.ema.net.head.weight, plain.ema.net.head.weight)
    assert timed.count == plain.count == 3


def test_what_is_slow_is_found(photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = tiny_step(photographs)
    time_step(step, torch.arange(10))
    backward = torch.Tensor.backward

    def slowly(tensor: torch.Tensor) -> None:
        time.sleep(0.5)
        backward(tensor)

    monkeypatch.setattr(torch.Tensor, "backward", slowly)
    seconds = time_step(step, torch.arange(10))
    assert tuple(seconds) == PIECES
    assert max(seconds, key=seconds.__getitem__) == "backward"
    assert seconds["backward"] >= 0.5
    assert seconds["teacher"] == 0
    assert sum(seconds.values()) - seconds["backward"] < 0.4


@pytest.mark.parametrize(("views", "cached"), [(0, False), (2, True)])
def test_a_teacher_is_asked_or_looked_up_as_the_recipe_says(views: int, cached: bool, photographs: Path) -> None:
    recipe = parse(TAUGHT, settings=[f"student.views={views}"])
    splits = cache.open_splits(photographs, 32)
    result = bench_train(recipe, splits, pipeline.goals_of(recipe.shipped), steps=2)
    assert result.cached is cached
    assert (result.batch, result.steps, result.device) == (10, 2, "cuda" if torch.cuda.is_available() else "cpu")
    assert all(result.seconds[piece] > 0 for piece in PIECES if piece != "augmentation")
    assert sum(result.share(piece) for piece in PIECES) == pytest.approx(1)


def test_only_the_images_that_are_shown_are_asked_about(photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Counting(bench.ViewCache):
        def build(self, view: int) -> None:
            asked.append(len(self.training))
            super().build(view)

    monkeypatch.setattr(bench, "ViewCache", Counting)
    recipe = parse(TAUGHT, settings=["student.views=2", "student.batch_size=4"])
    bench_train(recipe, cache.open_splits(photographs, 32), pipeline.goals_of(recipe.shipped), steps=2)
    assert asked == [4 * (bench.WARM_UP + 2)]


def test_an_ensemble_of_teachers_is_asked_live(photographs: Path) -> None:
    second = '[[stage]]\nname = "u"\nkind = "given_teacher"\ncheckpoint = "none.ckpt"\nsize = 32\n[[stage]]'
    text = TAUGHT.replace("[[stage]]", second, 1).replace('teacher = "t"', 'teacher = "t+u"')
    recipe = parse(text, settings=["student.views=0"])
    splits = cache.open_splits(photographs, 32)
    answers = bench.answers_for(recipe, recipe.shipped, splits.training, {}, torch.device("cpu"), Place(photographs))
    assert isinstance(answers, Live)
    assert isinstance(answers, Answers)
    assert isinstance(answers.teacher, Ensemble)


@pytest.mark.parametrize(
    ("slow", "cached", "says"),
    [
        ({"teacher": 8}, False, "the teacher takes 57.1%: set views = 64"),
        ({"data": 5}, True, "lower data.size"),
        ({"augmentation": 6}, True, "colour costs most"),
        ({"optimizer": 4}, True, "raise batch_size"),
        ({"forward": 20}, True, "the net itself takes"),
        ({"teacher": 8}, True, "the net itself takes"),
    ],
)
def test_the_hint_names_what_to_change(slow: dict[str, float], cached: bool, says: str) -> None:
    result = Breakdown(
        dict.fromkeys(PIECES, 1.0) | slow, 64, 20, "cpu", Arithmetic("fp32", "channels_last", 1, "asked for"), cached
    )
    if slow.get("teacher") and cached:
        result.seconds.update(dict.fromkeys(("data", "augmentation", "optimizer", "averaging"), 0.1))
    assert says in result.hint
    assert result.hint in result.text()
    assert result.to_json()["hint"] == result.hint
    assert json.dumps(result.to_json())


def test_the_command_prints_a_table_and_json(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(TAUGHT)
    command = ["bantam", "bench", "train", str(recipe), "--data", str(photographs), "--steps", "2"]
    for more in ([], ["--json"]):
        monkeypatch.setattr(sys, "argv", [*command, *more])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert not stopped.value.code
        out = capsys.readouterr().out
        if more:
            assert set(json.loads(out)["seconds"]) == set(PIECES)
        else:
            assert [line.split()[0] for line in out.splitlines()[1:8]] == list(PIECES)
            assert "hint: " in out
