import pytest

from bantam.errors import BadRecipe, BudgetExceeded
from bantam.nets.budget import weigh
from bantam.nets.fit import late_strides
from bantam.nets.footprint import disk_bytes, footprint
from bantam.nets.limits import Limits, describe_within, least_budget
from bantam.nets.students import STUDENTS, Student, describe

FITTED = [name for name in STUDENTS if name != "sample"]


def needs(student: Student) -> tuple[int, int, int, int]:
    """Parameters, MACs, bytes of activations and bytes on disk of what is shipped."""
    net = student.shipped_net()
    here = footprint(net, student.size)
    return weigh(net, student.size).counted, here.macs, here.activation_bytes, disk_bytes(net)


def test_without_other_limits_it_is_the_net_of_the_budget():
    assert describe_within("mobilenet_v2", Limits(60_000), 11, 64) == describe("mobilenet_v2", 60_000, 11, 64)


def test_limits_that_hold_already_change_nothing():
    full = describe("mobilenet_v1", 20_000, 11, 32)
    assert describe_within("mobilenet_v1", Limits(20_000, *needs(full)[1:]), 11, 32) == full


@pytest.mark.parametrize("name", FITTED)
def test_every_family_keeps_all_limits_together(name: str):
    limits = Limits(8_000, macs=1_200_000, activation_bytes=180_000, disk_bytes=40_000)
    parameters, macs, activation_bytes, on_disk = needs(describe_within(name, limits, 11, 32))
    assert parameters <= 8_000
    assert macs <= 1_200_000
    assert activation_bytes <= 180_000
    assert on_disk <= 40_000


@pytest.mark.parametrize(
    ("limits", "place"),
    [
        (Limits(60_000, macs=1_000_000), 1),
        (Limits(60_000, activation_bytes=60_000), 2),
        (Limits(60_000, disk_bytes=80_000), 3),
    ],
    ids=["macs", "memory", "bytes"],
)
def test_the_limit_is_nearly_used_up(limits: Limits, place: int):
    limit = (limits.parameters, limits.macs, limits.activation_bytes, limits.disk_bytes)[place]
    assert limit is not None
    needed = needs(describe_within("mobilenet_v1", limits, 11, 32))
    assert 0.9 * limit <= needed[place] <= limit
    assert needed[0] < 60_000


def test_no_budget_of_a_coarse_grid_has_a_larger_net_within_the_limit():
    # DenseNet's MACs rise and fall with its budget, so plain bisection would stop at a much smaller net.
    limits = Limits(20_000, macs=1_500_000)
    found = needs(describe_within("densenet", limits, 11, 32))[0]
    for budget in range(3_000, 20_000, 2_000):
        parameters, macs, *_ = needs(describe("densenet", budget, 11, 32))
        assert macs > 1_500_000 or parameters <= 1.06 * found, budget


@pytest.mark.parametrize("name", FITTED)
def test_the_least_budget_is_the_one_that_the_refusal_names(name: str):
    least = least_budget(name, 11, 32)
    describe(name, least, 11, 32)
    with pytest.raises(BudgetExceeded, match=rf"needs {least:,} parameters"):
        describe(name, least - 1, 11, 32)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (Limits(60_000, macs=10), r"the smallest mobilenet_v1 .*needs [\d,]+ MACs where the limit is 10:"),
        (Limits(60_000, activation_bytes=10), r"needs [\d,]+ bytes of activations where the limit is 10:"),
        (Limits(60_000, disk_bytes=0), r"needs [\d,]+ bytes on disk where the limit is 0:"),
        (Limits(60_000, macs=-1, disk_bytes=10), r"[\d,]+ MACs where the limit is -1 and [\d,]+ bytes on disk where"),
        (Limits(100), r"needs [\d,]+ parameters, the budget is 100"),
    ],
)
def test_impossible_limits_say_what_the_smallest_net_needs(limits: Limits, said: str):
    with pytest.raises(BudgetExceeded, match=said) as caught:
        describe_within("mobilenet_v1", limits, 11, 32)
    assert "\n" not in str(caught.value)


def test_a_family_of_one_size_keeps_the_limits_or_is_refused():
    assert describe_within("sample", Limits(60_000, macs=20_000_000), 11, 64) == describe("sample", 60_000, 11, 64)
    with pytest.raises(BudgetExceeded, match="the smallest sample .* needs 16,682,316 MACs"):
        describe_within("sample", Limits(60_000, macs=5_000_000), 11, 64)


def test_unknown_families_and_inputs_that_are_too_small_are_refused():
    with pytest.raises(BadRecipe, match="did you mean 'densenet'"):
        describe_within("densnet", Limits(60_000), 11, 64)
    with pytest.raises(BadRecipe, match="16 px is too small for sample"):
        describe_within("sample", Limits(60_000), 11, 16)
    for size in (0, -64):
        with pytest.raises(BadRecipe, match="too small"):
            late_strides(size)
