"""The evaluation split is of another type, and nothing that learns takes it."""

import pytest
import torch

from bantam.data.splits import (
    IMAGENET,
    LabelledSplit,
    Normalisation,
    SemiLabelledSplit,
    UnlabelledSplit,
    joined,
    normalisation_of,
    require_labelled,
    require_training,
)
from bantam.errors import SplitLeak


def random_images(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 5, 7, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def labelled(images: torch.Tensor) -> LabelledSplit:
    ids = tuple(str(n) for n in range(len(images)))
    return LabelledSplit("training", images, torch.zeros(len(images), dtype=torch.int64), ids, ("a",))


def unlabelled(count: int) -> UnlabelledSplit:
    return UnlabelledSplit(random_images(count), tuple(f"{n:04d}" for n in range(count)))


def test_lengths():
    assert len(labelled(random_images(4))) == 4
    assert len(unlabelled(5)) == 5


def test_a_labelled_split_passes():
    split = labelled(random_images(2))
    assert require_labelled(split, "training") is split


def test_the_types_are_unrelated():
    assert not issubclass(UnlabelledSplit, LabelledSplit)
    assert not issubclass(LabelledSplit, UnlabelledSplit)
    assert not hasattr(unlabelled(1), "labels")


def test_the_evaluation_split_is_refused():
    with pytest.raises(SplitLeak, match="early stopping must not see the evaluation split"):
        require_labelled(unlabelled(2), "early stopping")
    with pytest.raises(SplitLeak, match="normalisation"):
        normalisation_of(unlabelled(2))  # pyright: ignore[reportArgumentType]
    with pytest.raises(SplitLeak, match="a Tensor"):
        require_labelled(random_images(2), "training")


def semi_labelled() -> SemiLabelledSplit:
    return SemiLabelledSplit("training", random_images(3), torch.tensor([0, -1, -1]), ("0", "u/0", "u/1"), ("a",))


def test_images_without_a_label_may_be_trained_on_and_nothing_else():
    split = semi_labelled()
    assert require_training(split, "training") is split
    assert split.unlabelled == 2
    with pytest.raises(SplitLeak, match="selection must not see a SemiLabelledSplit"):
        require_labelled(split, "selection")
    with pytest.raises(SplitLeak, match="training must not see the evaluation split"):
        require_training(unlabelled(2), "training")


def test_joining_keeps_what_has_no_label():
    both = joined(semi_labelled(), labelled(random_images(2)))
    assert isinstance(both, SemiLabelledSplit)
    assert both.labels.tolist() == [0, -1, -1, 0, 0]
    assert both.ids[1:4] == ("training/u/0", "training/u/1", "training/0")
    with pytest.raises(SplitLeak, match="a refit"):
        joined(semi_labelled(), semi_labelled())  # pyright: ignore[reportArgumentType]


def test_normalisation_equals_the_plain_formula():
    images = random_images(600)  # more than two chunks
    plain = images.double().reshape(-1, 3) / 255
    found = normalisation_of(labelled(images))
    assert found.mean == pytest.approx(plain.mean(0).tolist(), abs=1e-12)
    assert found.std == pytest.approx(plain.std(0, correction=0).tolist(), abs=1e-12)


def test_normalisation_golden_value():
    images = torch.tensor([[[[0, 255, 51]], [[255, 255, 102]]]], dtype=torch.uint8)  # [1, 2, 1, 3]
    found = normalisation_of(labelled(images))
    assert found.mean == pytest.approx((0.5, 1.0, 0.3))
    assert found.std == pytest.approx((0.5, 1 / 255, 0.1))


def test_imagenet():
    assert Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)) == IMAGENET


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (torch.zeros(2, 4, 4, 3), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(3, 4, 4, 3, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64)),
        (torch.zeros(2, 4, 4, 3, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(2, 4, 4, 3, dtype=torch.uint8), torch.zeros(2)),
    ],
)
def test_wrong_shapes_and_types(images: torch.Tensor, labels: torch.Tensor):
    with pytest.raises(ValueError):
        LabelledSplit("training", images, labels, ("0", "1"), ("a",))
    with pytest.raises(ValueError):
        SemiLabelledSplit("training", images, labels, ("0", "1"), ("a",))
