import json
from pathlib import Path

import numpy as np
import pytest

from bantam.nets.device.arena import Arena, plan
from bantam.nets.device.operations import traced
from bantam.nets.device.steps import Program, Step, program
from bantam.nets.students import STUDENTS, Student
from device_students import described, steps_of

RUNS = Path(__file__).parents[3] / "results" / "food-11"


class Memory:
    """The arena byte by byte: which channel of which pixel of which map was last written there."""

    def __init__(self, steps: Program, arena: Arena) -> None:
        self.steps, self.arena = steps, arena
        self.holds = np.full(max(arena.bytes, 1), -1, dtype=np.int64)

    def bytes_of(self, one: int, y: int, x: int, places: "set[int] | tuple[int, ...]") -> tuple[np.ndarray, np.ndarray]:
        """Where these channels of a pixel lie, and what has to be there."""
        shape, place = self.steps.maps[one], self.arena.places[one]
        channels = np.array(sorted(places))
        where = place.offset + y % place.rows * place.row_bytes + x * shape.channels + channels
        return where, ((one * 10_000 + y) * 10_000 + x) * 10_000 + channels

    def read(self, step: Step, y: int, x: int) -> None:
        for one in step.reads:
            shape = self.steps.maps[one]
            rows, columns = seen(step, one, y, x, shape.height, shape.width)
            for row in rows:
                for column in columns:
                    where, wanted = self.bytes_of(one, row, column, step.read_places(one))
                    assert np.array_equal(self.holds[where], wanted), f"map {one} row {row} was written over"

    def run(self, step: Step, y: int) -> None:
        for x in range(step.width):
            self.read(step, y, x)
            for write in step.writes:
                if write.map >= 0:
                    where, what = self.bytes_of(write.map, y, x, write.places)
                    self.holds[where] = what


def seen(step: Step, one: int, y: int, x: int, height: int, width: int) -> tuple[range, range]:
    """The rows and columns of a map that a step reads for a pixel: written anew, without the planner's own words."""
    operation = step.operation
    if operation is None or step.source != one:
        return (range(y, y + 1), range(x, x + 1)) if height > 1 else (range(1), range(1))
    if operation.kind != "convolution":
        return range(*operation.rows[y][:2]), range(*operation.columns[x][:2])
    (down, right), (above, left), (high, wide) = operation.stride, operation.padding, operation.kernel
    apart = operation.dilation
    rows = [row for row in range(y * down - above, y * down - above + apart * high, apart) if 0 <= row < height]
    columns = [one for one in range(x * right - left, x * right - left + apart * wide, apart) if 0 <= one < width]
    return range(rows[0], rows[-1] + 1), range(columns[0], columns[-1] + 1)


def execute(steps: Program, arena: Arena) -> None:
    """Compute every row in the planned order; whatever is read must still be there."""
    memory, done = Memory(steps, arena), [0] * arena.streamed
    for number in arena.order:
        memory.run(steps.steps[number], done[number])
        done[number] += 1
    assert done == [step.height for step in steps.steps[: arena.streamed]]
    for step in steps.steps[arena.streamed :]:
        for y in range(step.height):
            memory.run(step, y)


@pytest.mark.parametrize("family", STUDENTS)
def test_nothing_is_written_over_that_is_still_read(family: str):
    steps = steps_of(described(family))
    execute(steps, plan(steps))


def test_a_student_with_early_exits_keeps_its_maps_until_it_has_left():
    steps = steps_of(described("mobilenet_v1", exits=(1, 3)))
    arena = plan(steps)
    execute(steps, arena)
    first = next(number for number, step in enumerate(steps.steps) if step.answer >= 0)
    assert arena.streamed <= first + 1


@pytest.mark.parametrize("family", STUDENTS)
def test_row_by_row_takes_less_than_step_by_step(family: str):
    reaches_far = family == "mixedkernel"  # over a whole map of 16 x 16
    steps = steps_of(described(family, 64 if reaches_far else 16))
    whole = [one.channels * one.height * one.width for one in steps.maps]
    together = max(sum(whole[one] for one in step.reads | step.written) for step in steps.steps)
    assert plan(steps).bytes < together


def test_two_maps_that_are_never_there_together_share_bytes():
    steps = steps_of(described("mobilenet_v1"))
    arena = plan(steps)
    assert sum(place.end - place.offset for place in arena.places) > arena.bytes


@pytest.mark.parametrize(("run", "ram"), [("quick", 28_208), ("boss-64", 40_548), ("boss", 56_865), ("exits", 54_664)])
def test_what_the_committed_students_take(run: str, ram: int):
    student = Student.from_json(json.loads((RUNS / run / "student.json").read_text()))
    assert plan(program(traced(student.shipped_net(), student.size))).ram == ram
