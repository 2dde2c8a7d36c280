"""The steps of a pass on a small device: what is computed pixel by pixel, and which maps are stored between.

A step computes one convolution or pooling at a pixel, a vector of floats; then what works on each element by itself
(activations, gates, sums with stored maps); and stores the results as bytes where they are read: a concatenation or a
shuffle is a place to write to, and costs no copy. So only what a convolution or pooling reads, and what comes together
from two steps, is ever stored.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

from torch import Tensor

from bantam.nets.device.operations import ELEMENTWISE, Channels, Operation, Traced


@dataclass(frozen=True)
class Map:
    """`channels` maps of `height` x `width` bytes, channels last, on one grid; `holds` says what each channel is."""

    number: int
    height: int
    width: int
    holds: Channels

    @property
    def channels(self) -> int:
        return len(self.holds)


@dataclass(frozen=True, eq=False)
class Expression:
    """A value for each of some channels, at one pixel.

    `kind` is vector (of the step, at `places`), stored (of the map `map`, at `places`), or one of ELEMENTWISE on its
    `operands`; affine has a factor and a summand for each channel in `weight` [2, C].
    """

    kind: str
    places: tuple[int, ...] = ()
    map: int = -1
    operands: "tuple[Expression, ...]" = ()
    weight: Tensor | None = None

    def stored(self) -> "list[Expression]":
        """All stored maps' values in it."""
        if self.kind == "stored":
            return [self]
        return [leaf for operand in self.operands for leaf in operand.stored()]

    def columns(self) -> list[tuple[int, ...]]:
        """The places that it is read from, of all its parts."""
        return [self.places] if self.places else [one for operand in self.operands for one in operand.columns()]

    def affine(self) -> "list[Expression]":
        """All factors and summands in it."""
        return [self] * (self.kind == "affine") + [one for operand in self.operands for one in operand.affine()]


@dataclass(frozen=True, eq=False)
class Write:
    """The `value` goes to the channels `places` of the map `map`; of an answer, which no map holds, `map` is -1."""

    value: Expression
    map: int
    places: tuple[int, ...]

    def columns(self) -> list[tuple[int, ...]]:
        """Of each channel all places, that which is written first and those that are read."""
        return list(zip(self.places, *self.value.columns(), strict=True))


@dataclass(frozen=True, eq=False)
class Step:
    """What is computed pixel by pixel, over `height` x `width` pixels, row by row.

    `operation` fills the vector, None where there is none; it reads the map `source` from the channel `start` on, -1
    for the image. `answer` is the number of the answer that the step gives, -1 for none.
    """

    operation: Operation | None
    source: int
    start: int
    writes: tuple[Write, ...]
    height: int
    width: int
    answer: int = -1

    @cached_property
    def reads(self) -> set[int]:
        """The maps that it reads."""
        found = {leaf.map for write in self.writes for leaf in write.value.stored()}
        return found | ({self.source} if self.source >= 0 else set())

    def read_places(self, one: int) -> set[int]:
        """The channels of the map `one` that it reads."""
        found = {
            place for write in self.writes for leaf in write.value.stored() if leaf.map == one for place in leaf.places
        }
        if self.source == one and self.operation is not None:
            found |= set(range(self.start, self.start + len(self.operation.inputs[0])))
        return found

    @cached_property
    def written(self) -> set[int]:
        """The maps that it writes to."""
        return {write.map for write in self.writes if write.map >= 0}


@dataclass(frozen=True)
class Program:
    """The steps of a pass in order, and the maps between them."""

    steps: tuple[Step, ...]
    maps: tuple[Map, ...]

    @property
    def answers(self) -> int:
        """How many answers there are: the early exits, and the end."""
        return sum(step.answer >= 0 for step in self.steps)


def program(found: Traced) -> Program:
    """Lay out a traced pass in steps and maps."""
    for merging in (True, False):
        groups = _Groups(found, merging)
        order = groups.in_order()
        if order is not None:
            return _Layout(found, groups).program(order)
    raise AssertionError("operations that are not merged have an order, that in which they were traced")


@dataclass(eq=False)
class _Group:
    """Operations that are computed in one step; `heavy` is the convolution or pooling among them, -1 for none."""

    roots: list[int] = field(default_factory=list[int])
    heavy: int = -1


