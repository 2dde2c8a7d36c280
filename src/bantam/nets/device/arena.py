"""The memory that a student's maps need on a small device, planned once: the same for the limits and for the C file.

The first steps go row by row, each as soon as the rows that it sees are there, so that of their maps only the rows
between the newest and the oldest that is still needed are kept, in a ring. That is what the patches of MCUNetV2 are for
(Lin et al., "Memory-efficient Patch-based Inference for Tiny Deep Learning", NeurIPS 2021, arXiv:2110.15352), and
nothing is computed twice. The other steps come one after another, a sum or a pointwise convolution in the place of a
map that nobody reads later. Maps that are never there together share their bytes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bantam.nets.device.steps import Program, Step


@dataclass(frozen=True)
class Place:
    """Where a map lies: from the byte `offset` on, `rows` rows of `row_bytes`; row y is the (y mod rows)th."""

    offset: int
    rows: int
    row_bytes: int

    @property
    def end(self) -> int:
        return self.offset + self.rows * self.row_bytes


@dataclass(frozen=True)
class Arena:
    """The `places` of a program's maps in `bytes` bytes; `order` names the steps that go row by row, once for each row.

    They are the first `streamed` steps; the rest follow, each whole. `vector` and `sums` are how many floats and 32-bit
    sums a pixel needs beside.
    """

    places: tuple[Place, ...]
    bytes: int
    streamed: int
    order: tuple[int, ...]
    vector: int
    sums: int

    @property
    def ram(self) -> int:
        """All memory that changes, without the stack and the image itself, in bytes."""
        return self.bytes + 4 * (self.vector + self.sums)


def plan(program: Program) -> Arena:
    """The arena of `program` with the number of steps that go row by row for which it is smallest."""
    first_answer = next(number for number, step in enumerate(program.steps) if step.answer >= 0)
    spans = Spans(program)
    least = across(program)
    best: tuple[int, int, Sequence[Place], Sequence[int]] | None = None
    for streamed in range(first_answer + 2):
        if best is not None and max(least[max(streamed - 1, 0) :], default=0) >= best[0]:
            continue
        rows, order = rings(program, streamed, spans)
        places = placed(program, streamed, rows)
        size = max((place.end for place in places), default=0)
        if best is None or size < best[0]:
            best = size, streamed, places, order
    assert best is not None
    size, streamed, places, order = best
    operations = [step.operation for step in program.steps if step.operation is not None]
    vector = max(operation.channels for operation in operations)
    summed = [one.channels for one in operations if one.is_depthwise or one.kind == "average"]
    return Arena(tuple(places), size, streamed, tuple(order), vector, max(summed, default=0))


def across(program: Program) -> list[int]:
    """The bytes of the maps that are there between each step and the next: the least, where both are whole."""
    first, last = lifetimes(program, 0)
    sizes = [one.channels * one.height * one.width for one in program.maps]
    return [
        sum(size for size, start, stop in zip(sizes, first, last, strict=True) if start <= number < stop)
        for number in range(len(program.steps))
    ]


class Spans:
    """Which rows of a map a step reads for each of its own, (first, after the last), and whose; looked up once."""

    def __init__(self, program: Program) -> None:
        self.rows: dict[tuple[int, int], list[tuple[int, int]]] = {}
        self.makers: dict[tuple[int, int], list[int]] = {}
        for number, step in enumerate(program.steps):
            for one in step.reads:
                height = program.maps[one].height
                self.rows[number, one] = [seen(step, one, row, height) for row in range(step.height)]
                self.makers[number, one] = makers_of(program.steps, one, step.read_places(one))


def rings(program: Program, streamed: int, spans: Spans) -> tuple[dict[int, int], list[int]]:
    """How many rows of each map are kept if the first `streamed` steps go row by row, and the order of their rows."""
    stream = _Stream(program, streamed, spans)
    stream.run()
    return stream.rows, stream.order


class _Stream:
    """The first steps of a program, each asking those before it for the rows that it sees."""

    def __init__(self, program: Program, streamed: int, spans: Spans) -> None:
        self.steps, self.spans = program.steps[:streamed], spans
        self.done = [0] * streamed
        self.order: list[int] = []
        self.reads = [sorted(step.reads) for step in self.steps]
        self.written = [sorted(step.written) for step in self.steps]
        self.readers: dict[int, list[int]] = {}
        for number, read in enumerate(self.reads):
            for one in read:
                self.readers.setdefault(one, []).append(number)
        self.later = {one for step in program.steps[streamed:] for one in step.reads | step.written}
        self.rows = {
            one: program.maps[one].height if one in self.later else 0 for written in self.written for one in written
        }

    def run(self) -> None:
        """All rows of those whose maps nobody here reads, side by side, and of whoever is behind then."""
        sinks = [
            number for number, written in enumerate(self.written) if not any(self.readers.get(one) for one in written)
        ]
        parts = max((self.steps[number].height for number in sinks), default=0)
        for part in range(1, parts + 1):
            for number in sinks:
                while self.done[number] < math.ceil(part * self.steps[number].height / parts):
                    self.make_row(number)
        for number, step in enumerate(self.steps):
            while self.done[number] < step.height:
                self.make_row(number)

    def make_row(self, number: int) -> None:
        """Have the rows made that the next row of a step sees, and make it."""
        row = self.done[number]
        for one in self.reads[number]:
            stop = self.spans.rows[number, one][row][1]
            for maker in self.spans.makers[number, one]:
                while self.done[maker] < stop:
                    self.make_row(maker)
        self.order.append(number)
        for one in self.written[number]:
            if one not in self.later:
                self.rows[one] = max(self.rows[one], row + 1 - self.oldest_needed(one, row))
        self.done[number] += 1

    def oldest_needed(self, one: int, row: int) -> int:
        """The first row of the map `one` that somebody still needs while `row` is written."""
        oldest = row
        for reader in self.readers.get(one, []):
            spans, done = self.spans.rows[reader, one], self.done[reader]
            if done < len(spans):
                oldest = min(oldest, spans[done][0])
        return oldest


def makers_of(steps: Sequence[Step], one: int, places: set[int]) -> list[int]:
    """The steps that write any of the channels `places` of the map `one`."""
    return [
        number
        for number, step in enumerate(steps)
        if any(write.map == one and not places.isdisjoint(write.places) for write in step.writes)
    ]


def seen(step: Step, one: int, row: int, height: int) -> tuple[int, int]:
    """The rows of the map `one`, of `height` rows, that `step` reads for its `row`: the first, and after the last."""
    start, stop = height, 0
    if step.source == one and step.operation is not None:
        start, stop = step.operation.seen_rows(row, height)
    if any(leaf.map == one for write in step.writes for leaf in write.value.stored()):
        here = row if height > 1 else 0
        start, stop = min(start, here), max(stop, here + 1)
    return start, stop


def placed(program: Program, streamed: int, rows: dict[int, int]) -> list[Place]:
    """Where each map lies, given how many rows are kept of those that the first `streamed` steps make."""
    first, last = lifetimes(program, streamed)
    owner = in_place(program, streamed, first, last)
    members: dict[int, list[int]] = {}
    for number, one in enumerate(owner):
        members.setdefault(one, []).append(number)
    blocks: list[tuple[int, int, int, int, int, int]] = []
    for one, maps in members.items():
        widest = max(program.maps[number].channels * program.maps[number].width for number in maps)
        kept = rows.get(one, program.maps[one].height)
        span = min(first[number] for number in maps), max(last[number] for number in maps)
        blocks.append((one, kept, widest, kept * widest, *span))
    orders = (
        sorted(blocks, key=lambda block: (-block[3], block[4])),
        sorted(blocks, key=lambda block: (block[4], -block[3])),
        sorted(blocks, key=lambda block: (-(block[5] - block[4]), -block[3])),
    )
    found = min(
        (first_fit(order) for order in orders),
        key=lambda fit: max((fit[one] + size for one, _, _, size, *_ in blocks), default=0),
    )
    kept_of = {one: (kept, widest) for one, kept, widest, *_ in blocks}
    return [Place(found[one], *kept_of[one]) for one in owner]


def first_fit(blocks: Sequence[tuple[int, int, int, int, int, int]]) -> dict[int, int]:
    """An offset for each block, the lowest where it meets none of those before it that is there at the same time."""
    taken: list[tuple[int, int, int, int]] = []
    found: dict[int, int] = {}
    for one, _, _, size, start, stop in blocks:
        offset = 0
        for low, high, begin, end in sorted(taken):
            if begin <= stop and start <= end:
                if offset + size <= low:
                    break
                offset = max(offset, high)
        taken.append((offset, offset + size, start, stop))
        found[one] = offset
    return found


def lifetimes(program: Program, streamed: int) -> tuple[list[int], list[int]]:
    """The step in which each map is first written, and the last that uses it; those that go row by row are one."""
    first, last = [len(program.steps)] * len(program.maps), [-1] * len(program.maps)
    for number, step in enumerate(program.steps):
        time = max(number, streamed - 1)
        for one in step.written | step.reads:
            first[one], last[one] = min(first[one], time), max(last[one], time)
    return first, last


def in_place(program: Program, streamed: int, first: list[int], last: list[int]) -> list[int]:
    """For each map the one in whose place it is written: itself, or one that is read for the last time then."""
    owner = list(range(len(program.maps)))
    writers = [sum(one in step.written for step in program.steps) for one in owner]
    for number, step in enumerate(program.steps[streamed:], streamed):
        for new in step.written:
            if writers[new] > 1 or first[new] != number:
                continue
            for old in step.reads:
                if last[old] == number and is_in_step(program, step, old, new):
                    owner[new] = owner[old]
                    last[old] = len(program.steps)  # nobody else is written there
                    break
    return owner


def is_in_step(program: Program, step: Step, old: int, new: int) -> bool:
    """Whether `step`, when it writes a pixel of `new`, needs it and those before it of `old` no more."""
    before, after = program.maps[old], program.maps[new]
    if (before.height, before.width) != (after.height, after.width):
        return False
    leaves = [(write, leaf) for write in step.writes for leaf in write.value.stored() if leaf.map == old]
    if step.source == old:
        pointwise = step.operation is not None and step.operation.is_pointwise
        return pointwise and not leaves and after.channels <= before.channels
    same = all(write.map == new and leaf.places == write.places for write, leaf in leaves)
    return same and after.channels == before.channels and len(step.writes) == 1
