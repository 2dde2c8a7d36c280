import pytest
import torch

from bantam.errors import BadData
from bantam.measure.accuracy import Accuracy, accuracy, hits, mcnemar
from bantam.measure.dynamic import (
    Left,
    Point,
    cheapest,
    combined,
    curve,
    held_out,
    point,
    require_reached,
    require_share,
    within_drop,
    within_macs,
)
from bantam.nets.early_exit import confidence

FIRST = torch.tensor([[4.0, 0.0], [0.2, 0.0], [0.0, 3.0], [0.0, 0.1]])
LAST = torch.tensor([[0.0, 1.0], [0.0, 2.0], [0.0, 5.0], [3.0, 0.0]])
LABELS = torch.tensor([0, 1, 1, 0])


def test_sure_images_stop_and_the_others_pay_twice():
    logits, left = combined((FIRST, LAST), 0.9)
    assert left.tolist() == [0, 1, 0, 1]
    assert torch.equal(logits, torch.stack((FIRST[0], LAST[1], FIRST[2], LAST[3])))
    found = point((FIRST, LAST), LABELS, (10, 110), 0.9)
    assert found.mean_macs == 10 + 0.5 * 100
    assert found.shares == (0.5, 0.5)
    assert found.accuracy.correct == 4
    assert point((FIRST, LAST), LABELS, (10, 110), 0.0).mean_macs == 10
    assert point((FIRST, LAST), LABELS, (10, 110), 1.01).mean_macs == 110


def test_the_curve_runs_from_nearly_all_going_on_to_all_stopping():
    torch.manual_seed(0)
    first, last, labels = torch.randn(400, 5), torch.randn(400, 5), torch.randint(0, 5, (400,))
    points = curve((first, last), labels, (10, 110))
    shares = [item.stopped for item in points]
    assert shares == sorted(shares)
    assert shares[0] <= 0.01
    assert shares[-1] == 1
    assert points[-1].accuracy == accuracy(first, labels)
    reference = accuracy(last, labels)
    assert cheapest(points, reference, 1.0) == points[-1]
    best = cheapest(points, reference, 0.0)
    assert best is None or best.accuracy.value >= reference.value
    assert cheapest(points, type(reference)(reference.n, reference.n), 0.0) is None


def test_held_out_accuracy_is_that_of_the_last_pass_where_nothing_may_stop():
    torch.manual_seed(0)
    labels = torch.randint(0, 5, (200,))
    last = 9 * torch.nn.functional.one_hot(labels, 5).float()
    first = -last  # always wrong, and sure of it
    assert held_out((first, last), labels, (1, 3), within_drop(0.0)).correct == 200
    assert held_out((last, last), labels, (1, 3), within_drop(0.0)).correct == 200


def test_a_threshold_that_no_image_reaches_is_refused_in_one_line():
    require_reached((FIRST, LAST), float(confidence(FIRST).max()))
    with pytest.raises(BadData, match=r"no image reaches the confidence 0\.99 .* --confidence") as caught:
        require_reached((FIRST, LAST), 0.99)
    assert "\n" not in str(caught.value)


def test_several_ways_out_agree_with_a_loop_over_images():
    torch.manual_seed(0)
    ways = [2 * torch.randn(50, 4) for _ in range(4)]
    labels, macs, threshold = torch.randint(0, 4, (50,)), (3, 5, 11, 20), 0.8
    expected, paid = [], []
    for image in range(50):
        for number, way in enumerate(ways):
            powers = way[image].double().exp()
            if number == 3 or float(powers.max() / powers.sum()) >= threshold:
                expected.append((number, way[image]))
                paid.append(macs[number])
                break
    logits, left = combined(ways, threshold)
    assert left.tolist() == [number for number, _ in expected]
    assert torch.equal(logits, torch.stack([row for _, row in expected]))
    found = point(ways, labels, macs, threshold)
    assert found.mean_macs == pytest.approx(sum(paid) / 50)
    assert found.shares == tuple(left.tolist().count(number) / 50 for number in range(4))
    assert found.stopped == pytest.approx(1 - found.shares[-1])


