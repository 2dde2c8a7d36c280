from itertools import pairwise

import pytest

from bantam.nets.device.steps import stretches
from bantam.nets.students import STUDENTS
from device_students import described, steps_of


def test_gates_and_shortcuts_are_computed_where_their_convolution_is():
    steps = steps_of(described("largekernel"))
    gated = [one for one in steps.steps if one.operation is not None and "expand" in one.operation.name]
    assert gated
    for step in gated:
        (write,) = step.writes
        assert write.value.kind == "multiply"
        assert step.operation is not None
        assert step.operation.channels == 2 * len(write.places)  # the two halves are stored nowhere
    assert all(step.operation is not None for step in steps.steps)  # nothing passes a map element by element alone


def test_a_shuffle_is_a_place_to_write_to():
    steps = steps_of(described("shufflenet_v2"))
    assert any(write.places[:2] in ((0, 2), (1, 3)) for step in steps.steps for write in step.writes)
    assert all(step.operation is not None for step in steps.steps)


def test_a_dense_block_is_one_map():
    steps = steps_of(described("densenet"))
    sources = [step.source for step in steps.steps if step.operation is not None and step.operation.is_pointwise]
    assert max(sources.count(one) for one in sources) >= 2


@pytest.mark.parametrize("family", STUDENTS)
def test_each_channel_is_written_once_before_it_is_read(family: str):
    steps = steps_of(described(family))
    written: set[tuple[int, int]] = set()
    for step in steps.steps:
        assert {(one, place) for one in step.reads for place in step.read_places(one)} <= written
        new = [(write.map, place) for write in step.writes if write.map >= 0 for place in write.places]
        assert len(set(new)) == len(new)
        assert written.isdisjoint(new)
        written |= set(new)
    assert written == {(one.number, place) for one in steps.maps for place in range(one.channels)}


def test_stretches_go_on_in_even_steps():
    rows = [(0, 0), (1, 3), (2, 6), (3, 1), (4, 4), (5, 7), (6, 2)]
    found = stretches(rows)
    assert [start for start, _ in found] + [len(rows)] == [0, *(stop for _, stop in found)]
    for start, stop in found:
        part = rows[start:stop]
        assert len({tuple(b - a for a, b in zip(*pair, strict=True)) for pair in pairwise(part)}) <= 1
    assert stretches([(5,)]) == [(0, 1)]
