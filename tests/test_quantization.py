import json
import shutil
from pathlib import Path

import onnx
import pytest

from bantam import pipeline
from bantam.cascade import cascade, text
from bantam.compress import packed
from bantam.deliver.export import onnx_session
from bantam.errors import BadData, RunMismatch
from bantam.quantization import advice, quantize, require_teachers, table
from bantam.recipe import Recipe, parse
from bantam.train.runlog import Watcher
from tiny_run import RECIPE

TAUGHT = RECIPE.replace(
    "[[stage]]", '[[stage]]\nname = "big"\nkind = "teacher"\nnet = "resnet18"\nsize = 32\nepochs = 1\n'
    "[stage.objectives.supervised]\nweight = 1.0\n[[stage]]", 1
).replace('net = "mobilenet_v1"\n', 'net = "mobilenet_v1"\nteacher = "big"\n')  # fmt: skip


@pytest.fixture(scope="module")
def finished(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("finished") / "run"
    pipeline.run(parse(RECIPE), photographs, out)
    return out


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_a_teacher_that_is_not_there_is_missed_before_any_work(tmp_path: Path):
    recipe: Recipe = parse(TAUGHT)
    with pytest.raises(BadData, match='no weights of its teacher "big".*--epochs 0'):
        require_teachers(recipe, tmp_path)
    weights = tmp_path / "stages" / "big" / "best.ckpt"
    weights.parent.mkdir(parents=True)
    weights.touch()
    require_teachers(recipe, tmp_path)


def test_advice_follows_the_measured_times():
    def timed(milliseconds: float) -> dict[str, float]:
        return {"median_ms": milliseconds}

    assert "int8 answers 2.00 times as fast" in advice(timed(2.0), timed(1.0))
    assert "int8 is slower than fp32, by a factor of 1.50: use fp32 here" in advice(timed(1.0), timed(1.5))
    assert "equally fast" in advice(timed(1.0), timed(1.01))


def test_the_cascade_writes_its_curves(run: Path, photographs: Path):
    result = cascade(run, photographs, 1.0, None, Watcher())
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
        cascade(run, photographs, drop, confidence, Watcher())
    assert "\n" not in str(caught.value)
    assert not (run / "cascade").exists()


def test_missing_photographs_write_nothing(run: Path, tmp_path: Path):
    with pytest.raises(BadData):
        quantize(run, tmp_path / "nowhere", 0, Watcher())
    assert not (run / "quantized").exists()


@pytest.mark.slow
def test_all_forms_are_written_and_a_finished_training_is_taken_up(run: Path, photographs: Path):
    result = quantize(run, photographs, 1, Watcher())
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
    again = quantize(run, photographs, 1, Watcher())
    assert (folder / "int8-qat" / "best.ckpt").stat().st_mtime_ns == stamp
    assert [row["accuracy"] for row in again["rows"]] == [row["accuracy"] for row in result["rows"]]
    with pytest.raises(RunMismatch, match="delete the folder"):
        quantize(run, photographs, 2, Watcher())
