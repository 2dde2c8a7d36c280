"""The plan is a function of what is known: it fits the time, grows with it, and is a recipe that can be run again."""

import itertools
from dataclasses import replace

import pytest

from bantam.errors import BadData, BantamError
from bantam.fit import planning
from bantam.fit.asked import Asked, seconds_of, time_text
from bantam.fit.candidates import Candidate, Student, sizes_for, stored_for, students
from bantam.fit.known import Known
from bantam.fit.planning import Machine, Plan, chosen, floor, planned
from bantam.fit.stopwatch import Speed
from bantam.nets.device.boards import board
from bantam.nets.device.needs import needs
from bantam.nets.students import describe
from bantam.pipeline import run as pipeline
from bantam.recipes.kinds.training import Training
from bantam.recipes.recipe import dump, parse

DISHES = Known(2445, 611, 0, 10, 240, 512, False, 0.11)

CASES = {
    "dishes": DISHES,
    "2 classes": replace(DISHES, classes=2, fewest=1200),
    "100 classes": replace(DISHES, classes=100, fewest=20),
    "8 images a class": replace(DISHES, training=64, validation=16, fewest=6),
    "two images a class": replace(DISHES, training=10, validation=10, fewest=1),
    "30 px": replace(DISHES, side=30),
    "digits": replace(DISHES, side=32, signs=True),
    "3,000 px": replace(DISHES, side=3000),
    "food-11": Known(9866, 3430, 3347, 11, 400, 64, False, 0.2),
    "cifar-10": Known(40_000, 10_000, 10_000, 10, 4000, 32, False, 0.1),
}

TIMES = ("2m", "5m", "15m", "30m", "60m", "4h", "8h")


def machine(known: Known, slow: float = 1.0, budget: int = 60_000) -> Machine:
    """About what two cores do, `slow` times as slow."""
    found = [
        Candidate(Student(net, size, budget), Speed(slow * step * size**2, slow * step * size**2 / 5))
        for size in sizes_for(known.side, None)
        for net, step in (("largekernel", 4.0e-7), ("mobilenet_v1", 2.2e-7))
    ]
    return Machine(tuple(found), Speed(slow * 6e-3, slow * 2e-3))


def trainings(plan: Plan) -> list[Training]:
    return [stage for stage in plan.recipe.stage if isinstance(stage, Training)]


@pytest.mark.parametrize("slow", [0.2, 1.0, 4.0])
@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("known", CASES.values(), ids=CASES)
def test_a_plan_fits_its_time_and_is_a_recipe(known: Known, time: str, slow: float) -> None:
    asked = Asked(seconds_of(time))
    try:
        plan = planned(known, asked, machine(known, slow), spent=10.0)
    except BadData:
        assert asked.seconds <= 900
        assert slow > 1 or known.images > 10_000, "there is time enough"
        return
    in_all = sum(row.seconds for row in plan.rows)
    assert in_all <= 1.001 * asked.seconds
    assert in_all >= 0.9 * asked.seconds or any("ends after" in note for note in plan.notes)
    assert parse(dump(plan.recipe)) == plan.recipe
    pipeline.check(plan.recipe)
    assert set(plan.ends) == {stage.name for stage in trainings(plan)}
    assert list(plan.ends.values()) == sorted(plan.ends.values())
    assert plan == planned(known, asked, machine(known, slow), spent=10.0)
    assert plan.recipe.shipped.augment.flip == (0.0 if known.signs else 0.5)
    assert plan.recipe.data.size >= plan.recipe.shipped.size
    start = trainings(plan)[0]
    assert start.pretrained == ("food11" if start.net == "largekernel" and not known.signs else "")
    assert any("food model" in note for note in plan.notes) == bool(start.pretrained)


@pytest.mark.parametrize("known", CASES.values(), ids=CASES)
def test_more_time_never_gives_a_smaller_plan(known: Known) -> None:
    timed = machine(known)
    seconds = [60.0 * 1.3**n for n in range(25)]
    plans: list[tuple[float, Plan]] = []
    for one in seconds:
        try:
            asked = Asked(one)
            plans.append((floor(chosen(known, asked, timed, 5.0)), planned(known, asked, timed, 5.0)))
        except BadData:
            assert not plans, "what was enough is enough"
    assert len(plans) > 10
    for (before, one), (after, other) in itertools.pairwise(plans):
        assert after <= before
        small, large = one.recipe.shipped, other.recipe.shipped
        assert large.size >= small.size
        assert len(other.recipe.stage) >= len(one.recipe.stage) or large.net != small.net or large.size > small.size
        if (large.net, large.size, len(one.recipe.stage)) == (small.net, small.size, len(other.recipe.stage)):
            assert large.epochs >= small.epochs


def test_the_time_that_is_too_short_is_said_with_what_is_enough() -> None:
    with pytest.raises(BadData, match=r"30 s are too short .* give --time (\d+)s or more") as caught:
        planned(DISHES, Asked(30.0), machine(DISHES), 12.0)
    enough = float(str(caught.value).split("--time ")[1].split("s")[0])
    assert planned(DISHES, Asked(enough), machine(DISHES), 12.0).recipe.shipped.epochs >= 1


