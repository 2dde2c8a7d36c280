"""A given teacher is told by its weights, and looks at the side at which it is right most often."""

from pathlib import Path

import pytest
import torch

from bantam.data.splits import LabelledSplit
from bantam.errors import BadCheckpoint, BadData
from bantam.fit import sight
from bantam.measure.counts import Accuracy
from bantam.nets.teachers import build_teacher, recognised
from bantam.runs.watcher import Watcher


@pytest.fixture
def validation() -> LabelledSplit:
    labels = torch.arange(30) % 3
    pixels = torch.randint(0, 256, (30, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return LabelledSplit("validation", pixels, labels, tuple(map(str, range(30))), ("a", "b", "c"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "mine.ckpt"
    torch.manual_seed(0)
    torch.save(build_teacher("resnet34", 3).state_dict(), path)
    return path


def test_its_architecture_is_told_by_its_weights(weights: Path) -> None:
    name, net = recognised(weights, 3)
    assert name == "resnet34"
    assert not net.training
    with pytest.raises(BadCheckpoint, match="classes"):
        recognised(weights, 4)


def test_the_best_side_is_taken_and_the_smaller_of_equals(
    weights: Path, validation: LabelledSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = {64: 20, 96: 25, 128: 25, 160: 12, 224: 11}
    monkeypatch.setattr(sight, "judged", lambda net, few, size, side: Accuracy(right[side], len(few)))
    monkeypatch.setattr(sight, "timed", lambda work, seconds: work() is None or 3.0)
    name, side, speed = sight.look_at_given(weights, validation, 32, Watcher())
    assert (name, side) == ("resnet34", 96)
    assert speed.answer == pytest.approx(3.0 / 30)


def test_one_that_knows_nothing_of_the_photographs_is_refused(
    weights: Path, validation: LabelledSplit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sight, "judged", lambda net, few, size, side: Accuracy(10, len(few)))
    with pytest.raises(BadData, match=r"the largest class is on 0\.333.* leave --teacher out"):
        sight.look_at_given(weights, validation, 32, Watcher())
