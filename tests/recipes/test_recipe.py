import dataclasses
import math
import re
import tomllib
import typing
from pathlib import Path
from typing import Any

import pytest

import hostile_recipes
from bantam.data.augment import Augmentation
from bantam.errors import BadRecipe, BantamError
from bantam.pipeline.run import check
from bantam.recipes import recipe as recipes
from bantam.recipes.keys import Misfit
from bantam.recipes.kinds import STAGE_KINDS, Stage
from bantam.recipes.kinds.exiting import Exiting
from bantam.recipes.kinds.given_teacher import GivenTeacher
from bantam.recipes.kinds.pruning import Pruning
from bantam.recipes.kinds.training import VIEWS, Augment, Optimizer, Training
from bantam.recipes.recipe import (
    Data,
    dump,
    load,
    parse,
    shipped,
)

GOOD = """name = "x"

[[stage]]
name = "teacher"
kind = "given_teacher"
checkpoint = "a.ckpt"
size = 112

[[stage]]
name = "student"
kind = "student"
net = "sample"
size = 64
teacher = "teacher"
epochs = 3
[stage.optimizer]
lr = 1e-3
[stage.objectives.kd]
weight = 0.5
"""


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_recipe_loads_and_names_only_what_exists(name: str) -> None:
    loaded = load(name)
    assert loaded.name == name
    check(loaded)
    assert parse(dump(loaded)) == loaded


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_recipe_has_a_header_with_command_expectation_time_and_n(name: str) -> None:
    header = shipped()[name].read_text().split("\n\n")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    assert f"bantam run {name}" in header
    for word in ("expected", "time", " n ", "cores"):
        assert word in header.replace("\n", " ").replace("(n", " n "), word