def test_a_given_teacher_teaches_on_as_many_views_as_there_is_time_for() -> None:
    views: list[int] = []
    for seconds in (300.0, 1800.0, 20_000.0):
        given = replace(machine(DISHES), given=("resnet18", 112, Speed(4e-3, 4e-3)))
        plan = planned(DISHES, Asked(seconds, teacher="/t.ckpt"), given, 20.0)
        teacher, student = plan.recipe.stage
        assert (teacher.kind, getattr(teacher, "checkpoint", "")) == ("given_teacher", "/t.ckpt")
        assert isinstance(student, Training)
        assert student.teacher == "teacher"
        assert 1 <= student.views <= student.epochs
        views.append(student.views)
    assert views == sorted(views)
    assert views[0] < views[-1]


def test_a_teacher_is_trained_only_where_it_has_the_time_to_become_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def stages(known: Known, time: str) -> list[str]:
        return [stage.name for stage in planned(known, Asked(seconds_of(time)), machine(known), 10.0).recipe.stage]

    many = replace(DISHES, training=6_000)
    assert stages(many, "5m") == ["student"]
    assert stages(many, "20h") == ["first", "teacher", "student"]
    assert stages(DISHES, "20h") == ["student"], "from so few photographs it comes behind a pretrained student"
    plan = planned(many, Asked(seconds_of("20h")), machine(many), 10.0)
    first, teacher, student = trainings(plan)
    assert (first.kind, teacher.kind, student.start) == ("student", "teacher", "first")
    assert teacher.epochs >= planning.TEACHER_EPOCHS
    assert (first.pretrained, student.pretrained) == ("food11", ""), "it starts from the first one"
    assert stages(CASES["cifar-10"], "30m") == ["student"]


def test_other_limits_than_parameters_are_said() -> None:
    plan = planned(DISHES, Asked(1800.0, macs=10**6), machine(DISHES, budget=9_000), 10.0)
    assert plan.recipe.budget == 9_000
    assert any("9,000 of 60,000" in note for note in plan.notes)
    device = planned(DISHES, Asked(1800.0, ram=65_536), machine(DISHES), 10.0)
    assert "int8, C, parity" in device.rows[-1].how
    assert device.rows[-1].seconds > plan.rows[-1].seconds


@pytest.mark.parametrize(
    ("side", "sizes"), [(8, (32,)), (30, (32,)), (48, (48,)), (64, (48, 64)), (96, (48, 96)), (3000, (48, 96, 128))]
)
def test_inputs_are_those_that_the_photographs_bear(side: int, sizes: tuple[int, ...]) -> None:
    assert sizes_for(side, None) == sizes
    assert sizes_for(side, 80) == (80,)
    for size in sizes:
        assert size <= stored_for(side, size) <= max(size, side)


def test_what_fits_no_family_is_one_line_and_what_fits_few_takes_those() -> None:
    with pytest.raises(BantamError, match=r"no family of students is so small; .* needs [\d,]+ parameters") as caught:
        students(Asked(1.0, parameters=200), 100, (48, 96))
    assert "\n" not in str(caught.value)
    assert {one.net for one in students(Asked(1.0), 10, (48, 96))} == {"largekernel", "mobilenet_v1"}
    small = students(Asked(1.0, macs=1_000_000), 10, (48,))
    assert small
    assert all(one.budget < 60_000 for one in small)


def test_what_a_device_has_room_for_is_what_comes_into_question() -> None:
    room = board("bluepill").room(32)
    (*found,) = students(Asked(1.0, board="bluepill"), 10, (32,))
    assert found
    for one in found:
        there = needs(describe(one.net, one.budget, 10, 32).shipped_net(), 32)
        assert there.ram <= room.ram
        assert there.flash <= room.flash
    assert any(one.budget < 60_000 for one in found)
    with pytest.raises(BantamError, match='there is no board "bluepil" in the table'):
        students(Asked(1.0, board="bluepil"), 10, (32,))
    with pytest.raises(BantamError, match=r"no family of students is so small; .* bytes of RAM on a device"):
        students(Asked(1.0, ram=100), 10, (32,))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("1h", 3600), ("1.5h", 5400), ("1h30m", 5400), (" 2H ", 7200), ("2d", 172_800)],
)
def test_times_are_read_as_people_write_them(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "30", "h", "-5m", "0s", "nan", "inf", "1e3s", "5 minutes", "8d", "9" * 500 + "h", "٣m"]
)
def test_other_times_are_one_line(text: str) -> None:
    with pytest.raises(BantamError, match="--time must be") as caught:
        seconds_of(text)
    assert "\n" not in str(caught.value)


def test_times_are_told_as_people_read_them() -> None:
    told = [time_text(seconds) for seconds in (8, 59, 59.7, 90, 1800, 5400, 7200)]
    assert told == ["8 s", "59 s", "1 min", "1.5 min", "30 min", "90 min", "2 h"]
