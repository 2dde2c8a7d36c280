import pytest
import torch

from bantam.errors import BadData
from bantam.measure.accuracy import accuracy
from bantam.measure.dynamic import cheapest, combined, confidence, curve, held_out, point, require_reached

FIRST = torch.tensor([[4.0, 0.0], [0.2, 0.0], [0.0, 3.0], [0.0, 0.1]])
LAST = torch.tensor([[0.0, 1.0], [0.0, 2.0], [0.0, 5.0], [3.0, 0.0]])
LABELS = torch.tensor([0, 1, 1, 0])


def test_sure_images_stop_and_the_others_pay_twice():
    logits, stopped = combined(FIRST, LAST, 0.9)
    assert stopped.tolist() == [True, False, True, False]
    assert torch.equal(logits, torch.stack((FIRST[0], LAST[1], FIRST[2], LAST[3])))
    found = point(FIRST, LAST, LABELS, (10, 100), 0.9)
    assert found.mean_macs == 10 + 0.5 * 100
    assert found.accuracy.correct == 4
    assert point(FIRST, LAST, LABELS, (10, 100), 0.0).mean_macs == 10
    assert point(FIRST, LAST, LABELS, (10, 100), 1.01).mean_macs == 110


def test_the_curve_runs_from_nearly_all_going_on_to_all_stopping():
    torch.manual_seed(0)
    first, last, labels = torch.randn(400, 5), torch.randn(400, 5), torch.randint(0, 5, (400,))
    points = curve(first, last, labels, (10, 100))
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
    assert held_out(first, last, labels, (1, 2), 0.0).correct == 200
    assert held_out(last, last, labels, (1, 2), 0.0).correct == 200


def test_a_threshold_that_no_image_reaches_is_refused_in_one_line():
    require_reached(FIRST, float(confidence(FIRST).max()))
    with pytest.raises(BadData, match=r"no image reaches the confidence 0\.99 .* --confidence") as caught:
        require_reached(FIRST, 0.99)
    assert "\n" not in str(caught.value)
