"""Plots are well-formed, keep their points inside the frame, and say in words what they show."""

from xml.etree import ElementTree

import pytest

from bantam.deliver.report.figures import (
    WIDTH,
    Series,
    bars,
    lines,
    ticks,
)

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