class _Groups:
    """Which operations are computed together, in one step."""

    def __init__(self, found: Traced, merging: bool) -> None:
        self.operations = found.operations
        self.merging = merging
        answers = {made for answer in found.answers for made, _ in answer}
        self.stored = answers | self.read_whole()
        self.users: dict[int, list[int]] = {one.number: [] for one in self.operations}
        self.ancestors: list[int] = []
        self.below: list[set[int]] = []
        for one in self.operations:
            self.look_below(one)
        self.group: dict[int, _Group] = {}
        for one in reversed(self.operations):
            self.join(one)

    def read_whole(self) -> set[int]:
        """What must be stored: what convolutions and poolings read, and what is of another size than its reader."""
        found: set[int] = set()
        for one in self.operations:
            for made in {made for where in one.inputs for made, _ in where}:
                other = self.operations[made]
                if one.kind not in ELEMENTWISE or (other.height, other.width) != (one.height, one.width):
                    found.add(made)
        return found

    def look_below(self, one: Operation) -> None:
        """Note who reads what, and which convolutions may be computed in the same step as `one`."""
        made = {made for where in one.inputs for made, _ in where}
        ancestors = 0
        below: set[int] = set() if one.kind in ELEMENTWISE else {one.number}
        for number in made:
            ancestors |= self.ancestors[number] | 1 << number
            if one.kind in ELEMENTWISE:
                self.users[number].append(one.number)
                below |= set() if number in self.stored else self.below[number]
        self.ancestors.append(ancestors)
        self.below.append(below)

    def join(self, one: Operation) -> None:
        """Put `one` into the step of those who read it, or make it the root of a step of its own."""
        groups = list(dict.fromkeys(self.group[user] for user in self.users[one.number] if user in self.group))
        if one.number not in self.stored and not groups:
            return  # nobody reads it
        if one.number not in self.stored and (joined := self.joined(one, groups)):
            self.group[one.number] = joined
            return
        self.stored.add(one.number)
        for group in groups:
            if group.heavy == one.number:
                group.heavy = -1
        self.group[one.number] = _Group([one.number], -1 if one.kind in ELEMENTWISE else one.number)

    def joined(self, one: Operation, groups: list[_Group]) -> _Group | None:
        """The group that `groups` become with `one` in it; None where they cannot be one step."""
        heavies = {group.heavy for group in groups} - {-1}
        below = self.below[one.number]
        roots = [root for group in groups for root in group.roots]
        apart = any(self.ancestors[root] >> other & 1 for root in roots for other in roots)
        if len(heavies) > 1 or (below and not heavies <= below) or (len(groups) > 1 and (apart or not self.merging)):
            return None
        first, *others = groups
        first.roots = roots
        first.heavy = next(iter(heavies), max(below, default=-1))
        for number, group in self.group.items():
            if group in others:
                self.group[number] = first
        return first

    def in_order(self) -> list[_Group] | None:
        """The groups so that each comes after what it reads, otherwise as traced; None where there is no such order."""
        members: dict[_Group, list[int]] = {}
        for number, group in self.group.items():
            members.setdefault(group, []).append(number)
        for group in members:
            if group.heavy not in members[group]:
                group.heavy = -1
        needs = {
            group: {
                self.group[made] for number in numbers for where in self.operations[number].inputs for made, _ in where
            }
            - {group}
            for group, numbers in members.items()
        }
        places = {group: place for place, group in enumerate(members)}
        ready = [(max(numbers), places[group], group) for group, numbers in members.items() if not needs[group]]
        heapq.heapify(ready)
        order: list[_Group] = []
        while ready:
            *_, group = heapq.heappop(ready)
            order.append(group)
            for other, needed in needs.items():
                if group in needed:
                    needed.remove(group)
                    if not needed:
                        heapq.heappush(ready, (max(members[other]), places[other], other))
        return order if len(order) == len(members) else None


