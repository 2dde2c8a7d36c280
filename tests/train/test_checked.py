"""A CUDA graph is used only if it does what the plain steps do, and a batch that does not fit is taken in parts.

No GPU is needed: stand-ins for the graph are right, or wrong in the ways in which a graph may be; a stand-in for the
memory holds so many images and no more.
"""

import json
import re
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from bantam.data import batches, cache
from bantam.data.splits import IMAGENET, SemiLabelledSplit
from bantam.errors import TrainingStopped
from bantam.nets.students import describe
from bantam.pipeline import run as pipeline
from bantam.recipes.recipe import parse
from bantam.runs.watcher import Watcher
from bantam.train import loop
from bantam.train.arithmetic import Arithmetic
from bantam.train.capture import Captured, Snapshot, state_of
from bantam.train.checked import CHECKED, Checked
from bantam.train.distributed import Processes
from bantam.train.plan import Plan
from bantam.train.step import Step
from bantam.train.ways import OneByOne, way_of
from ranks import Exact
from tiny_run import RECIPE, tiny_step

FULL = torch.OutOfMemoryError("CUDA out of memory")


class Graph:
    """What a captured step is to be: the step."""

    def __init__(self, step: Step, index: Tensor, view: Tensor) -> None:
        self.step, self.replays = step, 0
        self.index, self.view = index, view
        torch.rand(3)  # the making of a graph draws random numbers
        step(index, view)
        for value in state_of(step).values():
            value.zero_()  # and leaves nothing as it was

    def __call__(self, index: Tensor, view: Tensor) -> dict[str, Tensor]:
        self.replays += 1
        return self.wrong(self.step(*self.taken(index, view)))

    def taken(self, index: Tensor, view: Tensor) -> tuple[Tensor, Tensor]:
        return index, view

    def wrong(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        return terms


class Rounds(Graph):
    """Adds up in another order."""

    @torch.no_grad()
    def wrong(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        for parameter in self.step.parameters:
            parameter.mul_(1 + 1e-6)
        return {name: term * 1.001 for name, term in terms.items()}


class NotMade(Graph):
    def __init__(self, step: Step, index: Tensor, view: Tensor) -> None:
        super().__init__(step, index, view)
        raise RuntimeError("operation not permitted\nwhen stream is capturing")


class NotReplayed(Graph):
    def wrong(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        raise RuntimeError("an illegal memory access")


class OneWeight(Graph):
    @torch.no_grad()
    def wrong(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        self.step.parameters[3].view(-1)[0] += 0.01
        return terms


class StandsStill(Graph):
    """One layer was left out of the graph."""

    def __call__(self, index: Tensor, view: Tensor) -> dict[str, Tensor]:
        before = self.step.parameters[3].detach().clone()
        terms = super().__call__(index, view)
        with torch.no_grad():
            self.step.parameters[3].copy_(before)
        return terms


class SameBatch(Graph):
    """Reads the batch with which it was made."""

    def taken(self, index: Tensor, view: Tensor) -> tuple[Tensor, Tensor]:
        return self.index, self.view


class NoCount(Graph):
    """The number of the step was read on the CPU, and so were the rate of learning and that of averaging."""

    def wrong(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        self.step.count -= 1
        return terms


class AveragesNothing(Graph):
    def __call__(self, index: Tensor, view: Tensor) -> dict[str, Tensor]:
        assert self.step.ema
        before = {name: value.clone() for name, value in self.step.ema.net.state_dict().items()}
        terms = super().__call__(index, view)
        self.step.ema.net.load_state_dict(before)
        return terms


class LossNan(Graph):
    def wrong(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: term * torch.nan for name, term in terms.items()}


class WeightNan(Graph):
    @torch.no_grad()
    def wrong(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        self.step.parameters[0].view(-1)[0] = torch.nan
        return terms


def taken_by(way: Any, photographs: Path, steps: int = CHECKED + 2) -> list[float]:
    """The losses of some steps of the first epoch."""
    order = batches.epoch(60, 10, 0, 0)
    view = torch.zeros_like(order[0])
    return [float(way(order[row], view, order[row + 1])["loss"]) for row in range(steps)]


def checked(step: Step, capture: Any) -> tuple[Checked, list[str]]:
    said: list[str] = []
    return Checked(step, said.append, lambda images: None, capture), said


@pytest.fixture(scope="module")
def expected(photographs: Path) -> tuple[list[float], dict[str, Tensor], Tensor]:
    """The plain steps' losses, where they end, and the random number that comes next."""
    step = tiny_step(photographs)
    torch.manual_seed(5)
    losses = taken_by(lambda index, view, _: step(index, view), photographs)
    return losses, state_of(step), torch.rand(1)


FOUND = {
    NotMade: "RuntimeError, operation not permitted when stream is capturing",
    NotReplayed: "RuntimeError, an illegal memory access",
    OneWeight: "net ends .* off in one place",
    StandsStill: "net.stages.* does not change",
    SameBatch: "the loss of step 2 is",
    NoCount: "net ends .* off|count is another number",
    AveragesNothing: "ema.* does not change",
    LossNan: "the loss of step 1 is nan and not",
    WeightNan: "the loss of step 2 is nan and not",
}


@pytest.mark.parametrize("graph", [Graph, Rounds, *FOUND], ids=lambda kind: kind.__name__)
def test_a_training_is_the_plain_steps_whatever_the_graph_does(
    graph: type[Graph], photographs: Path, expected: tuple[list[float], dict[str, Tensor], Tensor]
) -> None:
    step = tiny_step(photographs)
    torch.manual_seed(5)
    way, said = checked(step, graph)
    losses, state, drawn = expected
    assert taken_by(way, photographs, CHECKED) == losses[:CHECKED]
    assert len(said) == 1
    if graph in FOUND:
        assert way.graph is None
        pattern = f"steps are taken plainly, for as a CUDA graph they are not the same: ({FOUND[graph]})"
        assert re.match(pattern, said[0]), said
        assert "\n" not in said[0]
    else:
        assert way.graph is not None
        assert said == ["3 steps as a CUDA graph agree with the plain ones: it is replayed from now on"]
    if graph is Rounds:
        return
    order = batches.epoch(60, 10, 0, 0)
    for row in range(CHECKED, CHECKED + 2):
        assert float(way(order[row], torch.zeros_like(order[row]), order[row + 1])["loss"]) == losses[row]
    for name, value in state_of(step).items():
        assert torch.equal(value, state[name]), name
    assert torch.equal(torch.rand(1), drawn)
    assert len(said) == 1
    if isinstance(way.graph, Graph):
        assert way.graph.replays == CHECKED + 2


def test_an_epoch_of_fewer_steps_is_checked_by_these(photographs: Path) -> None:
    """The next epoch's answers would take the place of this one's."""
    way, said = checked(tiny_step(photographs), Graph)
    index = torch.arange(10)
    way(index, torch.zeros_like(index), index)
    assert not said
    way(index + 10, torch.zeros_like(index), None)
    assert said == ["2 steps as a CUDA graph agree with the plain ones: it is replayed from now on"]


def test_steps_that_are_not_to_be_captured_are_plain(photographs: Path) -> None:
    way, said = checked(tiny_step(photographs), None)
    taken_by(way, photographs)
    assert way.graph is None
    assert not said


# --- memory


class Small(Step):
    """A step in a memory of `room` images: it breaks off in the middle, after BatchNorm has moved."""

    room = 6

    def terms(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        terms = super().terms(*args, **kwargs)
        if len(args[0]) > self.room:
            raise FULL
        return terms


def small_step(photographs: Path, room: int, kind: type[Step] = Small) -> Any:
    step: Any = tiny_step(photographs)
    step.__class__ = kind
    step.room = room
    return step


@pytest.mark.parametrize(("room", "parts"), [(10, []), (6, [6]), (5, [6, 4]), (3, [6, 4, 2])])
def test_out_of_memory_halves_the_micro_batch(room: int, parts: list[int], photographs: Path) -> None:
    """Batches of 10: what was begun is undone, and all is as if the parts had been so from the start."""
    step, plain = small_step(photographs, room), tiny_step(photographs)
    plain.micro_batch = parts[-1] if parts else None
    said: list[str] = []
    kept: list[int] = []
    way = Checked(step, said.append, kept.append, None)
    torch.manual_seed(5)
    losses = taken_by(way, photographs)
    assert losses == taken_by(lambda index, view, _: plain(index, view), photographs)
    for name, value in state_of(plain).items():
        assert torch.equal(value, state_of(step)[name]), name
    assert kept == parts
    assert [line.split(":")[0] for line in said] == ["out of memory"] * len(parts)
    for line, part in zip(said, parts, strict=True):
        assert f"a batch of 10 images is taken in parts of {part} from now on" in line


class LateSmall(Small):
    """Breaks off when all is done but the counting: weights and the optimizer's memory are new."""

    def terms(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        return Step.terms(self, *args, **kwargs)

    def average(self) -> None:
        if (self.micro_batch or 10) > self.room:
            raise FULL
        super().average()


class NoRoomForMoments(Small):
    """Breaks off when the optimizer has made half of its memory."""

    def terms(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        return Step.terms(self, *args, **kwargs)

    def move(self) -> None:
        if (self.micro_batch or 10) > self.room:
            self.optimizer.state[self.parameters[0]]["step"] = torch.ones(())
            raise FULL
        super().move()


@pytest.mark.parametrize("kind", [LateSmall, NoRoomForMoments])
def test_a_step_that_breaks_off_is_undone_wherever_it_was(kind: type[Step], photographs: Path) -> None:
    step, plain = small_step(photographs, 6, kind), tiny_step(photographs)
    plain.micro_batch = 6
    way, _ = checked(step, None)
    assert taken_by(way, photographs) == taken_by(lambda index, view, _: plain(index, view), photographs)
    for name, value in state_of(plain).items():
        assert torch.equal(value, state_of(step)[name]), name


def test_where_two_images_do_not_fit_one_line_says_so(photographs: Path) -> None:
    step = small_step(photographs, 1)
    before = Snapshot(step)
    way, said = checked(step, Graph)
    with pytest.raises(
        TrainingStopped, match='stage "student": not even 2 images at a time fit the memory of the GPU;'
    ):
        taken_by(way, photographs)
    assert len(said) == 3
    for name, value in state_of(step).items():
        assert torch.equal(value, before.tensors[name]), name


def test_a_graph_that_does_not_fit_halves_it_and_is_tried_again(photographs: Path) -> None:
    """Steps that were taken stay as they were; where the smallest graph does not fit, plain steps still may."""

    class Large(Graph):
        def __init__(self, step: Step, index: Tensor, view: Tensor) -> None:
            super().__init__(step, index, view)
            if (step.micro_batch or 10) > room:
                raise FULL

    for room, parts in ((6, [6]), (1, [6, 4, 2])):
        step, plain = tiny_step(photographs), tiny_step(photographs)
        said: list[str] = []
        kept: list[int] = []
        way = Checked(step, said.append, kept.append, Large)
        index = torch.arange(10)
        for number in range(CHECKED * (len(parts) + 1)):
            plain.micro_batch = [None, *parts][number // CHECKED]
            right = plain(index, torch.full_like(index, number))
            assert torch.equal(way(index, torch.full_like(index, number), index)["loss"], right["loss"]), number
        assert kept == parts
        assert (way.graph is not None) == (room == 6)
        assert len(said) == len(parts) + 1
        if room == 1:
            assert said[-1].endswith("it does not fit the memory")


class Flat(Exact):
    """A step in float64 without BatchNorm's batch statistics: parts then make up the whole."""

    def terms(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        self.net.eval()
        return super().terms(*args, **kwargs)


@pytest.mark.parametrize("unlabelled", [0, 20])
def test_parts_add_up_to_the_whole_batch(unlabelled: int, photographs: Path) -> None:
    """Also of unequal parts, and where images have no label: parts have other shares of them than the batch."""
    splits = cache.open_splits(photographs, 32)
    stage, training = parse(RECIPE).shipped, splits.training
    if unlabelled:
        labels = training.labels.clone()
        labels[torch.arange(len(labels)) % 3 == 0] = -1
        training = SemiLabelledSplit("training", training.images, labels, training.ids, training.classes)
    steps: list[Step] = []
    for micro_batch in (None, 4):
        torch.manual_seed(0)
        net = describe("mobilenet_v1", 5000, 3, 32).build()
        plan = Plan(stage, training, IMAGENET, pipeline.goals_of(stage))
        steps.append(Flat(net, plan, 100, Arithmetic(micro_batch=micro_batch)))
    index = torch.tensor([0, 3, 6, 9, 12, 15, 18, 1, 2, 4])
    for number in range(3):
        whole, parts = (step(index, torch.full_like(index, number)) for step in steps)
        torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-6, check_dtype=False)
    for name, value in state_of(steps[0]).items():
        if name.startswith("net."):
            torch.testing.assert_close(state_of(steps[1])[name], value, rtol=1e-4, atol=1e-5)


class Onlooker(Watcher):
    """Writes down what is said, and stops the process after step `stop`."""

    def __init__(self, stop: int = 0) -> None:
        self.stop, self.said = stop, list[str]()

    def say(self, text: str) -> None:
        self.said.append(text)

    def explain(self, text: str) -> None:
        self.said.append(text)  # on a CPU, where no memory changes what is computed

    def advance(self, done: int) -> None:
        if done == self.stop:
            raise KeyboardInterrupt


def test_a_resumed_training_takes_the_same_parts(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = parse(RECIPE.replace("epochs = 4", "epochs = 2"))
    monkeypatch.setattr(loop, "way_of", lambda step, say, keep: Checked(step, say, keep, Graph))
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    whole, stopped, again = Onlooker(), Onlooker(stop=8), Onlooker()
    with monkeypatch.context() as patch:
        terms = Step.terms

        def in_little_room(step: Step, images: Tensor, *further: Any) -> dict[str, Tensor]:
            if len(images) > 6:
                raise FULL
            return terms(step, images, *further)

        patch.setattr(Step, "terms", in_little_room)
        pipeline.run(recipe, photographs, tmp_path / "whole", whole)
        with pytest.raises(KeyboardInterrupt):
            pipeline.run(recipe, photographs, tmp_path / "run", stopped)
    probe = tmp_path / "run/stages/student/probe.json"
    assert json.loads(probe.read_text())["micro_batch"] == 6
    pipeline.run(recipe, photographs, tmp_path / "run", again)  # where all would fit
    assert any("student: out of memory" in line for line in stopped.said)
    assert not any("out of memory" in line for line in again.said)
    assert any("micro-batches of 6" in line for line in again.said)
    ends = [torch.load(tmp_path / run / "student_best.ckpt") for run in ("whole", "run")]
    for name, value in ends[0].items():
        assert torch.equal(value, ends[1][name]), name
    assert sum("as a CUDA graph agree" in line for line in again.said) == 1


def test_steps_of_other_parts_are_not_held_against_the_graph(photographs: Path) -> None:
    """The memory fills up with the second step: what is compared begins there."""

    class Later(Small):
        def terms(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
            self.room = 10 if int(self.count) == 0 else 6
            return super().terms(*args, **kwargs)

    step, plain = small_step(photographs, 10, Later), tiny_step(photographs)
    way, said = checked(step, Graph)
    index = torch.arange(10)
    for number in range(CHECKED + 2):
        plain.micro_batch = 6 if number else None
        right = plain(index, torch.full_like(index, number))
        assert torch.equal(way(index, torch.full_like(index, number), index)["loss"], right["loss"]), number
    assert [line.split(":")[0] for line in said] == [
        "out of memory",
        "3 steps as a CUDA graph agree with the plain ones",
    ]


class Anywhere:
    """A step on a GPU, as far as is asked before the first step is taken."""

    device = torch.device("cuda")

    def __init__(self, world: int = 1, takes_turns: bool = False, fits: bool = True) -> None:
        self.processes, self.takes_turns, self.fits = Processes(world=world), takes_turns, fits
        self.resident = False

    def settle(self) -> None:
        if not self.fits:
            raise FULL
        self.resident = True


def test_on_a_gpu_steps_are_checked_and_captured_where_they_can_be() -> None:
    said: list[str] = []

    def way(step: Anywhere) -> Any:
        return way_of(cast(Any, step), said.append, lambda images: None)

    alone = Anywhere()
    assert way(alone).capture is Captured
    assert alone.resident
    assert way(Anywhere(takes_turns=True)).capture is None
    assert isinstance(way(Anywhere(world=2)), OneByOne)
    assert not said
    assert way(Anywhere(fits=False)).capture is None
    assert said == ["the photographs do not fit the GPU's memory: they stay outside, and steps are taken plainly"]
