"""One run with several widths: what it ships, and the commands that use them."""

import csv
import json
import shutil
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch
from PIL import Image

from bantam.cli import main as cli
from bantam.data import cache
from bantam.deliver.package.write import package
from bantam.errors import BadCheckpoint, BadData, BadPruning, BadRecipe
from bantam.measure.accuracy import accuracy
from bantam.measure.logits import logits_of
from bantam.nets.budget import weigh
from bantam.nets.footprint import footprint
from bantam.nets.slimmable import SwitchableNet
from bantam.nets.students import Student
from bantam.pipeline import run as pipeline
from bantam.pipeline.reuse import found
from bantam.pipeline.run import check
from bantam.recipes.recipe import dump, load, parse
from bantam.runs.finished import FOOD11, load_shipped, open_run
from bantam.runs.watcher import Watcher
from bantam.search.search import planned
from bantam.studies.cascade import cascade, text
from bantam.studies.cost import run_costs
from bantam.studies.prune import Source
from bantam.studies.slim import slim
from tiny_run import RECIPE

BOTH = RECIPE.replace("epochs = 4", "epochs = 6\nwidths = [0.5, 1.0]\nsizes = [20, 32]")


@pytest.fixture(scope="module")
def finished(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("slim") / "run"
    pipeline.run(parse(BOTH), photographs, out)
    return out


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def call(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["bantam", *map(str, words)])
    try:
        cli.main()
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


def test_one_checkpoint_serves_every_width(finished: Path, photographs: Path) -> None:
    metrics = json.loads((finished / "metrics.json").read_text())
    whole, shipped = open_run(finished).as_shipped()
    assert isinstance(whole, SwitchableNet)
    assert max(metrics["parameters"].values()) == weigh(whole, 32).counted <= 5000
    assert run_costs([open_run(finished)])[open_run(finished)].cost.weight == weigh(whole, 32)
    told = metrics["validation"]["by_switch"]
    assert [(row["width"], row["size"]) for row in told] == [(1.0, 32), (1.0, 20), (0.5, 32), (0.5, 20)]
    assert told[0]["plain"] == metrics["validation"]["plain"]
    validation = cache.open_splits(photographs, 32).validation
    full, _ = load_shipped(finished)
    for width, row in ((1.0, told[0]), (0.5, told[2])):
        net, ordinary = load_shipped(finished, width)
        assert not isinstance(net, SwitchableNet)
        assert ordinary.student.switches == ()
        logits = logits_of(net, validation, 32, shipped.normalisation)
        assert accuracy(logits, validation.labels).value == row["plain"]
    half, _ = load_shipped(finished, 0.5)
    assert weigh(half, 32).counted < weigh(full, 32).counted < weigh(whole, 32).counted
    assert footprint(half, 32).macs < 0.5 * footprint(full, 32).macs


def test_slim_tells_of_every_switch_and_draws_the_curves(run: Path, photographs: Path) -> None:
    result = slim(open_run(run), photographs, 1.0, None, Watcher())
    folder = run / "slim"
    assert {path.name for path in folder.iterdir()} == {"slim.json", "slim.csv", "slim.svg"}
    assert json.loads((folder / "slim.json").read_text()) == result
    static = [row for row in result["rows"] if row["kind"] == "static"]
    assert {row["pass"] for row in static} == {
        "width 0.5, 20 px", "width 0.5, 32 px", "width 1, 20 px", "width 1, 32 px",
    }  # fmt: skip
    assert [row["mean_macs"] for row in static] == sorted(row["mean_macs"] for row in static)
    told = {
        f"width {row['width']:g}, {row['size']} px": row["plain"]
        for row in json.loads((run / "metrics.json").read_text())["validation"]["by_switch"]
    }
    assert {row["pass"]: row["accuracy"] for row in static} == told
    assert static[-1]["mcnemar_p"] == 1.0
    assert static[-1]["mean_macs"] == footprint(load_shipped(run)[0], 32).macs
    # Every drop is allowed, so the cheapest pass alone is chosen.
    assert result["chosen"]["pass"] == "width 0.5, 20 px"
    assert result["chosen"]["mean_macs"] == static[0]["mean_macs"]
    assert "fewer mean MACs" in text(result)
    with open(folder / "slim.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == len(result["rows"]) == 4 + 3 * 21
    drawn = "".join(ElementTree.parse(folder / "slim.svg").getroot().itertext())
    assert "width 0.5, 20 px first" in drawn


def test_a_cascade_takes_the_sizes_that_the_student_was_trained_at(run: Path, photographs: Path) -> None:
    result = cascade(open_run(run), photographs, 0.003, None, Watcher())
    assert [row["pass"] for row in result["rows"] if row["kind"] == "static"] == ["20 px", "32 px"]
    assert [row["side"] for row in result["rows"] if row["kind"] == "static"] == [20, 32]
    by_switch = json.loads((run / "metrics.json").read_text())["validation"]["by_switch"]
    assert [row["accuracy"] for row in result["rows"][:2]] == [by_switch[1]["plain"], by_switch[0]["plain"]]


def test_predict_answers_at_a_width_and_a_size(
    monkeypatch, run: Path, photographs: Path, tmp_path: Path, capsys
) -> None:
    whole, half = tmp_path / "whole.csv", tmp_path / "half.csv"
    assert call(monkeypatch, "predict", run, "--data", photographs, "--out", whole) == 0
    assert whole.read_bytes() == (run / "submission.csv").read_bytes()
    at_half = tmp_path / "half-probabilities.csv"
    words = ("--width", 0.5, "--views", "plain", "--probabilities", at_half)
    assert call(monkeypatch, "predict", run, "--data", photographs, "--out", half, *words) == 0
    net, shipped = load_shipped(run, 0.5)
    evaluation = cache.open_splits(photographs, 32).evaluation
    assert evaluation is not None
    said = logits_of(net, evaluation, 32, shipped.normalisation)
    assert [int(line.split(",")[1]) for line in half.read_text().splitlines()[1:]] == said.argmax(1).tolist()
    assert len(at_half.read_text().splitlines()) == 13

    small = tmp_path / "small.csv"
    assert (
        call(monkeypatch, "predict", run, "--data", photographs, "--out", small, "--size", 20, "--views", "plain") == 0
    )
    whole_net, about = open_run(run).as_shipped()
    assert isinstance(whole_net, SwitchableNet)
    number = [(switch.width, switch.size) for switch in whole_net.switches].index((1.0, 20))
    with whole_net.using(number):
        said = logits_of(whole_net, evaluation, 32, about.normalisation)
    assert [int(line.split(",")[1]) for line in small.read_text().splitlines()[1:]] == said.argmax(1).tolist()
    ordinary, at_20 = load_shipped(run, size=20)
    assert at_20.student.size == 20
    torch.testing.assert_close(logits_of(ordinary, evaluation, 20, about.normalisation), said, rtol=1e-4, atol=1e-4)

    capsys.readouterr()
    photo = tmp_path / "plate.png"
    Image.linear_gradient("L").save(photo)
    answers: list[dict[str, float]] = []
    for words in ((), ("--width", "0.5", "--size", "20")):
        assert call(monkeypatch, "predict", photo, "--run", run, "--json", *words) == 0
        answers.append(json.loads(capsys.readouterr().out)[str(photo)])
    assert answers[0] != answers[1]


@pytest.mark.parametrize("words", [("RUN", "--data", "DIR"), ("PHOTO", "--run", "RUN")])
def test_a_width_that_is_not_there_is_refused_in_one_line(
    words: tuple[str, ...], monkeypatch, capsys, run: Path, photographs: Path, tmp_path: Path
) -> None:
    photo = next(photographs.rglob("*.png"))
    stands_for = {"RUN": run, "DIR": photographs, "PHOTO": photo}
    out = tmp_path / "none.csv"
    asked = [stands_for.get(word, word) for word in words]
    assert call(monkeypatch, "predict", *asked, "--width", "0.6", "--out", out) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "has no width 0.6 at 32 px; it has 0.5 at 20 px, 0.5 at 32 px, 1 at 20 px, 1 at 32 px" in error
    assert not out.exists()


def test_an_ordinary_student_has_one_width(monkeypatch, capsys, tmp_path: Path, photographs: Path) -> None:
    food = FOOD11
    photo = next(photographs.rglob("*.png"))
    assert call(monkeypatch, "predict", photo, "--width", "0.5") == 1
    assert "has no width 0.5 at 64 px; it has 1 at 64 px" in capsys.readouterr().err
    assert call(monkeypatch, "predict", photo, "--width", "1") == 0
    with pytest.raises(BadData, match="one width alone; `bantam run slim --data DIR") as caught:
        slim(open_run(food), photographs, 0.003, None, Watcher())
    assert "\n" not in str(caught.value)
    assert not (food / "slim").exists()


@pytest.mark.parametrize(
    ("drop", "confidence", "said"), [(0.0, 1.0, "no image reaches"), (0.0, 1.5, "0..1"), (-1, None, "0..1")]
)
def test_a_bad_threshold_writes_nothing(run: Path, photographs: Path, drop: float, confidence: float | None, said: str):
    with pytest.raises(BadData, match=said):
        slim(open_run(run), photographs, drop, confidence, Watcher())
    assert not (run / "slim").exists()


def test_the_package_hands_in_the_whole_width_as_an_ordinary_net(run: Path, tmp_path: Path) -> None:
    import zipfile

    made = package(run, tmp_path / "hw13.zip")
    net, _ = load_shipped(run)
    assert made.weight == weigh(net, 32)
    with zipfile.ZipFile(made.path) as archive, archive.open("student_best.ckpt") as file:
        weights = torch.load(file, weights_only=True)
    assert weights.keys() == net.state_dict().keys()
    assert all(torch.equal(value, weights[name]) for name, value in net.state_dict().items())


def test_pruning_and_searching_are_refused_in_one_line(run: Path, photographs: Path, tmp_path: Path) -> None:
    with pytest.raises(BadPruning, match="share their channels; prune an ordinary one") as caught:
        Source(run, "resnet18", 32).recipe()
    assert "\n" not in str(caught.value)
    with pytest.raises(BadRecipe, match="a search compares ordinary nets"):
        planned(parse(BOTH), photographs, tmp_path / "search", 1, None, Watcher(), 60)
    assert not (tmp_path / "search").exists()


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("widths = [0.5, 0.75]", "widths = [0.5, 0.75] must be different, above 0, and at most 1.0, one of them"),
        ("widths = [0.0, 1.0]", "above 0"),
        ("widths = [1.0, 1.0]", "must be different"),
        ("widths = 0.5", "must be a list"),
        ('widths = ["half"]', "must be a number"),
        ("sizes = [20, 40]", "sizes = [20, 40] must be different, above 0, and at most 32, one of them"),
        ("sizes = [4, 32]", "must lie in 8..32"),
        ("widths = [0.5, 1.0]\npeers = 2", "without peers"),
    ],
)
def test_wrong_widths_and_sizes_name_their_line(keys: str, words: str) -> None:
    objective = "[stage.objectives.dml]\nweight = 1.0\n" if "peers" in keys else ""
    with pytest.raises(BadRecipe) as caught:
        parse(RECIPE.replace("epochs = 4", f"epochs = 4\n{keys}") + objective, "x.toml")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_only_students_of_some_families_have_widths() -> None:
    with pytest.raises(BadRecipe, match='"largekernel" cannot share its weights between several widths'):
        check(parse(BOTH.replace("mobilenet_v1", "largekernel")))
    stage = BOTH[BOTH.index("[[stage]]") :]
    with pytest.raises(BadRecipe, match='one net of kind = "student"'):
        parse(BOTH.replace('kind = "student"', 'kind = "assistant"\nbudget = 900') + stage)
    pruned = stage.replace('"student"', '"small"', 1).replace(
        'kind = "student"\nnet = "mobilenet_v1"', 'kind = "prune"\nof = "student"\nto_params = 900'
    )
    with pytest.raises(BadRecipe, match='"small" cannot prune "student"'):
        parse(BOTH + pruned.replace("widths = [0.5, 1.0]\nsizes = [20, 32]\n", ""))


