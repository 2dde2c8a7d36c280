"""What a plot shows are the figures that it was given, in the units of its axes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from bantam.measure import plots


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are drawn from now on, instead of files."""
    kept: list[Figure] = []

    @contextmanager
    def drawn(_: Path, size: tuple[float, float]) -> Iterator[Figure]:
        kept.append(Figure(figsize=size))
        yield kept[-1]

    monkeypatch.setattr(plots, "drawn", drawn)
    return kept


def points(figure: Figure) -> list[list[list[float]]]:
    """Of each line with marks, its points."""
    (axes,) = figure.axes
    return [np.asarray(line.get_xydata()).tolist() for line in axes.lines if line.get_marker() not in ("", "None", "|")]


def row(accuracy: float, **others: Any) -> dict[str, Any]:
    return {"accuracy": accuracy, "standard_error": 0.01, **others}


def test_files_are_drawn_in_kilobytes_and_per_cent(figures: list[Figure]) -> None:
    rows = [row(0.5, name="int8", bytes=80_000, median_ms=1.0), row(0.75, name="fp32", bytes=250_000, median_ms=2.0)]
    plots.plot_quantization(rows, Path("plot.svg"))
    assert points(figures[0]) == [[[80.0, 50.0]], [[250.0, 75.0]]]


def test_dynamic_nets_are_drawn_in_millions_and_per_cent(figures: list[Figure]) -> None:
    static = {"half": row(0.5, mean_macs=1e6), "whole": row(0.75, mean_macs=4e6)}
    lines = {"exits": [row(0.625, mean_macs=2e6), row(0.75, mean_macs=3e6)]}
    plots.plot_dynamic(static, lines, Path("plot.svg"))
    assert sorted(points(figures[0])) == [[[1.0, 50.0], [4.0, 75.0]], [[2.0, 62.5], [3.0, 75.0]]]