class _Layout:
    """Which map holds which channels, and the steps that fill them."""

    def __init__(self, found: Traced, groups: _Groups) -> None:
        self.found, self.operations, self.groups = found, found.operations, groups
        self.maps: list[Map] = []
        self.where: dict[tuple[int, int], list[tuple[int, int]]] = {}  # channel -> (map, place) of all its copies
        read = [one for one in self.operations if one.number in groups.group and one.inputs]
        whole = [one.inputs[0] for one in read if one.kind not in ELEMENTWISE]
        for one in read:
            for holds in one.inputs if one.kind in ELEMENTWISE else ():
                made = holds[0][0]
                if not self.together(made, one.number) and not any(set(holds) <= set(other) for other in whole):
                    whole.append(tuple((made, channel) for channel in range(self.operations[made].channels)))
        for holds in sorted(whole, key=len, reverse=True):
            if self.view_of(holds) is None:
                self.add(holds)

    def together(self, made: int, reader: int) -> bool:
        """Whether the result of `made` is in the vector of the step of `reader`, and need not be read from a map."""
        return made not in self.groups.stored and self.groups.group[made] is self.groups.group[reader]

    def add(self, holds: Channels) -> None:
        made = self.operations[holds[0][0]]
        number = len(self.maps)
        self.maps.append(Map(number, made.height, made.width, holds))
        for place, channel in enumerate(holds):
            self.where.setdefault(channel, []).append((number, place))

    def view_of(self, holds: Channels) -> tuple[int, int] | None:
        """The map, and the place in it, from which on `holds` stand there side by side; None where there is none."""
        for number, place in self.where.get(holds[0], []):
            if self.maps[number].holds[place : place + len(holds)] == holds:
                return number, place
        return None

    def copies(self, holds: Channels) -> tuple[int, tuple[int, ...]] | None:
        """A map with all channels of `holds`, and their places in it; None where there is none."""
        for number, _ in self.where.get(holds[0], []):
            places = [dict(self.where.get(channel, [])).get(number) for channel in holds]
            if None not in places:
                return number, tuple(place for place in places if place is not None)
        return None

    def program(self, order: Sequence[_Group]) -> Program:
        return Program(tuple(self.step(group) for group in order), tuple(self.maps))

    def step(self, group: _Group) -> Step:
        operation = self.operations[group.heavy] if group.heavy >= 0 else None
        source, start = -1, 0
        if operation is not None and operation.inputs:
            view = self.view_of(operation.inputs[0])
            assert view is not None
            source, start = view
        writes = [write for root in sorted(group.roots) for write in self.writes(root, group)]
        made = self.operations[group.roots[0]]
        answer = -1
        for number, channels in enumerate(self.found.answers):
            if {made for made, _ in channels} & set(group.roots):
                answer = number
                places = tuple(channel for _, channel in channels)
                writes.append(Write(self.value(channels[0][0], places, group), -1, tuple(range(len(channels)))))
        return Step(operation, source, start, tuple(writes), made.height, made.width, answer)

    def writes(self, root: int, group: _Group) -> list[Write]:
        """Where the result of `root` goes: its channels in each map, in the order with the fewest stretches."""
        into: dict[int, list[tuple[int, int]]] = {}
        for channel in range(self.operations[root].channels):
            for number, place in self.where.get((root, channel), []):
                into.setdefault(number, []).append((place, channel))
        writes: list[Write] = []
        for number, pairs in into.items():
            by_place, by_channel = sorted(pairs), sorted(pairs, key=lambda pair: pair[1])
            places, channels = zip(*min(by_place, by_channel, key=lambda pairs: len(stretches(pairs))), strict=True)
            writes.append(Write(self.value(root, channels, group), number, places))
        return writes

    def value(self, number: int, channels: tuple[int, ...], group: _Group) -> Expression:
        """How `channels` of the operation `number` are computed in the step of `group`."""
        one = self.operations[number]
        if one.kind not in ELEMENTWISE:
            return Expression("vector", channels)
        operands: list[Expression] = []
        for where in one.inputs:
            holds = tuple(where[channel] for channel in channels)
            made = holds[0][0]
            if self.together(made, number):
                operands.append(self.value(made, tuple(channel for _, channel in holds), group))
                continue
            copied = self.copies(holds)
            assert copied is not None
            operands.append(Expression("stored", copied[1], copied[0]))
        weight = None if one.weight is None else one.weight[:, list(channels)]
        return Expression(one.kind, operands=tuple(operands), weight=weight)


def stretches(rows: Sequence[tuple[int, ...]]) -> list[tuple[int, int]]:
    """The stretches [start, stop) of `rows`, of places, in which each column goes on in even steps."""
    steps = [tuple(after - before for before, after in zip(one, other, strict=True)) for one, other in pairwise(rows)]
    found, start = [], 0
    for at in range(2, len(rows)):
        if at - start >= 2 and steps[at - 1] != steps[start]:
            found.append((start, at))
            start = at
    return [*found, (start, len(rows))]