def test_a_target_of_macs_takes_the_best_point_below_it():
    torch.manual_seed(0)
    labels = torch.randint(0, 5, (400,))
    ways = [torch.randn(400, 5) + strength * torch.nn.functional.one_hot(labels, 5) for strength in (1, 2, 4)]
    points, reference = curve(ways, labels, (10, 20, 40)), accuracy(ways[-1], labels)
    found = within_macs(25)(points, reference)
    assert found is not None
    assert found.mean_macs <= 25
    assert all(item.accuracy.value <= found.accuracy.value for item in points if item.mean_macs <= 25)
    assert within_macs(9)(points, reference) is None
    assert held_out(ways, labels, (10, 20, 40), within_macs(40)).value > accuracy(ways[0], labels).value


def test_a_point_is_compared_with_the_last_way_alone_and_told_in_plain_values():
    torch.manual_seed(0)
    labels = torch.randint(0, 3, (60,))
    first, last = torch.randn(60, 3), torch.randn(60, 3) + 2 * torch.nn.functional.one_hot(labels, 3)
    found = point((first, last), labels, (10, 110), 0.6)
    logits, _ = combined((first, last), 0.6)
    expected = mcnemar(hits(last, labels), hits(logits, labels)).p
    assert 0 < expected < 0.5
    assert found.p == expected
    measured = accuracy(logits, labels)
    assert found.to_json() == {
        "threshold": 0.6,
        "accuracy": measured.value,
        "standard_error": measured.standard_error,
        "n": 60,
        "mean_macs": found.mean_macs,
        "mcnemar_p": expected,
    }


def test_what_left_where_is_counted_at_every_way_out():
    left = Left(torch.zeros(4, 2), torch.tensor([0, 1, 0, 0]), (10_000, 30_000, 2_500_000), ("the first", "2", "end"))
    assert left.counts == [3, 1, 0]
    assert left.mean_macs == 15_000
    assert left.text() == (
        "3 left at the first, 1 left at 2, 0 at end; 0.01 million MACs for an image in the mean, 2.50 all the way"
    )


def made_up(correct: int, mean_macs: float) -> Point:
    return Point(0.5, (0.5, 0.5), Accuracy(correct, 100), mean_macs, 1.0)


def test_choices_hold_their_limits_exactly():
    points = [made_up(90, 50.0), made_up(88, 30.0), made_up(88, 20.0), made_up(70, 10.0)]
    reference = Accuracy(90, 100)
    assert within_drop(0.02)(points, reference) == points[2]  # 0.90 - 0.02 is 0.88 but for rounding
    assert within_drop(0.0199)(points, reference) == points[0]
    assert within_drop(0.2)(points, reference) == points[3]
    assert within_macs(50)(points, reference) == points[0]
    assert within_macs(49)(points, reference) == points[2]
    assert within_macs(10)(points, reference) == points[3]


def test_each_half_is_judged_by_the_threshold_of_the_other():
    torch.manual_seed(1)
    labels = torch.randint(0, 3, (60,))
    ways = [torch.randn(60, 3) + strength * torch.nn.functional.one_hot(labels, 3) for strength in (1.0, 2.0)]
    expected = 0
    for mine, other in ((0, 1), (1, 0)):
        half, rest = [way[mine::2] for way in ways], [way[other::2] for way in ways]
        chosen = within_macs(60)(curve(half, labels[mine::2], (10, 110), 7), accuracy(half[-1], labels[mine::2]))
        assert chosen is not None
        expected += accuracy(combined(rest, chosen.threshold)[0], labels[other::2]).correct
    assert held_out(ways, labels, (10, 110), within_macs(60), steps=7) == Accuracy(expected, 60)


def test_shares_are_in_0_to_1_or_not_given():
    require_share(("--drop", None), ("--drop", 0.0), ("--confidence", 1.0))
    for value in (-0.01, 1.01, float("nan")):
        with pytest.raises(BadData, match=r"--confidence = .* must lie in 0\.\.1"):
            require_share(("--drop", 0.5), ("--confidence", value))
