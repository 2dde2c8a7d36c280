"""The space of a search: it contains the recipe, and every point of it is a recipe that loads."""

import dataclasses

import optuna
import pytest

from bantam.data.augment import Augmentation
from bantam.pipeline import run as pipeline
from bantam.pipeline.run import check
from bantam.recipes import recipe as recipes
from bantam.recipes.kinds.training import Augment
from bantam.recipes.recipe import Recipe
from bantam.search import space

SEARCHED = [name for name in recipes.shipped() if not space.refusal(recipes.load(name))]


def test_recipes_whose_student_is_no_fresh_net_are_refused_with_what_to_take_out() -> None:
    refused = {name: space.refusal(recipes.load(name)) for name in recipes.shipped() if name not in SEARCHED}
    assert {"simple", "quick", "strong", "takd"} <= set(SEARCHED)
    assert refused.keys() == {"boss", "exits", "slim"}
    assert 'take out start = "larger" of "last"' in refused["boss"]
    pretrained = recipes.load("strong", ["student.pretrained=food11"])
    assert 'take out pretrained = "food11" of "student"' in space.refusal(pretrained)
    assert 'take out "student", which changes another stage\'s net' in refused["exits"]
    assert "take out widths and sizes" in refused["slim"]


def without_name(recipe: Recipe) -> Recipe:
    return dataclasses.replace(recipe, name="same")


@pytest.mark.parametrize("name", SEARCHED)
def test_a_shipped_recipe_stands_in_its_own_space(name: str) -> None:
    base = recipes.load(name)
    drawn, standing = space.space(base), space.standing(base)
    assert standing.keys() == drawn.keys()
    for key, distribution in drawn.items():
        assert distribution._contains(distribution.to_internal_repr(standing[key])), key
    again = space.candidate(base, standing)
    assert again.name == f"{base.name}-search"
    if "teacher_share" not in drawn:
        assert without_name(again) == without_name(base)
    else:
        ours, theirs = again.shipped, base.shipped
        for objective, table in theirs.objectives.items():
            assert ours.objectives[objective] == pytest.approx(table)
        assert dataclasses.replace(ours, objectives=theirs.objectives) == theirs


@pytest.mark.parametrize("name", SEARCHED)
def test_every_drawn_point_is_a_recipe_that_loads(name: str) -> None:
    base = recipes.load(name)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(40):
        candidate = space.shortened(space.candidate(base, study.ask(space.space(base)).params))
        assert recipes.parse(recipes.dump(candidate)) == candidate
        pipeline.check(candidate)
        Augmentation(**vars(candidate.shipped.augment))


def test_a_candidate_takes_the_shape_choices_of_its_own_family() -> None:
    base = recipes.load("strong", ["student.net=largekernel", "student.shape.kernel=9"])
    drawn, standing = space.space(base), space.standing(base)
    assert standing["largekernel.kernel"] == 9
    assert drawn["largekernel.kernel"].to_internal_repr(5) == 2
    assert space.candidate(base, {**standing, "largekernel.gate": "relu"}).shipped.shape == {
        "kernel": 9,
        "gate": "relu",
    }
    assert space.candidate(base, {**standing, "family": "sample"}).shipped.shape == {}


def test_the_weights_of_teacher_and_labels_keep_their_sum() -> None:
    base = recipes.load("quick")
    objectives = base.shipped.objectives
    total = objectives["kd"]["weight"] + objectives["supervised"]["weight"]
    changed = space.candidate(base, {**space.standing(base), "teacher_share": 0.25}).shipped.objectives
    assert changed["kd"]["weight"] == pytest.approx(total / 4)
    assert changed["supervised"]["weight"] == pytest.approx(3 * total / 4)
    assert base.shipped.objectives == objectives


def test_strength_scales_what_an_augmentation_changes_and_stays_valid() -> None:
    augment = Augment(scale=(0.6, 1.0), rotation=10.0, hue=0.4, mixup=0.5, cutmix=0.5, erase=0.25)
    half, strong = space.strengthened(augment, 0.5), space.strengthened(augment, 1.5)
    assert half.scale == pytest.approx((0.8, 1.0))
    assert strong.scale == pytest.approx((0.4, 1.0))
    assert (half.rotation, strong.rotation) == (5.0, 15.0)
    assert (half.hue, strong.hue) == (0.2, 0.5)
    assert (half.mixup, half.erase, strong.erase) == (0.25, 0.125, 0.375)
    assert strong.mixup == strong.cutmix == pytest.approx(0.5)
    Augmentation(**vars(strong))
    assert space.strengthened(Augment(scale=(0.1, 0.2)), 1.5).scale == (0.08, 0.2)
    assert space.strengthened(Augment(scale=(0.05, 0.05)), 1.5).scale == (0.05, 0.05)


def test_a_recipe_at_the_end_of_every_range_has_valid_candidates_all_about_it() -> None:
    ends = ["optimizer.lr=1e30", "optimizer.weight_decay=1e30", "augment.brightness=1000", "augment.contrast=900"]
    ends += ["augment.rotation=180", "objectives.kd.temperature=1e6", "objectives.kd.weight=1e6"]
    ends += ["objectives.supervised.weight=1e6"]
    base = recipes.load("quick", [f"student.{setting}" for setting in ends])
    drawn, standing = space.space(base), space.standing(base)
    assert all(drawn[name]._contains(drawn[name].to_internal_repr(value)) for name, value in standing.items())
    for end in ("low", "high"):
        most = {name: getattr(one, end) for name, one in drawn.items() if hasattr(one, end)}
        for strength in space.STRENGTHS:
            check(space.candidate(base, {**standing, **most, "augmentation": strength}))
    assert "lr" not in space.space(recipes.load("quick", ["student.optimizer.lr=5e-324"]))


def test_the_short_training_asks_the_teacher_about_few_views() -> None:
    base = recipes.load("quick", ["student.epochs=60", "student.views=0"])
    short = space.shortened(base).shipped
    assert (short.epochs, short.views) == (12, space.SHORT_VIEWS)
    assert space.shortened(recipes.load("quick", ["student.epochs=2"])).shipped.epochs == 2
