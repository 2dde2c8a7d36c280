import json
import random

import pytest
import torch
from torch import nn

from bantam.errors import BadCheckpoint, BadRecipe, BudgetExceeded
from bantam.nets.budget import weigh
from bantam.nets.students import STUDENTS, Student, describe, family, mixedkernel

FITTED = [name for name in STUDENTS if name != "sample"]
BUDGETS = [5_000, 20_000, 60_000, 500_000]
CLASSES = [2, 11, 100]
SIZES = [32, 64, 224]

GRID = [
    (budget, classes, SIZES[(row + column) % len(SIZES)])
    for row, budget in enumerate(BUDGETS)
    for column, classes in enumerate(CLASSES)
]
"""A Latin square: every budget, number of classes and size of input meets every value of the other two."""


def every_student() -> list[Student]:
    """Every family in the table with every row of the grid."""
    fitted = [describe(name, *row) for name in FITTED for row in GRID]
    return fitted + [describe("sample", 70_000, classes, size) for classes in CLASSES for size in SIZES]


def name_of(student: Student) -> str:
    return f"{student.family}-{student.classes}-{student.size}-{student.shape}"


def shipped_weight(student: Student) -> int:
    """The larger count of what is shipped; the pass through it runs on shapes alone, so any size is fast."""
    return weigh(student.shipped_net().to("meta"), student.size).counted


@pytest.mark.parametrize(("budget", "classes", "size"), GRID)
@pytest.mark.parametrize("name", FITTED)
def test_both_counts_fill_the_budget(name: str, budget: int, classes: int, size: int):
    assert 0.995 * budget <= shipped_weight(describe(name, budget, classes, size)) <= budget


@pytest.mark.parametrize("name", FITTED)
def test_any_budget_and_any_number_of_classes_is_filled(name: str):
    chosen = random.Random(0)
    for _ in range(6):
        budget = int(5_000 * 100 ** chosen.random())  # log-uniform in 5,000..500,000
        classes = chosen.randint(2, 120)
        student = describe(name, budget, classes, chosen.randint(32, 224))
        assert 0.995 * budget <= shipped_weight(student) <= budget, (budget, classes)


@pytest.mark.parametrize("student", every_student(), ids=name_of)
def test_descriptions_survive_json(student: Student):
    assert Student.from_json(json.loads(json.dumps(student.to_json()))) == student


@pytest.mark.parametrize("size", [32, 48, 112, 224])
@pytest.mark.parametrize("name", FITTED)
def test_the_last_map_is_about_as_large_as_the_family_wants_it(name: str, size: int):
    with torch.device("meta"):
        net = describe(name, 5_000, 11, size).build().eval()
        height, width = net.observe(torch.zeros(1, 3, size, size)).features[-1].shape[-2:]
    about = mixedkernel.LAST_MAP if name == "mixedkernel" else 8
    assert 0.75 * about <= height == width <= 1.25 * about


@pytest.mark.parametrize(("classes", "size"), list(zip(CLASSES, SIZES, strict=True)))
@pytest.mark.parametrize("name", STUDENTS)
def test_observe_gives_the_shapes_of_the_contract(name: str, classes: int, size: int):
    net = describe(name, 60_000 if name in FITTED else 70_000, classes, size).build().eval()
    output = net.observe(torch.randn(2, 3, size, size))

    assert output.logits.shape == (2, classes)
    assert output.embedding.shape == (2, net.head.in_features)
    assert len(output.features) == len(net.stages)
    sides = [maps.shape[-1] for maps in output.features]
    assert all(maps.ndim == 4 and len(maps) == 2 for maps in output.features)
    assert sides == sorted(sides, reverse=True)


@pytest.mark.parametrize("budget", BUDGETS)
@pytest.mark.parametrize("name", STUDENTS)
def test_gradients_reach_every_parameter(name: str, budget: int):
    torch.manual_seed(0)
    net = describe(name, max(budget, 60_000) if name == "sample" else budget, 11, 32).build()
    nn.functional.cross_entropy(net(torch.randn(8, 3, 32, 32)), torch.arange(8)).backward()
    for parameter_name, parameter in net.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("name", STUDENTS)
def test_weights_and_description_restore_the_student(name: str):
    student = describe(name, 60_000, 11, 64)
    net = student.build()
    net(torch.randn(4, 3, 64, 64))  # moves BatchNorm's statistics
    twin = Student.from_json(student.to_json()).build()
    twin.load_state_dict(net.state_dict(), strict=True)

    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(net.eval()(images), twin.eval()(images))


@pytest.mark.parametrize("name", STUDENTS)
def test_channels_last_and_contiguous_images_give_the_same_logits(name: str):
    net = describe(name, 60_000, 11, 64).build().eval()
    images = torch.randn(2, 3, 64, 64)
    expected = net(images)
    net = net.to(memory_format=torch.channels_last)
    torch.testing.assert_close(net(images.contiguous(memory_format=torch.channels_last)), expected)


@pytest.mark.parametrize("name", STUDENTS)
def test_every_entry_names_itself_and_its_paper(name: str):
    assert family(name).name == name
    assert any(year in family(name).paper for year in map(str, range(2010, 2030)))


@pytest.mark.parametrize("name", STUDENTS)
@pytest.mark.parametrize("budget", [-1, 0, 100])
def test_an_impossible_budget_says_what_the_smallest_net_needs(name: str, budget: int):
    with pytest.raises(BudgetExceeded, match=rf"{name} .*needs [\d,]+ parameters.* {budget}:") as caught:
        describe(name, budget, 11, 64)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", ["mobilnet_v1", "MobileNet_v1", "mobilenet-v1"])
def test_an_unknown_family_is_answered_with_the_nearest_name(wrong: str):
    with pytest.raises(BadRecipe, match="did you mean 'mobilenet_v1'"):
        describe(wrong, 60_000, 11, 64)


GOOD = describe("mobilenet_v1", 60_000, 11, 64).to_json()


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {key: GOOD[key] for key in GOOD if key != "shape"},
        {**GOOD, "family": "alexnet"},
        {**GOOD, "family": ["mobilenet_v1"]},
        {**GOOD, "classes": 0},
        {**GOOD, "classes": "11"},
        {**GOOD, "classes": True},
        {**GOOD, "size": 64.0},
        {**GOOD, "shape": []},
        {**GOOD, "shape": {}},
        {**GOOD, "shape": {**GOOD["shape"], "stem": "wide"}},
        {**GOOD, "shape": {**GOOD["shape"], "stem": -3}},
        {**GOOD, "shape": {**GOOD["shape"], "strides": [2, 1]}},
    ],
    ids=str,
)
def test_a_wrong_description_is_refused_in_one_line(value: object):
    with pytest.raises(BadCheckpoint) as caught:
        Student.from_json(value)
    assert "\n" not in str(caught.value)


def test_keys_that_belong_to_others_are_ignored():
    assert Student.from_json({**GOOD, "mean": [0.5, 0.5, 0.5]}).to_json() == GOOD


def test_reading_a_description_draws_no_random_number():
    before = torch.get_rng_state()
    Student.from_json(GOOD)
    assert torch.equal(torch.get_rng_state(), before)