def test_defaults_are_filled_in_and_whole_numbers_serve_as_numbers() -> None:
    loaded = parse(GOOD.replace("lr = 1e-3", "lr = 1"))
    teacher, student = loaded.stage
    assert isinstance(teacher, GivenTeacher)
    assert isinstance(student, Training)
    assert (loaded.budget, loaded.data.size, teacher.architecture) == (60_000, 64, "resnet18")
    assert student.optimizer.lr == 1.0
    assert isinstance(student.optimizer.lr, float)
    assert loaded.shipped is student


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("lr = ", "lrr = ", 17, ['unknown key "stage[1].optimizer.lrr"', 'did you mean "lr"', "peak learning rate"]),
        ("epochs = 3", 'epochs = "3"', 15, ["stage[1].epochs must be a whole number", "'3'"]),
        ("epochs = 3", "epochs = true", 15, ["must be a whole number", "true or false"]),
        ("epochs = 3", "epochs = 0", 15, ["epochs = 0 must be at least 1"]),
        ("epochs = 3", "epochs = 1000000000000", 15, ["epochs = 1000000000000 must be at most 10000"]),
        ('name = "x"', f'name = "x"\nbudget = 1{63 * "0"}', 2, ["budget = 1000", "is too large a number"]),
        ('name = "x"', 'name = "x"\nbudget = 1000000000', 2, ["budget = 1000000000 must be at most 100000000"]),
        ("lr = 1e-3", "lr = nan", 17, ["stage[1].optimizer.lr = nan must be a finite number"]),
        ("weight = 0.5", "weight = 0.5\ntemperature = inf", 20, ["kd.temperature = inf must be a finite number"]),
        ("epochs = 3", "epochs = 3\naugment = {mixup = 0.7, cutmix = 0.4}", 16, ["mixup = 0.7 and cutmix = 0.4"]),
        ("epochs = 3", "epochs = 3\naugment.scale = [0.9, 0.1]", 16, ["scale = [0.9, 0.1] must be [from, to]"]),
        ("epochs = 3", "epochs = 3\naugment.hue = 0.6", 16, ["hue = 0.6 must lie in 0..0.5"]),
        ("epochs = 3", "epoch = 3", 15, ['unknown key "stage[1].epoch"', 'did you mean "epochs"']),
        ("epochs = 3\n", "", 9, ['missing key "stage[1].epochs"', "passes over the training split"]),
        ("lr = 1e-3", 'lr = "fast"', 17, ["optimizer.lr must be a number"]),
        ("lr = 1e-3", 'name = "adam"', 17, ['did you mean "adamw"']),
        ("lr = 1e-3", "warmup = 2.0", 17, ["warmup = 2.0 must lie in 0..1"]),
        ('kind = "student"', 'kind = "studnt"', 11, ['did you mean "student"']),
        ('teacher = "teacher"', 'teacher = "techer"', 14, ['which no earlier stage is named; did you mean "teacher"']),
        ('name = "student"', 'name = "teacher"', 10, ['two stages are named "teacher"']),
        ("weight = 0.5", "temperature = 4.0", 18, ["objectives.kd needs weight"]),
        ("size = 112", "size = 1", 7, ["size = 1 must lie in 8..1024"]),
        ("size = 64", "size = 64\nbatch_size = 3", 14, ["batch_size = 3 must be even"]),
        ("weight = 0.5", "weight = [0.5]", 19, ["objectives.kd needs weight", "[from, to]"]),
        ("weight = 0.5", "weight = [0.5, -1]", 19, ["objectives.kd needs weight"]),
        ('kind = "student"', 'kind = "assistant"', 0, ["an assistant needs a budget of its own"]),
        ("epochs = 3", "epochs = 3\nbudget = 9", 16, ["a student has the recipe's"]),
        ("epochs = 3", "epochs = 3\npeers = 2", 16, ["objectives.dml is for 2 peers or more"]),
        ("objectives.kd", "objectives.dml", 0, ["peers = 1 is not valid"]),
        ("epochs = 3", 'epochs = 3\nteacher_mean = "median"', 16, ["teacher_mean", "valid"]),
        ('name = "x"', 'name = "x"\nbudget = 0', 2, ["budget = 0 must be at least 1"]),
        ('name = "x"', 'name = "x"\ndata = 3', 2, ["data must be a table"]),
        ('name = "x"', 'name = ', 1, ["not valid TOML"]),
    ],
)  # fmt: skip
def test_an_error_names_line_key_and_nearest_name(old: str, new: str, line: int, words: list[str]) -> None:
    with pytest.raises(BadRecipe) as raised:
        parse(GOOD.replace(old, new, 1), "x.toml")
    message = str(raised.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    if line and "TOML" not in message:
        assert message.startswith(f"x.toml:{line}:")


def test_settings_reach_top_level_tables_and_stages_by_name() -> None:
    changed = parse(GOOD, settings=["seed=3", "data.size=32", "student.optimizer.lr=0.1", "student.net=mobilenet_v1"])
    student = changed.shipped
    assert (changed.seed, changed.data.size, student.optimizer.lr, student.net) == (
        3,
        32,
        0.1,
        "mobilenet_v1",
    )
    with pytest.raises(BadRecipe, match='did you mean "student"'):
        parse(GOOD, settings=["studnt.epochs=1"])
    with pytest.raises(BadRecipe, match="key=value"):
        parse(GOOD, settings=["epochs"])
    with pytest.raises(BadRecipe, match="unknown key"):
        parse(GOOD, settings=["student.epoch=1"])


@pytest.mark.parametrize(
    ("setting", "meant"),
    [
        ("assistant.epochs=3", ["large.epochs", "middle.epochs"]),
        ("assistant.lr=3", ["large.optimizer.lr", "middle.optimizer.lr"]),
        ("assistant.epoch=3", ["large.epochs", "middle.epochs"]),
        ("given_teacher.size=96", ["teacher.size"]),
        ("epochs=3", ["large.epochs", "middle.epochs", "student.epochs"]),
        ("stage.epochs=3", ["large.epochs", "middle.epochs", "student.epochs"]),
        ("normalisation=training", ["data.normalisation"]),
        ("student.temperature=2", ["student.objectives.kd.temperature"]),
        ("optimizer.lr=0.1", ["large.optimizer.lr", "middle.optimizer.lr", "student.optimizer.lr"]),
    ],
)
def test_a_setting_that_there_is_not_is_answered_with_those_that_were_meant(setting: str, meant: list[str]) -> None:
    """Each of them can be set as it is named."""
    with pytest.raises(BadRecipe) as refused:
        load("takd", [setting])
    assert re.findall(r'"([^"]*)"', str(refused.value).split("did you mean ")[1]) == meant
    for name in meant:
        load("takd", [f"{name}={setting.partition('=')[2]}"])


def test_a_setting_that_is_like_nothing_gets_no_guess() -> None:
    for setting in ("foo.bar=1", "epochz.q=1", "teacher.epochs=3"):
        with pytest.raises(BadRecipe) as refused:
            load("takd", [setting])
        assert "did you mean" not in str(refused.value)


def test_views_repeat_where_a_teacher_is_asked_and_stay_fresh_where_none_is() -> None:
    assert parse(GOOD).shipped.views == VIEWS
    assert parse(GOOD.replace("epochs = 3", "epochs = 3\nviews = 0")).shipped.views == 0
    assert parse(GOOD, settings=["student.views=5"]).shipped.views == 5
    alone = GOOD.replace('teacher = "teacher"\n', "").replace("objectives.kd", "objectives.supervised")
    assert parse(alone).shipped.views == 0
    with pytest.raises(BadRecipe, match=r'unknown key "[^"]*teacher"'):
        parse(GOOD.replace("size = 112", 'size = 112\nteacher = "other"'))


def test_a_missing_recipe_names_the_nearest() -> None:
    with pytest.raises(BadRecipe, match='did you mean "medium"'):
        load("medum")
    with pytest.raises(BadRecipe, match="cannot read the recipe nowhere.toml"):
        load("nowhere.toml")


def test_a_recipe_without_a_student_is_refused() -> None:
    with pytest.raises(BadRecipe, match="nothing would be shipped"):
        parse(GOOD[: GOOD.index('[[stage]]\nname = "student"')])


def test_the_recipe_knows_every_augmentation_and_its_default() -> None:
    ours = {item.name: item.default for item in dataclasses.fields(Augment)}
    theirs = {item.name: item.default for item in dataclasses.fields(Augmentation)}
    assert ours == theirs


def refused(kind: type[Any], **values: Any) -> bool:
    try:
        kind(**values)
    except ValueError:
        return True
    return False


def test_the_recipe_refuses_the_augmentations_that_the_views_refuse() -> None:
    """Just within and just beyond each end of each range, and what two values must be to one another."""
    inf, nan = math.inf, math.nan
    cases: list[dict[str, Any]] = []
    for item in dataclasses.fields(Augment):
        valid = item.metadata["range"]
        ends = [valid.least, valid.most, math.nextafter(valid.least, -inf), math.nextafter(valid.most, inf), nan, inf]
        for value in (*ends, -inf, -1.0, 0.0, 0.3, 1.0, 2.0):
            pairs = [(value, 1.0), (0.1, value), (value, value)]
            cases += [{item.name: one} for one in (pairs if item.name in ("scale", "ratio") else [value])]
    cases += [{"mixup": 0.5, "cutmix": 0.5}, {"mixup": 0.5, "cutmix": math.nextafter(0.5, 1)}]
    cases += [{"scale": (0.5, 0.4)}, {"ratio": (2.0, 1.0)}, {"scale": (5e-324, 1.0)}]
    for case in cases:
        assert refused(Augment, **case) == refused(Augmentation, **case), case
    assert sum(refused(Augment, **case) for case in cases) > 60


def test_every_number_of_a_recipe_has_a_range() -> None:
    for kind in (recipes.Recipe, Data, Augment, Optimizer, GivenTeacher, Training, Pruning, Exiting):
        types = typing.get_type_hints(kind)
        for item in dataclasses.fields(kind):
            numbers = types[item.name] in (int, float) or typing.get_origin(types[item.name]) is tuple
            if numbers and item.name != "stage":
                valid = item.metadata["range"]
                assert -math.inf < valid.least < valid.most < math.inf, f"{kind.__name__}.{item.name}"
    with pytest.raises(Misfit, match="lr = nan must be at most"):
        Optimizer(lr=math.nan)


def test_hostile_recipes_are_refused_in_one_line_that_says_where(tmp_path: Path) -> None:
    (tmp_path / "good.toml").write_bytes(hostile_recipes.PLAIN)
    assert hostile_recipes.by_name(tmp_path / "good.toml", []) == ""
    found = hostile_recipes.tried(tmp_path, hostile_recipes.by_name)
    assert len(found) > 1000
    assert not {name: reason for name, reason in found.items() if reason}


def test_hostile_recipes_leave_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few of them, at the command line."""
    monkeypatch.setattr(hostile_recipes, "FILES", dict(list(hostile_recipes.FILES.items())[::150]))
    monkeypatch.setattr(hostile_recipes, "SETTINGS", dict(list(hostile_recipes.SETTINGS.items())[::10]))
    found = hostile_recipes.tried(tmp_path, hostile_recipes.by_command)
    assert not {name: reason for name, reason in found.items() if reason}


@pytest.mark.parametrize("change", [lambda text: "\ufeff" + text, lambda text: text.replace("\n", "\r\n")])
def test_a_file_as_windows_writes_it_is_read(change: Any, tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(change(GOOD).encode())
    assert load(str(path)) == parse(GOOD)
    path.write_bytes(change(GOOD.replace("epochs = 3", "epochs = 0")).encode())
    with pytest.raises(BadRecipe, match=r"x\.toml:15: stage\[1\]: epochs = 0 must be at least 1"):
        load(str(path))


@pytest.mark.parametrize(
    ("settings", "place", "value"),
    [
        (["student.net=mobilenet_v1"], ("stage", 1, "net"), "mobilenet_v1"),
        ([' student . net = "mobilenet_v1" '], ("stage", 1, "net"), "mobilenet_v1"),
        (["teacher.checkpoint=a # b.ckpt"], ("stage", 0, "checkpoint"), "a # b.ckpt"),
        (['teacher.checkpoint="a # b.ckpt"'], ("stage", 0, "checkpoint"), "a # b.ckpt"),
        (["teacher.checkpoint=ä=b.ckpt"], ("stage", 0, "checkpoint"), "ä=b.ckpt"),
        (['student.teacher=""', "student.objectives={supervised={weight=1}}"], ("stage", 1, "teacher"), ""),
        (["student.augment.scale=[0.5, 1]"], ("stage", 1, "augment", "scale"), (0.5, 1.0)),
        (["student.augment={mixup=0.5}"], ("stage", 1, "augment", "mixup"), 0.5),
        (["student.epochs=1_000"], ("stage", 1, "epochs"), 1000),
        (["seed=1", "seed=2"], ("seed",), 2),
        (["student.optimizer.lr=1", "student.optimizer={clip=1}"], ("stage", 1, "optimizer", "lr"), 2e-3),
    ],
)
def test_what_a_setting_may_be(settings: list[str], place: tuple[str | int, ...], value: Any) -> None:
    found: Any = parse(GOOD, settings=settings)
    for part in place:
        found = found[part] if isinstance(part, int) else getattr(found, part)
    assert found == value


def test_an_error_of_a_setting_names_the_setting_and_not_a_line() -> None:
    for setting, words in {
        "student.optimizer.lr=nan": "stage[1].optimizer.lr = nan must be a finite number",
        "student.epochs=0": "stage[1]: epochs = 0 must be at least 1",
        "student.epochs=3 # three": "stage[1].epochs must be a whole number, not a text in quotes ('3 # three')",
        "student.optimizer={lr=-1}": "stage[1].optimizer: lr = -1.0 must be at least 0",
        "student.teacher=techer": 'stage "student" asks for the teacher "techer", which no earlier stage is named; '
        'did you mean "teacher"?',
    }.items():
        with pytest.raises(BadRecipe) as raised:
            parse(GOOD, "x.toml", [setting])
        assert str(raised.value) == f"--set {setting}: {words}"
    with pytest.raises(BadRecipe, match=r"^--set seed=1\\nbudget=5: must be one line"):
        parse(GOOD, "x.toml", ["seed=1\nbudget=5"])


def test_an_error_never_moves_the_cursor() -> None:
    assert str(BantamError("no \x1b[2J file\n\u202e ä 日本 \ud800")) == "no \\x1b[2J file\\n\\u202e ä 日本 \\ud800"


def test_every_key_says_what_it_means() -> None:
    for kind in (recipes.Recipe, Data, Augment, Optimizer, GivenTeacher, Training):
        for item in dataclasses.fields(kind):
            assert len(item.metadata["sense"]) > 10, f"{kind.__name__}.{item.name}"


def test_dump_is_toml_that_holds_every_key() -> None:
    written = tomllib.loads(dump(parse(GOOD)))
    assert written["stage"][1]["augment"]["scale"] == [1.0, 1.0]
    assert set(written["stage"][1]) == {item.name for item in dataclasses.fields(Training)}


REFIT = '\n[[stage]]\nname = "again"\nkind = "refit"\nof = "student"\n'


def test_a_refit_is_the_last_stage_and_repeats_what_is_shipped() -> None:
    loaded = parse(GOOD + REFIT)
    assert loaded.refit is loaded.stage[-1]
    assert loaded.shipped.name == "student"
    assert parse(dump(loaded)) == loaded
    assert parse(GOOD).refit is None
    with pytest.raises(BadRecipe, match='must be the only one, the last stage, and of = "student"'):
        parse(GOOD + REFIT.replace('"student"', '"teacher"'))
    with pytest.raises(BadRecipe, match="must be the only one"):
        parse(GOOD + REFIT + REFIT.replace('"again"', '"twice"'))


def test_a_refit_cannot_teach() -> None:
    student = GOOD[GOOD.index('[[stage]]\nname = "student"') :]
    pupil = student.replace('"student"\nkind', '"pupil"\nkind').replace('teacher = "teacher"', 'teacher = "again"')
    with pytest.raises(BadRecipe, match="has trained on validation and cannot teach"):
        parse(GOOD + REFIT + pupil)


def test_a_shape_is_read_kept_and_checked_against_its_family() -> None:
    chosen = load("strong", ["student.net=largekernel", "student.shape.kernel=9", "student.shape.gate=relu"])
    assert chosen.shipped.shape == {"kernel": 9, "gate": "relu"}
    assert parse(dump(chosen)) == chosen
    check(chosen)
    with pytest.raises(BadRecipe, match='"largekernel" has no kernel = 4: it has 7, 3, 5, 9'):
        check(load("strong", ["student.net=largekernel", "student.shape.kernel=4"]))
    with pytest.raises(BadRecipe, match="must be a table, not a whole number"):
        load("strong", ["student.shape=4"])
    with pytest.raises(BadRecipe, match='shape is not valid for kind = "teacher"'):
        load("demo", ["teacher.shape.kernel=9"])


def test_a_pretrained_start_is_of_the_same_family_and_the_only_one() -> None:
    assert load("strong", ["student.pretrained=food11"]).shipped.pretrained == "food11"
    with pytest.raises(BadRecipe, match=r'pretrained = "food11" is not valid for net = "mobilenet_v1".*a largekernel'):
        load("quick", ["student.pretrained=food11"])
    with pytest.raises(BadRecipe, match='there are "food11"'):
        load("strong", ["student.pretrained=cars"])
    for recipe, key in (("boss", "boss"), ("slim", "student")):
        with pytest.raises(BadRecipe, match="one student of one width and size that starts from no earlier stage"):
            load(recipe, [f"{key}.net=largekernel", f"{key}.pretrained=food11"])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Note(Stage):
    """A kind of stage without a net."""


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"student": 'teacher = "note"'}, 'stage "student": "note" has no net that could teach'),
        ({"student": 'start = "note"'}, '"note", which is no earlier stage that has a net'),
        (
            {"student": 'kind = "prune"\nof = "note"\nto_params = 9'},
            'stage "student" starts from "note", which has no net',
        ),
        ({"note": "size = 3"}, 'unknown key "stage[0].size"'),
        ({}, ""),
    ],
)
def test_a_kind_of_stage_without_a_net(monkeypatch: pytest.MonkeyPatch, changed: dict[str, str], words: str) -> None:
    monkeypatch.setitem(STAGE_KINDS.entries, "note", "this test's")
    monkeypatch.setitem(STAGE_KINDS.found, "note", Note)
    student = changed.get("student", "")
    text = (
        f'name = "x"\n[[stage]]\nname = "note"\nkind = "note"\n{changed.get("note", "")}\n'
        f'[[stage]]\nname = "student"\n{student}\nsize = 32\nepochs = 1\n'
        + ("" if "kind" in student else 'kind = "student"\nnet = "mobilenet_v1"\n')
        + "[stage.objectives.supervised]\nweight = 1.0\n"
    )
    if not words:
        assert [stage.kind for stage in parse(text).stage] == ["note", "student"]
        return
    with pytest.raises(BadRecipe, match=re.escape(words)):
        parse(text)


def test_what_could_be_shipped_is_named_from_the_table() -> None:
    with pytest.raises(BadRecipe, match='no stage has kind = "student", "prune" or "exits", so nothing would be shipp'):
        parse('name = "x"\n[[stage]]\nname = "t"\nkind = "given_teacher"\ncheckpoint = "a.ckpt"\nsize = 112\n')
