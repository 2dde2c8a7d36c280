"""Test-time views: against the sum written out, and chosen on validation only."""

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bantam.data import cache
from bantam.data.augment import plain
from bantam.data.splits import IMAGENET
from bantam.errors import BadData, SplitLeak
from bantam.measure import logits
from bantam.measure import tta as views
from bantam.measure.accuracy import accuracy
from bantam.measure.crops import tta_of
from bantam.measure.dynamic import combined
from bantam.measure.logits import logits_of
from bantam.measure.tta import (
    TTA,
    Crop,
    answer_while_unsure,
    answers_of_tta,
    choose_tta,
    cropped,
    ladder,
    logits_of_tta,
)
from bantam.nets.early_exit import confidence
from bantam.nets.footprint import footprint
from bantam.nets.students import describe


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return describe("mobilenet_v1", 5000, 3, 32).build().eval()


@pytest.mark.parametrize("name", TTA)
def test_weights_add_up_to_one_and_crops_stay_within_the_image(name: str) -> None:
    assert sum(view.weight for view in TTA[name]) == pytest.approx(1)
    for view in TTA[name]:
        assert 0 <= view.left <= view.left + view.side <= 1
        assert 0 <= view.top <= view.top + view.side <= 1
    mirrored = [view.mirrored for view in TTA[name]]
    assert name == "plain" or sum(mirrored) * 2 == len(mirrored)


@pytest.mark.parametrize("name", TTA)
def test_answers_are_the_weighted_mean_of_log_probabilities(
    name: str, net: nn.Module, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(logits.CHUNKS, "cpu", 7)
    split = cache.open_splits(photographs, 32).validation
    expected: Tensor = torch.zeros(len(split), 3)
    with torch.no_grad():
        for view in TTA[name]:
            top, left, side = round(view.top * 32), round(view.left * 32), round(view.side * 32)
            part = split.images[:, top : top + side, left : left + side]
            pixels = plain(part, 32, IMAGENET.mean, IMAGENET.std)
            expected += view.weight * net(pixels.flip(3) if view.mirrored else pixels).log_softmax(1)
    said = logits_of_tta(net, split, 32, IMAGENET, name)
    torch.testing.assert_close(said.log_softmax(1), expected.log_softmax(1), rtol=1e-4, atol=1e-4)
    if name != "plain":
        torch.testing.assert_close(said, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "flip"), [("plain", False), ("flip", True)])
def test_one_and_two_views_are_what_the_loop_measures_with(
    name: str, flip: bool, net: nn.Module, photographs: Path
) -> None:
    split = cache.open_splits(photographs, 32).validation
    assert torch.equal(logits_of_tta(net, split, 32, IMAGENET, name), logits_of(net, split, 32, IMAGENET, flip=flip))


def test_a_corner_is_that_corner() -> None:
    images = torch.arange(16 * 16, dtype=torch.uint8).view(1, 16, 16, 1).expand(1, 16, 16, 3)
    seen = cropped(images, Crop(0.5, 0.5, 0.0), 8, IMAGENET)
    assert torch.equal(seen, plain(images[:, :8, 8:], 8, IMAGENET.mean, IMAGENET.std))
    assert torch.equal(cropped(images, Crop(0.5, 0.5, 0.0, mirrored=True), 8, IMAGENET), seen.flip(3))


def test_the_best_on_validation_is_chosen_and_the_cheapest_of_equals(net: nn.Module, photographs: Path) -> None:
    split = cache.open_splits(photographs, 32).validation
    chosen, answers = choose_tta(net, split, 32, IMAGENET)
    assert list(answers) == list(TTA)
    for name, rows in answers.items():
        assert torch.equal(rows, logits_of_tta(net, split, 32, IMAGENET, name))
    measured = {name: accuracy(rows, split.labels) for name, rows in answers.items()}
    assert measured[chosen].correct == max(item.correct for item in measured.values())

    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.answer = nn.Parameter(torch.tensor([1.0, 0.0, 0.0]))

        def forward(self, images: Tensor) -> Tensor:
            return self.answer.expand(len(images), 3)

    assert choose_tta(Constant(), split, 32, IMAGENET)[0] == "plain"


