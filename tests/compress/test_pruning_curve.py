"""The curve: its ratios, its order of work, what it resumes, what it writes."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from bantam.compress.masks import masked, one_branch, zeros_in
from bantam.compress.pruning_curve import (
    METHODS,
    Point,
    Prunings,
    Subject,
    curve,
    curve_text,
    dense_point,
    kept_points,
    plain_views,
    ratios_of,
    sample_of,
    some,
    write_curve,
)
from bantam.data.splits import IMAGENET, LabelledSplit
from bantam.errors import BadPruning
from bantam.measure.accuracy import Accuracy
from bantam.nets.fold import deploy
from bantam.nets.students import describe
from bantam.runs.watcher import Watcher

STUDENT = describe("mobilenet_v1", 5_000, 3, 32)


def split(name: str, n: int) -> LabelledSplit:
    images = torch.randint(256, (n, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))
    return LabelledSplit(name, images, torch.arange(n) % 3, tuple(map(str, range(n))), ("a", "b", "c"))


TRAINING, VALIDATION = split("training", 40), split("validation", 30)


def subject() -> Subject:
    torch.manual_seed(0)
    return Subject(STUDENT, STUDENT.build().eval(), IMAGENET)


def test_the_dense_net_is_one_for_the_methods_of_a_kind_and_another_for_the_others():
    judged = Accuracy(20, 30)
    points = [Point(method, 0.0, 0.0, 5_000, None, judged, None, None) for method in ("structured-magnitude",)]
    found = dense_point(points, "structured-taylor")
    assert found == replace(points[0], method="structured-taylor")
    assert dense_point(points, "unstructured-global") is None
    assert dense_point([replace(points[0], ratio=0.5)], "structured-taylor") is None


def test_ratios_are_read_with_both_ends():
    assert ratios_of("0:0.95:0.05") == [round(0.05 * number, 10) for number in range(20)]
    assert ratios_of("0.9,0.5") == [0.5, 0.9]
    assert ratios_of("0.3") == [0.3]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "0:1",
        "0:1:0",
        "0.5:0.1:0.1",
        "1",
        "0,1.5",
        "-0.1",
        "nan",
        "0:inf:1",
        "0:1:0.1",
        "0:0.9:inf",
        "0:0.9:nan",
        "0:0.9:1e-9",
        "0:0.9:1e-300",
        "1e400",
        "9" * 5000,
    ],
)
def test_wrong_ratios_are_refused_in_one_line(text: str):
    with pytest.raises(BadPruning) as caught:
        ratios_of(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_some_images_are_drawn_evenly_and_always_the_same():
    drawn = some(VALIDATION, 10)
    assert len(drawn) == 10
    assert drawn.ids == some(VALIDATION, 10).ids
    assert sorted(map(int, drawn.ids)) == [0, 3, 6, 10, 13, 16, 19, 23, 26, 29]
    assert some(VALIDATION, 0) is VALIDATION


def test_a_curve_holds_what_was_asked_for(tmp_path: Path):
    kept: list[int] = []
    points = curve(
        Prunings(subject(), TRAINING),
        METHODS,
        [0.0, 0.5],
        VALIDATION,
        Watcher(),
        (),
        lambda found: kept.append(len(found)),
    )
    assert kept == list(range(1, 11))
    assert [(point.method, point.ratio) for point in points] == [(m, r) for m in METHODS for r in (0.0, 0.5)]
    for point in points:
        if point.method.startswith("unstructured"):
            assert point.parameters == 4_993 - round(point.ratio * 4_993)
            assert point.channel_ratio is None
        elif point.ratio:
            # The ratio is of parameters, up to a channel; that of channels is smaller: layers shrink on both sides.
            assert 0.5 - 1 / 4_993 <= point.removed < 0.52
            assert point.channel_ratio is not None
            assert 0 < point.channel_ratio < 0.5
        assert point.removed == 1 - point.parameters / 4_993
        assert point.before.n == 30
        assert point.reestimated is not None
    assert len({point.before for point in points if point.ratio == 0}) == 1

    write_curve(tmp_path, points, {"title": "a curve"})
    assert {path.name for path in tmp_path.iterdir()} == {"curve.json", "curve.csv", "curve.svg", "curve.png"}
    rows = list(csv.DictReader((tmp_path / "curve.csv").open()))
    assert [float(row["before"]) for row in rows] == [round(point.before.value, 6) for point in points]
    held = json.loads((tmp_path / "curve.json").read_text())["points"]
    assert [Point.from_json(value) for value in held] == points
    assert len(curve_text(points).splitlines()) == 2 + 5 + 10


def test_each_look_is_at_the_net_of_its_own_time():
    def spoiled(net: nn.Module, place: str) -> nn.Module:
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.zero_()
        return net

    alone = curve(Prunings(subject(), TRAINING), METHODS, [0.3], VALIDATION, Watcher())
    trained = curve(Prunings(subject(), TRAINING), METHODS, [0.3], VALIDATION, Watcher(), finetune=spoiled)
    first = Accuracy(int((VALIDATION.labels == 0).sum()), len(VALIDATION))  # what equal logits answer
    assert [replace(point, finetuned=None) for point in trained] == alone
    assert {point.finetuned for point in trained} == {first}


def test_branches_that_ship_as_one_are_masked_as_one():
    torch.manual_seed(0)
    student = describe("largekernel", 5_000, 3, 32)
    net = student.build().train()
    for _ in range(3):
        net(torch.randn(8, 3, 32, 32))
    dense = sum(parameter.numel() for parameter in student.shipped_form(net).parameters())
    branched = Subject(student, net.eval(), IMAGENET)
    single = one_branch(student, net, plain_views(TRAINING, 32, IMAGENET))
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(single(images), net(images), rtol=1e-4, atol=1e-4)
    # What is zero there is zero in what ships, and all that ships is there.
    shipped = deploy(single)
    assert sum(parameter.numel() for parameter in shipped.parameters()) == dense
    assert zeros_in(deploy(masked(single, dense, "global", 0.5))) == round(0.5 * dense)  # pyright: ignore
    found = curve(
        Prunings(branched, TRAINING), ["unstructured-global", "structured-magnitude"], [0], VALIDATION, Watcher()
    )
    assert found[0].before == found[1].before
    assert found[0].reestimated is not None


def test_known_points_are_not_made_again(tmp_path: Path):
    first = curve(Prunings(subject(), TRAINING), METHODS[:1], [0.5], VALIDATION, Watcher())
    kept: list[int] = []
    again = curve(
        Prunings(subject(), TRAINING),
        METHODS[:1],
        [0.5],
        VALIDATION,
        Watcher(),
        first,
        lambda found: kept.append(len(found)),
    )
    assert again == first
    assert kept == []
    path = tmp_path / "points.json"
    path.write_text(json.dumps({"made_of": {"seed": 1}, "points": [first[0].to_json()]}))
    assert kept_points(path, {"seed": 1}) == first
    assert kept_points(path, {"seed": 2}) == []


def test_the_largest_ratio_is_tried_first():
    kept: list[int] = []
    with pytest.raises(BadPruning, match="empt"):
        curve(
            Prunings(subject(), TRAINING),
            METHODS,
            [0.1, 0.999],
            VALIDATION,
            Watcher(),
            (),
            lambda found: kept.append(len(found)),
        )
    assert kept == []


def test_statistics_and_gradients_are_of_so_many_images():
    many = split("training", 600)
    assert len(plain_views(many, 32, IMAGENET)) == 512
    images, labels = sample_of(many, 32, IMAGENET)
    assert len(images) == len(labels) == 64


def test_progress_is_told_from_the_first_to_the_last_net():
    told: list[object] = []

    class Telling(Watcher):
        def begin(self, stage: str, total: int, done: int) -> None:
            told.append((stage, total, done))

        def advance(self, done: int) -> None:
            told.append(done)

        def end(self) -> None:
            told.append("end")

    known = curve(Prunings(subject(), TRAINING), METHODS[:1], [0.5], VALIDATION, Watcher())
    curve(Prunings(subject(), TRAINING), METHODS[:1], [0.5], VALIDATION, Telling(), known)
    assert told == [("pruning", 1, 0), 1, "end"]


def test_the_text_has_a_line_for_each_net_and_a_column_for_each_look_taken():
    points = [
        Point("unstructured-global", 0.5, 0.5, 2_500, None, Accuracy(15, 30), None, None),
        Point("structured-magnitude", 0.25, 0.253, 3_700, 0.125, Accuracy(20, 30), Accuracy(21, 30), None),
    ]
    assert curve_text(points).splitlines() == [
        "                                                       BatchNorm",
        "ratio   gone  channels  parameters      as pruned   re-estimated",
        "unstructured-global",
        "  0.5  50.0%         -       2,500  0.500 ± 0.091              -",
        "structured-magnitude",
        " 0.25  25.3%     12.5%       3,700  0.667 ± 0.086  0.700 ± 0.084",
    ]


def test_the_text_of_a_large_net_judged_three_times_has_80_columns():
    judged = Accuracy(4_000, 4_432)
    points = [Point("structured-magnitude", 0.05, 0.0512, 11_182_155, 0.0251, judged, judged, judged)]
    assert max(map(len, curve_text(points).splitlines())) <= 80
