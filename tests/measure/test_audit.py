"""What an audit says of a teacher, from answers that are made up."""

import pytest
import torch
from torch import Tensor, nn

from bantam.data import augment
from bantam.data.augment import Augmentation, Viewing
from bantam.data.splits import IMAGENET, LabelledSplit, UnlabelledSplit
from bantam.errors import SplitLeak
from bantam.measure.accuracy import Accuracy, accuracy, calibration, soft_label_facts
from bantam.measure.audit import TEMPERATURES, Audit, Looked, audit
from bantam.nets.output import Output

STRONG = Augmentation(scale=(0.3, 0.6), cutmix=1.0)


class Colours(nn.Module):
    """Three classes by the mean of each colour; notes how many images it was asked about."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(3.0))
        self.asked: list[int] = []

    def observe(self, images: Tensor) -> Output:
        self.asked.append(len(images))
        logits = self.scale * images.mean((2, 3))
        return Output(logits, logits, ())


def split(name: str, n: int) -> LabelledSplit:
    generator = torch.Generator().manual_seed(n)
    images = torch.randint(256, (n, 16, 16, 3), dtype=torch.uint8, generator=generator)
    return LabelledSplit(name, images, torch.arange(n) % 3, tuple(map(str, range(n))), ("a", "b", "c"))


def looks(training: int, validation: int, n: int = 400) -> Audit:
    found = calibration(torch.zeros(1, 3), torch.tensor([0]))
    return Audit(
        tuple(
            Looked(name, augmented, Accuracy(correct, n), found, {})
            for augmented, pair in ((False, (training, validation)), (True, (1, 2)))
            for name, correct in zip(("training", "validation"), pair, strict=True)
        )
    )


def test_the_gap_is_that_of_the_plain_views_with_its_error():
    gap, error = looks(300, 200).gap
    assert gap == 0.25
    assert error == pytest.approx((0.75 * 0.25 / 400 + 0.5 * 0.5 / 400) ** 0.5)


def test_the_verdict_is_memorised_better_on_training_or_within_the_noise():
    assert looks(389, 389).verdict.startswith("it has memorised its training images (0.973)")
    assert "memorised" not in looks(388, 388).verdict  # 0.97 is not above 0.97
    # The error of the difference is about 0.035: 0.1 is within three of it, 0.11 is not.
    error = looks(244, 200).gap[1]
    assert 0.1 < 3 * error < 0.11
    assert looks(244, 200).verdict.startswith(f"it is better on training by 0.110 ± {error:.3f}")
    assert "within the noise" in looks(240, 200).verdict
    assert "within the noise" in looks(200, 244).verdict


def test_both_splits_are_seen_plain_and_augmented():
    torch.manual_seed(0)
    teacher, training, validation = Colours(), split("training", 300), split("validation", 9)
    found = audit(teacher, training, validation, Viewing(3, STRONG, 16, IMAGENET))
    assert [(look.split, look.augmented) for look in found.looks] == [
        ("training", False), ("validation", False), ("training", True), ("validation", True),
    ]  # fmt: skip
    # Batches of 128, and of an odd number the last is left away: it has no partner.
    assert teacher.asked == [128, 128, 44, 8] * 2
    for look in found.looks:
        asked = training if look.split == "training" else validation
        index = torch.arange(len(asked) // 2 * 2)
        used = STRONG if look.augmented else Augmentation(flip=0.0)
        images, ratio = augment.render(asked.images, index, 0, Viewing(3, used, 16, IMAGENET))
        logits, targets = teacher.observe(images).logits.detach(), augment.soft_targets(asked.labels[index], ratio, 3)
        assert look.accuracy == accuracy(logits, targets.argmax(1))
        assert look.calibration == pytest.approx(calibration(logits, targets.argmax(1)), abs=1e-6)
        assert set(look.soft) == set(TEMPERATURES) == {1, 2, 4, 8}
        for temperature, facts in look.soft.items():
            expected = soft_label_facts(logits, targets, temperature)
            assert facts[:2] == pytest.approx(expected[:2], abs=1e-6)
            assert facts.accuracy == expected.accuracy
    told = found.to_json()
    assert told["looks"][0]["soft_labels"]["4"]["entropy"] == found.looks[0].soft[4.0].entropy
    assert told["looks"][2]["augmented"] is True
    assert told["looks"][1]["n"] == 8
    assert (told["gap"], told["gap_standard_error"]) == found.gap
    assert told["verdict"] == found.verdict


def test_a_few_images_are_drawn_evenly_from_both_ends():
    asked: list[Tensor] = []

    class Noting(Colours):
        def observe(self, images: Tensor) -> Output:
            asked.append(images)
            return super().observe(images)

    training = split("training", 10)
    audit(Noting(), training, split("validation", 2), Viewing(0, STRONG, 16, IMAGENET), images=4)
    chosen = torch.tensor([0, 3, 6, 9])
    viewing = Viewing(0, Augmentation(flip=0.0), 16, IMAGENET)
    images = augment.render(training.images, chosen, 0, viewing)[0]
    assert torch.equal(asked[0], images)
    assert len(asked[1]) == 2


def test_evaluation_images_are_refused():
    unlabelled = UnlabelledSplit(torch.zeros(2, 16, 16, 3, dtype=torch.uint8), ("0", "1"))
    with pytest.raises(SplitLeak, match="audit"):
        audit(Colours(), split("training", 4), unlabelled, Viewing(0, STRONG, 16, IMAGENET))  # pyright: ignore[reportArgumentType]
