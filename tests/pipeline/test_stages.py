"""Stages together: assistants that teach, several teachers with one voice, and the refit."""

import itertools
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bantam.data import augment, batches, cache
from bantam.errors import BadCheckpoint, BadRecipe, BudgetExceeded, SplitLeak
from bantam.measure.accuracy import accuracy
from bantam.measure.tta import logits_of_tta
from bantam.nets.students import describe
from bantam.nets.teachers import Ensemble, Mirrored
from bantam.pipeline import run as pipeline
from bantam.pipeline import stages
from bantam.recipes.recipe import parse
from bantam.runs.finished import load_shipped, open_run
from bantam.runs.runfolder import rows as read_rows
from bantam.runs.watcher import Watcher
from bantam.studies.audit import audit_run
from bantam.train import ahead, answers
from bantam.train.arithmetic import Arithmetic
from killed_run import assert_same
from tiny_run import RECIPE, write_photographs

STUDENT = RECIPE[RECIPE.index("[[stage]]") :]
HEAD = RECIPE[: RECIPE.index("[[stage]]")]
KD = "[stage.objectives.kd]\nweight = 1.0\n"


def assistant(name: str, budget: int, teacher: str = "") -> str:
    text = STUDENT.replace('name = "student"\nkind = "student"', f'name = "{name}"\nkind = "assistant"').replace(
        "epochs = 4", f"epochs = 2\nbudget = {budget}"
    )
    return text.replace("epochs", f'teacher = "{teacher}"\nepochs') + KD if teacher else text


def taught(teacher: str, keys: str = "") -> str:
    return STUDENT.replace("epochs = 4", f'teacher = "{teacher}"\n{keys}epochs = 2\nviews = 2') + KD


CHAIN = HEAD + assistant("large", 12_000) + assistant("middle", 8_000, "large") + taught("middle")
JOINT = HEAD + assistant("one", 8_000) + assistant("two", 12_000) + taught("one+two", "teacher_flip = true\n")
REFIT = '[[stage]]\nname = "again"\nkind = "refit"\nof = "student"\n'


