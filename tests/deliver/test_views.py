"""Test-time views: against the sum written out, and chosen on validation only."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bantam.data import cache
from bantam.data.augment import plain
from bantam.data.splits import IMAGENET
from bantam.deliver import views
from bantam.deliver.views import VIEWS, View, choose_views, crop, logits_of_views, views_of
from bantam.errors import BadData, SplitLeak
from bantam.measure.accuracy import accuracy
from bantam.measure.logits import logits_of
from bantam.nets.students import describe


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return describe("mobilenet_v1", 5000, 3, 32).build().eval()


@pytest.mark.parametrize("name", VIEWS)
def test_weights_add_up_to_one_and_crops_stay_within_the_image(name: str) -> None:
    assert sum(view.weight for view in VIEWS[name]) == pytest.approx(1)
    for view in VIEWS[name]:
        assert 0 <= view.left <= view.left + view.side <= 1
        assert 0 <= view.top <= view.top + view.side <= 1
    mirrored = [view.mirrored for view in VIEWS[name]]
    assert name == "plain" or sum(mirrored) * 2 == len(mirrored)


@pytest.mark.parametrize("name", VIEWS)
def test_answers_are_the_weighted_mean_of_log_probabilities(
    name: str, net: nn.Module, photographs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(views, "CHUNK", 7)
    split = cache.open_splits(photographs, 32).validation
    expected: Tensor = torch.zeros(len(split), 3)
    with torch.no_grad():
        for view in VIEWS[name]:
            top, left, side = round(view.top * 32), round(view.left * 32), round(view.side * 32)
            part = split.images[:, top : top + side, left : left + side]
            pixels = plain(part, 32, IMAGENET.mean, IMAGENET.std)
            expected += view.weight * net(pixels.flip(3) if view.mirrored else pixels).log_softmax(1)
    said = logits_of_views(net, split, 32, IMAGENET, name)
    torch.testing.assert_close(said.log_softmax(1), expected.log_softmax(1), rtol=1e-4, atol=1e-4)
    if name != "plain":
        torch.testing.assert_close(said, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "flip"), [("plain", False), ("flip", True)])
def test_one_and_two_views_are_what_the_loop_measures_with(
    name: str, flip: bool, net: nn.Module, photographs: Path
) -> None:
    split = cache.open_splits(photographs, 32).validation
    assert torch.equal(logits_of_views(net, split, 32, IMAGENET, name), logits_of(net, split, 32, IMAGENET, flip=flip))


def test_a_corner_is_that_corner() -> None:
    images = torch.arange(16 * 16, dtype=torch.uint8).view(1, 16, 16, 1).expand(1, 16, 16, 3)
    seen = crop(images, View(0.5, 0.5, 0.0), 8, IMAGENET)
    assert torch.equal(seen, plain(images[:, :8, 8:], 8, IMAGENET.mean, IMAGENET.std))
    assert torch.equal(crop(images, View(0.5, 0.5, 0.0, mirrored=True), 8, IMAGENET), seen.flip(3))


def test_the_best_on_validation_is_chosen_and_the_cheapest_of_equals(net: nn.Module, photographs: Path) -> None:
    split = cache.open_splits(photographs, 32).validation
    chosen, measured = choose_views(net, split, 32, IMAGENET)
    assert list(measured) == list(VIEWS)
    for name, item in measured.items():
        assert item == accuracy(logits_of_views(net, split, 32, IMAGENET, name), split.labels)
    assert measured[chosen].correct == max(item.correct for item in measured.values())

    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.answer = nn.Parameter(torch.tensor([1.0, 0.0, 0.0]))

        def forward(self, images: Tensor) -> Tensor:
            return self.answer.expand(len(images), 3)

    assert choose_views(Constant(), split, 32, IMAGENET)[0] == "plain"


def test_the_evaluation_split_chooses_nothing(net: nn.Module, photographs: Path) -> None:
    with pytest.raises(SplitLeak, match="test-time views"):
        choose_views(net, cache.open_splits(photographs, 32).evaluation, 32, IMAGENET)  # pyright: ignore


def test_an_unknown_name_is_refused(net: nn.Module, photographs: Path) -> None:
    with pytest.raises(BadData, match="choose from plain, flip, zoom, crops"):
        logits_of_views(net, cache.open_splits(photographs, 32).validation, 32, IMAGENET, "corners")


def test_a_run_from_before_there_were_crops_is_understood() -> None:
    assert views_of({"flip": True}) == "flip"
    assert views_of({"flip": False}) == "plain"
    assert views_of({"flip": True, "views": "crops"}) == "crops"


def test_choosing_keeps_no_graph_for_a_backward_pass(net: nn.Module, photographs: Path) -> None:
    """With one, the twelve views of a few thousand images would fill the memory."""
    seen: list[bool] = []
    net.register_forward_hook(lambda module, inputs, output: seen.append(output.requires_grad))
    choose_views(net, cache.open_splits(photographs, 32).validation, 32, IMAGENET)
    assert seen
    assert not any(seen)
