import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import torch

from bantam.compress import packed
from bantam.compress.integers import INT8, calibration_batches, post_training
from bantam.deliver.export.forms import onnx_session
from bantam.errors import BadCheckpoint, BadData, RunMismatch
from bantam.nets.output import Output, StagedNet
from bantam.nets.students import describe
from bantam.nets.teachers import Teacher, build_teacher
from bantam.pipeline import run as pipeline
from bantam.pipeline.stages import Run
from bantam.recipes.recipe import parse
from bantam.runs import runfolder
from bantam.runs.finished import open_run
from bantam.runs.runfolder import rows as read_rows
from bantam.runs.watcher import Watcher
from bantam.studies.cascade import cascade, text
from bantam.studies.quantize import (
    advice,
    in_training,
    quantize,
    require_teachers,
    table,
)
from bantam.train.answers import SAMPLED
from bantam.train.distributed import ALONE
from tiny_run import RECIPE

TAUGHT = RECIPE.replace(
    "[[stage]]", '[[stage]]\nname = "big"\nkind = "teacher"\nnet = "resnet18"\nsize = 32\nepochs = 1\n'
    "[stage.objectives.supervised]\nweight = 1.0\n[[stage]]", 1
).replace('net = "mobilenet_v1"\n', 'net = "mobilenet_v1"\nteacher = "big"\n')  # fmt: skip


GIVEN = (
    TAUGHT.replace(
        'kind = "teacher"\nnet = "resnet18"\nsize = 32\nepochs = 1\n[stage.objectives.supervised]\nweight = 1.0\n',
        'kind = "given_teacher"\narchitecture = "resnet18"\ncheckpoint = "teacher.ckpt"\nsize = 32\n',
    ).replace("epochs = 4\n", "epochs = 2\nviews = 2\n")
    + "[stage.objectives.kd]\nweight = 1.0\n"
)

# The training on integers with a checkpoint after every step; it kills itself before the step of the given number.
TRAINS_AND_DIES = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
import test_quantize
from bantam.train import loop
from bantam.train.step import Step

run, root, at = sys.argv[1:]
loop.SAVE_EVERY = 0.0
count, original = 0, Step.learn

def counted(*args):
    global count
    count += 1
    if count == int(at):
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args)

Step.learn = counted
test_quantize.trained_on_integers(Path(run), Path(root))
"""


def trained_on_integers(run: Path, root: Path) -> StagedNet:
    """What `bantam quantize --epochs 2` trains for int8."""
    opened = open_run(run)
    net, shipped = opened.at_switch()
    splits = opened.open_data(root, Watcher())
    batches = calibration_batches(splits.training, shipped.student.size, shipped.normalisation)
    start, _ = post_training(net, INT8, batches)
    here = Run(opened.recipe, root, run, splits, shipped.normalisation, torch.device("cpu"), Watcher(), ALONE, {})
    return in_training(start, "int8-qat", 2, here)


@pytest.fixture(scope="module")
def taught(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The shipped files of a run that a given teacher taught, and the photographs with this teacher beside them."""
    root, run = tmp_path_factory.mktemp("taught") / "photographs", tmp_path_factory.mktemp("taught") / "run"
    shutil.copytree(photographs, root)
    torch.manual_seed(0)
    torch.save(build_teacher("resnet18", 3).state_dict(), root / "teacher.ckpt")
    pipeline.run(parse(GIVEN), root, run)
    shutil.rmtree(run / "stages")
    return run, root