@pytest.fixture(scope="module")
def chain(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("chain") / "run"
    pipeline.run(parse(CHAIN), photographs, out)
    return out


def test_assistants_have_budgets_of_their_own_and_are_not_shipped(chain: Path) -> None:
    metrics = json.loads((chain / "metrics.json").read_text())
    weights = {name: row["parameters"] for name, row in metrics["stages"].items()}
    assert 8_000 < weights["large"] <= 12_000
    assert 5_000 < weights["middle"] <= 8_000
    assert weights["student"] == metrics["parameters"]["unique"] <= 5_000
    net, _ = load_shipped(chain)
    assert sum(parameter.numel() for parameter in net.parameters()) == weights["student"]
    assert "kd" in read_rows(chain / "stages" / "middle" / "metrics.jsonl")[0]["training"]


def test_an_assistant_that_fits_nothing_is_refused_before_the_first_step(photographs: Path, tmp_path: Path) -> None:
    with pytest.raises(BudgetExceeded, match="budget"):
        pipeline.run(parse(CHAIN.replace("budget = 8000", "budget = 80")), photographs, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_every_teacher_of_a_run_is_audited(chain: Path, photographs: Path, tmp_path: Path) -> None:
    audits = audit_run(open_run(chain), photographs, 20, Watcher())
    assert list(audits) == ["large", "middle"]
    assert audits["large"].to_json()["looks"][1]["n"] == 20
    half = shutil.copytree(chain, tmp_path / "half")
    (half / "stages" / "middle" / "best.ckpt").unlink()
    with pytest.raises(BadCheckpoint, match="middle"):
        audit_run(open_run(half), photographs, 20, Watcher())


def test_a_run_in_which_nobody_teaches_has_nothing_to_audit(photographs: Path, tmp_path: Path) -> None:
    pipeline.run(parse(RECIPE, settings=["student.epochs=1"]), photographs, tmp_path / "run")
    with pytest.raises(BadRecipe, match="nobody teaches"):
        audit_run(open_run(tmp_path / "run"), photographs, 20, Watcher())


@pytest.mark.parametrize("mean", ["probabilities", "logits"])
def test_teachers_with_one_voice_and_mirror_images_are_cached(
    mean: str, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the view cache holds is the mean, written out, of four answers; another mean is another folder."""
    kept: list[answers.ViewCache] = []

    class Kept(answers.ViewCache):
        def build(self, view: int) -> None:
            super().build(view)
            kept.append(self)

    monkeypatch.setattr("bantam.pipeline.stages.ViewCache", Kept)
    text = JOINT.replace("teacher_flip", f'teacher_mean = "{mean}"\nteacher_flip')
    pipeline.run(parse(text), photographs, tmp_path / "run")
    cached = kept[0]
    assert all(one is cached for one in kept)
    assert isinstance(cached.teacher, Mirrored)
    assert isinstance(cached.teacher.teacher, Ensemble)
    index, answer = next(iter(cached.ask(0, batches.pairing(len(cached.training), cached.viewing.seed, 0)[:8])))
    with torch.no_grad():
        images, _ = augment.render(cached.training.images, index, 0, cached.viewing)
        said = torch.stack(
            [one.net(look) for one in cached.teacher.teacher.teachers for look in (images, images.flip(3))]  # pyright: ignore
        )
    expected = said.softmax(2).mean(0).log() if mean == "probabilities" else said.mean(0)
    torch.testing.assert_close(answer.logits.log_softmax(1), expected.log_softmax(1), rtol=1e-4, atol=1e-4)
    cached.begin(0)
    torch.testing.assert_close(cached(images, index, index).logits, answer.logits, rtol=2e-3, atol=5e-3)
    other = Mirrored(Ensemble(list(cached.teacher.teacher.teachers), "logits"), "probabilities")  # pyright: ignore
    assert answers.digest_of(other) != answers.digest_of(cached.teacher)
    assert answers.digest_of(cached.teacher.teacher) != answers.digest_of(cached.teacher)


def test_what_a_student_hears_from_several_is_audited_as_well(photographs: Path, tmp_path: Path) -> None:
    pipeline.run(parse(JOINT), photographs, tmp_path / "run")
    assert list(audit_run(open_run(tmp_path / "run"), photographs, 20, Watcher())) == [
        "one", "two", "one+two, with mirror image",
    ]  # fmt: skip


def test_a_refit_trains_on_both_splits_and_the_figures_stay_those_of_the_student(
    photographs: Path, tmp_path: Path
) -> None:
    plain = pipeline.run(parse(CHAIN), photographs, tmp_path / "plain")
    metrics = pipeline.run(parse(CHAIN + REFIT), photographs, tmp_path / "run")
    assert metrics["validation"] == plain["validation"]
    assert metrics["refit"]["images"] == 90
    assert "measures it no longer" in metrics["refit"]["note"]
    row = metrics["stages"]["again"]
    assert (row["kind"], row["of"], row["images"], row["best_epoch"]) == ("refit", "student", 90, 2)
    rows = read_rows(tmp_path / "run" / "stages" / "again" / "metrics.jsonl")
    assert [line["epoch"] for line in rows] == [1, 2]
    assert all("validation" not in line for line in rows)
    shipped, before = (torch.load(tmp_path / name / "student_best.ckpt") for name in ("run", "plain"))
    assert any(not torch.equal(value, before[name]) for name, value in shipped.items())
    net, about = load_shipped(tmp_path / "run")
    splits = cache.open_splits(photographs, 32)
    assert splits.evaluation is not None
    said = logits_of_tta(net, splits.evaluation, 32, about.normalisation, metrics["validation"]["views"]).argmax(1)
    lines = (tmp_path / "run" / "submission.csv").read_text().splitlines()[1:]
    assert [int(line.split(",")[1]) for line in lines] == said.tolist()


def test_a_refit_learns_what_only_validation_shows(tmp_path: Path) -> None:
    """A class that is in validation alone, but for one training image: only the refit can tell it."""
    root = write_photographs(tmp_path / "photos", training=30, validation=60)
    for path in (root / "training").glob("2_*.png"):
        if path.name != "2_2.png":
            path.unlink()
    text = RECIPE.replace("epochs = 4", "epochs = 12").replace("cutmix = 0.5", "")
    metrics = pipeline.run(parse(text + REFIT), root, tmp_path / "run")
    net, about = load_shipped(tmp_path / "run")
    validation = cache.open_splits(root, 32).validation
    refitted = accuracy(logits_of_tta(net, validation, 32, about.normalisation, "plain"), validation.labels)
    assert refitted.value > metrics["validation"]["plain"] + 0.1


def test_the_evaluation_split_is_refused_in_a_refit(photographs: Path) -> None:
    from bantam.data.splits import joined

    splits = cache.open_splits(photographs, 32)
    with pytest.raises(SplitLeak, match="a refit"):
        joined(splits.training, splits.evaluation)  # pyright: ignore
    both = joined(splits.training, splits.validation)
    assert len(both) == len(set(both.ids)) == 90
    assert torch.equal(both.images[60:], splits.validation.images)


def test_the_statistics_of_batchnorm_are_chosen_on_validation(chain: Path) -> None:
    judged = json.loads((chain / "metrics.json").read_text())["validation"]
    assert judged["by_batchnorm"][judged["batchnorm"]] == max(judged["by_batchnorm"].values())
    assert judged["accuracy"] == judged["by_views"][judged["views"]] == max(judged["by_views"].values())
    assert judged["plain"] == judged["by_views"]["plain"]
    assert judged["flip"] == (judged["views"] != "plain")


def test_a_run_from_before_a_key_was_added_goes_on(chain: Path, photographs: Path, tmp_path: Path) -> None:
    out = shutil.copytree(chain, tmp_path / "run")
    text, _, _ = (out / "recipe.toml").read_text().partition("\n# sha256")
    assert text.count("teacher_flip = false\n") == 3
    (out / "recipe.toml").write_text(text.replace("teacher_flip = false\n", ""))
    (out / "metrics.json").unlink()
    pipeline.run(parse(CHAIN), photographs, out)
    assert (out / "metrics.json").exists()


class Said(Watcher):
    """Keeps the lines that a person would see who asks how it is computed."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def explain(self, text: str) -> None:
        self.lines.append(text)


def test_no_stopwatch_changes_the_bits(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs with caches of their own, each with a clock by which the other way to take a step is the faster one."""
    monkeypatch.setattr(ahead, "TRIED", 2)
    text = RECIPE.replace('precision = "fp32"', 'precision = "auto"')
    found: list[str] = []
    for seconds in ((1, 2), (2, 1)):
        # A step without the second thread and one with it take turns; the clock is read before and after each.
        ticks = itertools.accumulate(itertools.cycle((0, seconds[0], 0, seconds[1])))
        monkeypatch.setattr(ahead, "time", SimpleNamespace(perf_counter=ticks.__next__))
        monkeypatch.setenv("BANTAM_CACHE", str(tmp_path / f"cache {seconds}"))
        watcher = Said()
        pipeline.run(parse(text), photographs, tmp_path / f"run {seconds}", watcher)
        found += [line for line in watcher.lines if "the next views are made" in line]
    assert ["does not pay" in line for line in found] == [True, False]
    assert_same(tmp_path / "run (1, 2)", tmp_path / "run (2, 1)")
    kept = [(tmp_path / f"run {which}" / "stages/student/probe.json").read_text() for which in ((1, 2), (2, 1))]
    assert kept[0] == kept[1]


def test_a_stage_keeps_its_arithmetic_and_says_where_it_may_not_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, stage, watcher = describe("mobilenet_v1", 5000, 3, 32).build(), parse(RECIPE).shipped, Said()
    chosen = stages.arithmetic_of(net, stage, tmp_path, watcher)
    (tmp_path / "last.ckpt").touch()
    monkeypatch.setattr(stages, "choose", None)  # nothing is chosen again
    assert stages.arithmetic_of(net, stage, tmp_path, watcher) == chosen
    assert not watcher.lines
    monkeypatch.setattr(stages, "machine", lambda: "another one")
    assert stages.arithmetic_of(net, stage, tmp_path, watcher) == chosen
    (line,) = watcher.lines
    assert line == f"student began on {chosen.machine}: here, on another one, its last bits may differ"
    # As an earlier version wrote it, on a machine that it did not name.
    old = {"precision": "bf16", "memory_format": "contiguous", "threads": 3, "why": "time of a step, ..."}
    (tmp_path / "probe.json").write_text(json.dumps(old))
    assert stages.arithmetic_of(net, stage, tmp_path, watcher) == Arithmetic(**old)  # pyright: ignore[reportArgumentType]
    assert len(watcher.lines) == 1


@pytest.mark.parametrize(("threads", "policy", "warned"), [(2, None, True), (2, "passive", False), (1, None, False)])
def test_threads_that_spin_are_told_of(
    threads: int, policy: str | None, warned: bool, photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if policy:
        monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    monkeypatch.setattr(stages, "choose", lambda *_: Arithmetic(threads=threads))
    watcher = Said()
    pipeline.run(parse(RECIPE.replace("epochs = 4", "epochs = 1")), photographs, tmp_path / "run", watcher)
    assert any("spin while they wait" in line for line in watcher.lines) is warned