def test_the_evaluation_split_chooses_nothing(net: nn.Module, photographs: Path) -> None:
    with pytest.raises(SplitLeak, match="TTA"):
        choose_tta(net, cache.open_splits(photographs, 32).evaluation, 32, IMAGENET)  # pyright: ignore


def test_an_unknown_name_is_refused(net: nn.Module, photographs: Path) -> None:
    with pytest.raises(BadData, match="--views is one of plain, flip, zoom, crops"):
        logits_of_tta(net, cache.open_splits(photographs, 32).validation, 32, IMAGENET, "corners")


def test_a_run_from_before_there_were_crops_is_understood() -> None:
    assert tta_of({"flip": True}) == "flip"
    assert tta_of({"flip": False}) == "plain"
    assert tta_of({"flip": True, "views": "crops"}) == "crops"


def test_choosing_keeps_no_graph_for_a_backward_pass(net: nn.Module, photographs: Path) -> None:
    """With one, the twelve views of a few thousand images would fill the memory."""
    seen: list[bool] = []
    net.register_forward_hook(lambda module, inputs, output: seen.append(output.requires_grad))
    choose_tta(net, cache.open_splits(photographs, 32).validation, 32, IMAGENET)
    assert seen
    assert not any(seen)


def test_each_list_of_views_holds_the_one_before() -> None:
    names = ladder("crops")
    assert names == tuple(TTA)
    for fewer, more in itertools.pairwise(names):
        assert {view.part for view in TTA[fewer]} < {view.part for view in TTA[more]}
    assert ladder("flip") == ("plain", "flip")
    for name in ("plain", "corners"):
        with pytest.raises(BadData, match=f"{name}; choose --views from flip, zoom, crops"):
            ladder(name)


@pytest.mark.parametrize("name", list(TTA)[1:])
def test_further_views_are_taken_by_the_unsure_alone(
    name: str, net: nn.Module, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(logits.CHUNKS, "cpu", 7)
    split, names = cache.open_splits(photographs, 32).validation, ladder(name)
    ways = answers_of_tta(net, split, 32, IMAGENET, names).unbind(0)
    threshold = float(confidence(ways[0]).median())
    expected, places = combined(ways, threshold)
    looked: list[int] = []
    monkeypatch.setattr(views, "cropped", lambda images, *rest: looked.append(len(images)) or cropped(images, *rest))
    left = answer_while_unsure(net, split, 32, IMAGENET, name, threshold)
    assert torch.equal(left.place, places)
    assert 0 < left.counts[0] < len(split)
    torch.testing.assert_close(left.logits, expected, rtol=1e-4, atol=1e-4)
    passes = [len(TTA[each]) for each in names]
    assert sum(looked) == sum(n * count for n, count in zip(left.counts, passes, strict=True))
    assert left.macs == tuple(count * footprint(net, 32).macs for count in passes)
    assert left.mean_macs == pytest.approx(footprint(net, 32).macs * sum(looked) / len(split))


def test_a_threshold_of_one_takes_all_views_and_of_zero_only_the_first(net: nn.Module, photographs: Path) -> None:
    split = cache.open_splits(photographs, 32).validation
    whole, first = (answer_while_unsure(net, split, 32, IMAGENET, "zoom", threshold) for threshold in (1.0, 0.0))
    assert whole.counts == [0, 0, len(split)]
    assert torch.equal(whole.logits, logits_of_tta(net, split, 32, IMAGENET, "zoom"))
    assert first.counts == [len(split), 0, 0]
    assert torch.equal(first.logits, logits_of_tta(net, split, 32, IMAGENET, "plain"))
    with pytest.raises(BadData, match=r"--view-confidence = 1\.5 must lie in 0\.\.1"):
        answer_while_unsure(net, split, 32, IMAGENET, "zoom", 1.5)