@pytest.fixture(scope="module")
def finished(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "run"
    pipeline.run(parse(RECIPE), photographs, out)
    return out


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_a_teacher_that_is_not_there_is_missed_before_any_work(tmp_path: Path):
    runfolder.write_recipe(tmp_path, parse(TAUGHT))
    with pytest.raises(BadData, match='no weights of its teacher "big".*--epochs 0'):
        require_teachers(open_run(tmp_path))
    weights = tmp_path / "stages" / "big" / "best.ckpt"
    weights.parent.mkdir(parents=True)
    weights.touch()
    require_teachers(open_run(tmp_path))


def test_advice_follows_the_measured_times():
    def timed(milliseconds: float) -> dict[str, float]:
        return {"median_ms": milliseconds}

    assert "int8 answers 2.00 times as fast" in advice(timed(2.0), timed(1.0))
    assert "int8 is slower than fp32, by a factor of 1.50: use fp32 here" in advice(timed(1.0), timed(1.5))
    assert "equally fast" in advice(timed(1.0), timed(1.01))


def test_the_cascade_writes_its_curves(run: Path, photographs: Path):
    result = cascade(open_run(run), photographs, 1.0, None, Watcher())
    folder = run / "cascade"
    assert json.loads((folder / "cascade.json").read_text()) == result
    assert {path.name for path in folder.iterdir()} == {"cascade.json", "cascade.csv", "cascade.svg"}
    static = [row for row in result["rows"] if row["kind"] == "static"]
    assert [row["pass"] for row in static] == ["16 px", "20 px", "24 px", "32 px"]
    assert result["chosen"]["pass"] == "16 px"  # every drop is allowed, so the smallest pass alone is the cheapest
    assert result["chosen"]["mean_macs"] == static[0]["mean_macs"]
    assert "fewer mean MACs" in text(result)


@pytest.mark.parametrize(
    ("drop", "confidence", "said"), [(0.0, 1.0, "no image reaches"), (0.0, 1.5, "0..1"), (-1, None, "0..1")]
)
def test_a_bad_threshold_writes_nothing(run: Path, photographs: Path, drop: float, confidence: float | None, said: str):
    with pytest.raises(BadData, match=said) as caught:
        cascade(open_run(run), photographs, drop, confidence, Watcher())
    assert "\n" not in str(caught.value)
    assert not (run / "cascade").exists()


def test_missing_photographs_write_nothing(run: Path, tmp_path: Path):
    empty = tmp_path / "empty"
    (empty / "training").mkdir(parents=True)
    (empty / "validation").mkdir()
    for root, said in ((tmp_path / "nowhere", "does not exist"), (empty, "holds no labelled image")):
        with pytest.raises(BadData, match=said) as caught:
            quantize(open_run(run), root, 0, Watcher())
        assert "\n" not in str(caught.value)
        assert not (run / "quantized").exists()


def test_weights_of_another_family_write_nothing(run: Path, photographs: Path):
    other = describe("largekernel", 5_000, 3, 32).shipped_net().state_dict()
    torch.save(other, run / "student_best.ckpt")
    with pytest.raises(BadCheckpoint, match="SHA-256 is another") as caught:
        quantize(open_run(run), photographs, 0, Watcher())
    assert "\n" not in str(caught.value)
    assert not (run / "quantized").exists()


def test_training_on_integers_looks_the_teacher_s_answers_up(
    taught: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The run asked about views 0 and 1; the training on integers comes to the same views, and only samples them."""
    run, root = Path(shutil.copytree(taught[0], tmp_path / "run")), taught[1]
    asked: list[int] = []
    observe = Teacher.observe

    def counted(self: Teacher, images: torch.Tensor) -> Output:
        asked.append(len(images))
        return observe(self, images)

    monkeypatch.setattr(Teacher, "observe", counted)
    trained_on_integers(run, root)
    assert asked == [SAMPLED, SAMPLED]
    assert SAMPLED < 60  # the training images, of which each would be asked about in each of the two epochs
    assert len(read_rows(run / "quantized" / "int8-qat" / "metrics.jsonl")) == 2
    assert not (run / "stages").exists()


def test_a_killed_training_on_integers_ends_with_the_same_bits(taught: tuple[Path, Path], tmp_path: Path):
    whole, killed = (Path(shutil.copytree(taught[0], tmp_path / name)) for name in ("whole", "killed"))
    paths = os.pathsep.join([*map(str, Path(__file__).parents[:2]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", TRAINS_AND_DIES, str(killed), str(taught[1]), "8"]
    ended = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": paths}, timeout=240, capture_output=True, text=True
    )  # fmt: skip
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert (killed / "quantized" / "int8-qat" / "last.ckpt").exists()
    again = trained_on_integers(killed, taught[1]).state_dict()
    assert not (killed / "quantized" / "int8-qat" / "last.ckpt").exists()
    for name, value in trained_on_integers(whole, taught[1]).state_dict().items():
        assert torch.equal(value, again[name]), name


@pytest.mark.slow
def test_all_forms_are_written_and_a_finished_training_is_taken_up(run: Path, photographs: Path):
    result = quantize(open_run(run), photographs, 1, Watcher())
    folder = run / "quantized"
    names = [row["name"] for row in result["rows"]]
    assert names == ["fp32", "int8-ptq", "int8-qat", "int4-ptq", "int4-qat"]
    assert json.loads((folder / "quantization.json").read_text()) == result
    for name in (*names, "int8"):
        onnx.checker.check_model(onnx.load(folder / f"{name}.onnx"))
        onnx_session((folder / f"{name}.onnx").read_bytes())
    packed.loads((folder / "int4.bantam4").read_bytes())
    assert (folder / "int8.onnx").read_bytes() == (folder / f"{result['chosen']['int8']}.onnx").read_bytes()
    assert len(table(result).splitlines()) == 9
    stamp = (folder / "int8-qat" / "best.ckpt").stat().st_mtime_ns
    again = quantize(open_run(run), photographs, 1, Watcher())
    assert (folder / "int8-qat" / "best.ckpt").stat().st_mtime_ns == stamp
    assert [row["accuracy"] for row in again["rows"]] == [row["accuracy"] for row in result["rows"]]
    with pytest.raises(RunMismatch, match="delete the folder"):
        quantize(open_run(run), photographs, 2, Watcher())
