"""Plots are well-formed, keep their points inside the frame, and say in words what they show."""

import itertools
from xml.etree import ElementTree

import pytest

from bantam.deliver.report.figures import (
    BOTTOM,
    HEIGHT,
    LINE,
    WIDTH,
    Series,
    bars,
    lines,
    ticks,
)
from bantam.measure.plots import spread

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0.31, 0.72, [0.4, 0.5, 0.6, 0.7]),
        (1, 30, [10, 20, 30]),
        (-3, 4, [-2, 0, 2, 4]),
    ],
)
def test_ticks_are_round_and_inside(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_a_line_goes_through_its_points_in_the_frame() -> None:
    svg = lines([Series("a", [(0, 0.0), (5, 1.0), (10, 0.5)], [0.1, 0.1, 0.1])], "x", "y", "words", y_range=(0, 1))
    root = ElementTree.fromstring(svg)
    points = [tuple(map(float, pair.split(","))) for pair in root.find(f"{SVG}polyline").get("points").split()]
    (x0, y0), (x1, y1), (x2, y2) = points
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.11)
    assert y1 < y2 < y0  # upwards on the screen is smaller
    assert all(0 <= x <= WIDTH for x, _ in points)
    assert y2 == pytest.approx((y0 + y1) / 2, abs=0.11)
    assert root.get("aria-label") == "words"


def test_what_users_write_is_escaped() -> None:
    svg = lines([Series("<b>&", [(0, 0), (1, 1)]), Series("b", [(0, 1)])], "<x>", '"y"', 'a "word" <i>')
    root = ElementTree.fromstring(svg)
    assert root.get("aria-label") == 'a "word" <i>'
    assert "<b>&" in [text.text for text in root.iter(f"{SVG}text")]
    ElementTree.fromstring(bars([("<x>" * 9, 0.5, 0.4, 0.6)], "&", "&"))


def test_equal_values_and_one_point_are_drawn() -> None:
    for points in ([(1, 0.5)], [(1, 0.5), (2, 0.5)]):
        root = ElementTree.fromstring(lines([Series("a", points)], "x", "y", "words"))
        drawn = " ".join(line.get("points", "") for line in root.iter(f"{SVG}polyline"))
        assert len(drawn.split()) == len(points)
        assert "nan" not in drawn


def test_bars_are_as_long_as_their_values() -> None:
    root = ElementTree.fromstring(bars([("a", 0.25, 0.2, 0.3), ("b", 0.5, 0.4, 0.6)], "x", "words"))
    short, long = (float(bar.get("width")) for bar in root.iter(f"{SVG}rect"))
    assert long == pytest.approx(2 * short, abs=0.2)


def test_each_line_has_its_label_at_its_end_and_none_lies_on_another() -> None:
    ends = [0.1, 0.1, 0.11, 0.9, 0.0, 1.0]
    series = [Series(f"line {number}", [(0, 0.5), (1, end)]) for number, end in enumerate(ends)]
    root = ElementTree.fromstring(lines(series, "x", "y", "words"))
    labels = {text.text: text for text in root.iter(f"{SVG}text") if (text.text or "").startswith("line ")}
    assert len(labels) == len(series)
    heights = sorted(float(text.get("y")) for text in labels.values())
    assert all(second - first >= LINE - 0.11 for first, second in itertools.pairwise(heights))
    assert heights[0] > 0
    assert heights[-1] < HEIGHT - BOTTOM + LINE
    points = [pair.split(",") for line in root.iter(f"{SVG}polyline") for pair in line.get("points").split()]
    assert max(float(x) for x, _ in points) < min(float(text.get("x")) for text in labels.values()), "beside the lines"
    colours = {text.get("style") for text in labels.values()}
    assert len(colours) == len(series)


def test_one_line_alone_needs_no_label() -> None:
    root = ElementTree.fromstring(lines([Series("alone", [(0, 0.5), (1, 0.7)])], "x", "y", "words"))
    assert "alone" not in [text.text for text in root.iter(f"{SVG}text")]


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([10, 50], [10, 50]),
        ([50, 10], [50, 10]),
        ([10, 12, 14], [10, 20, 30]),
        ([100, 100], [90, 100]),
        ([0, 98, 99, 100], [0, 80, 90, 100]),
    ],
)
def test_labels_move_no_further_than_they_must(places: list[float], expected: list[float]) -> None:
    assert spread(places, 10, 0, 100) == expected