def test_widths_and_early_exits_do_not_go_together(finished: Path) -> None:
    stage = BOTH[BOTH.index("[[stage]]") :].replace('name = "student"', 'name = "early"')
    stage = stage.replace('kind = "student"\nnet = "mobilenet_v1"', 'kind = "exits"\nof = "student"\nafter = [2]')
    stage += "[stage.objectives.self_distillation]\nweight = 1.0\n"
    alone = stage.replace("widths = [0.5, 1.0]\nsizes = [20, 32]\n", "")
    for recipe, said in (
        (BOTH + alone, '"early" cannot give exits to "student", whose widths or sizes share their channels'),
        (RECIPE + stage, 'widths and sizes are for one net of kind = "student"'),
    ):
        with pytest.raises(BadRecipe, match=said) as caught:
            parse(recipe)
        assert "\n" not in str(caught.value)
    assert parse(RECIPE + alone).shipped.kind == "exits"
    described = {**open_run(finished).as_shipped()[1].student.to_json(), "exits": [2]}
    with pytest.raises(BadCheckpoint, match="several widths or sizes, and early exits") as refused:
        Student.from_json(described)
    assert "\n" not in str(refused.value)


def test_a_stage_starts_from_the_same_widths_alone() -> None:
    stage = BOTH[BOTH.index("[[stage]]") :].replace('name = "student"', 'name = "longer"\nstart = "student"')
    assert parse(BOTH + stage).shipped.start == "student"
    with pytest.raises(BadRecipe, match="widths or budget differs"):
        parse(BOTH + stage.replace("widths = [0.5, 1.0]", "widths = [0.25, 1.0]"))


def test_a_checkpoint_of_several_widths_is_no_finished_stage(run: Path, photographs: Path) -> None:
    """Its stages' folders gone, what it shipped does not become the form that trains again."""
    shutil.rmtree(run / "stages")
    fingerprint = cache.open_splits(photographs, 32).fingerprint
    with pytest.raises(BadData, match="has finished no stage that is the same"):
        found(open_run(run), parse(BOTH), fingerprint)


def test_the_shipped_recipe_serves_three_widths() -> None:
    recipe = load("slim")
    assert recipe.shipped.switches == ((1.0, 64), (0.75, 64), (0.5, 64))
    sizes = load("slim", ["student.widths=[1.0]", "student.sizes=[40, 48, 64]"])
    assert sizes.shipped.switches == ((1.0, 64), (1.0, 48), (1.0, 40))
    assert parse(dump(sizes)) == sizes
    assert load("medium").shipped.switches == ()
