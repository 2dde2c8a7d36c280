"""Small plots as SVG: readable on a phone, in light, in dark and on paper, by their shapes without colours."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from bantam.measure.plots import spread

WIDTH, HEIGHT = 560, 320
LEFT, RIGHT, TOP, BOTTOM = 56, 14, 12, 48
LETTER, LINE = 8, 18
"""Room for a letter and for a line of the labels at the lines' ends."""

STYLE = """<style>
svg.plot{--ink:#1f2328;--grid:#d5d9de;--c0:#0a5fb4;--c1:#b3470d;--c2:#1a7f37;--c3:#7a3eb1;--c4:#a3195b;--c5:#57606a;
font:15px system-ui,sans-serif}
@media (prefers-color-scheme:dark){svg.plot{--ink:#e6edf3;--grid:#3b424b;--c0:#6cb6ff;--c1:#f0a268;--c2:#6bc46d;
--c3:#c69bf2;--c4:#f287b6;--c5:#adbac7}}
@media print{svg.plot{--ink:#000;--grid:#ccc;--c0:#0a5fb4;--c1:#b3470d;--c2:#1a7f37;--c3:#7a3eb1;--c4:#a3195b;
--c5:#444}}
svg.plot text{fill:var(--ink)}svg.plot .grid{stroke:var(--grid);stroke-width:1}svg.plot .axis{stroke:var(--ink)}
svg.plot .line{fill:none;stroke-width:2}svg.plot .to-label{fill:none;stroke-width:1;opacity:.5}
</style>"""

COLOURS = 6

DASHES = ("", "7 4", "2 3", "10 3 2 3", "4 2", "1 4")


@dataclass(frozen=True)
class Series:
    """A named line: points (x, y) and, where they are known, their standard errors."""

    label: str
    points: Sequence[tuple[float, float]]
    errors: Sequence[float] = ()
    marks: bool = True


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from `low` to `high`, about so many."""
    step = 10 ** math.floor(math.log10((high - low) / about))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= about)
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 10) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def lines(
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    alt: str,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
) -> str:
    """Draw lines, several each with its label at its end; `alt` says in words what is seen.

    The ranges are those of the points.
    """
    x_low, x_high = x_range or _range([x for each in series for x, _ in each.points], 0.0)
    y_low, y_high = y_range or _range([y for each in series for _, y in each.points], 0.06)
    top, bottom = TOP, HEIGHT - BOTTOM
    right = WIDTH - RIGHT
    if len(series) > 1:
        right -= 22 + LETTER * max(len(each.label) for each in series)

    def x_at(x: float) -> float:
        return LEFT + (x - x_low) / (x_high - x_low) * (right - LEFT)

    def y_at(y: float) -> float:
        return bottom - (y - y_low) / (y_high - y_low) * (bottom - top)

    parts: list[str] = []
    for tick in ticks(y_low, y_high):
        y = y_at(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in ticks(x_low, x_high, 7):
        parts.append(f'<text x="{x_at(tick):.1f}" y="{bottom + 17}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    middle = (LEFT + right) / 2
    parts.append(f'<text x="{middle:g}" y="{bottom + 38}" text-anchor="middle">{escape(x_label)}</text>')
    turned = f"translate(14 {(top + bottom) / 2:g}) rotate(-90)"
    parts.append(f'<text transform="{turned}" text-anchor="middle">{escape(y_label)}</text>')
    for number, each in enumerate(series):
        colour = f"var(--c{number % COLOURS})"
        dash = DASHES[number % len(DASHES)]
        look = f'class="line" stroke="{colour}"' + (f' stroke-dasharray="{dash}"' if dash else "")
        places = [(x_at(x), y_at(y)) for x, y in each.points]
        parts.append(f'<polyline {look} points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in places)}"/>')
        for (x, y), (_, value), error in zip(places, each.points, each.errors, strict=False):
            reach = abs(y_at(value + error) - y)
            parts.append(
                f'<line stroke="{colour}" x1="{x:.1f}" x2="{x:.1f}" y1="{y - reach:.1f}" y2="{y + reach:.1f}"/>'
            )
        if each.marks:
            parts += [_mark(number, x, y, colour) for x, y in places]
    if len(series) > 1:
        ends = [(x_at(each.points[-1][0]), y_at(each.points[-1][1])) for each in series]
        places = spread([y for _, y in ends], LINE, top + 4, bottom - 4)
        for number, (each, (x, y), place) in enumerate(zip(series, ends, places, strict=True)):
            colour = f"var(--c{number % COLOURS})"
            parts.append(
                f'<path class="to-label" stroke="{colour}" d="M{x + 4:.1f} {y:.1f}L{right + 14} {place:.1f}"/>'
            )
            parts.append(
                f'<text x="{right + 18}" y="{place + 5:.1f}" style="fill:{colour}">{escape(each.label)}</text>'
            )
    return _svg(HEIGHT, alt, parts)


def bars(rows: Sequence[tuple[str, float, float, float]], x_label: str, alt: str) -> str:
    """Draw a horizontal bar in 0..1 for each (label, value, low, high), with its interval."""
    left, height = 150, 26 * len(rows) + 58
    bottom = height - 48

    def x_at(x: float) -> float:
        return left + x * (WIDTH - left - RIGHT)

    parts: list[str] = []
    for tick in ticks(0, 1):
        parts.append(f'<line class="grid" x1="{x_at(tick):.1f}" x2="{x_at(tick):.1f}" y1="6" y2="{bottom}"/>')
        parts.append(f'<text x="{x_at(tick):.1f}" y="{bottom + 17}" text-anchor="middle">{tick:g}</text>')
    for number, (label, value, low, high) in enumerate(rows):
        y = 10 + 26 * number
        shown = label if len(label) <= 17 else label[:16] + "…"
        parts.append(f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{escape(shown)}</text>')
        parts.append(
            f'<rect x="{left}" y="{y}" width="{x_at(value) - left:.1f}" height="17" fill="var(--c0)" opacity="0.55"/>'
        )
        parts.append(f'<line class="axis" x1="{x_at(low):.1f}" x2="{x_at(high):.1f}" y1="{y + 8.5}" y2="{y + 8.5}"/>')
        for end in (low, high):
            parts.append(f'<line class="axis" x1="{x_at(end):.1f}" x2="{x_at(end):.1f}" y1="{y + 4}" y2="{y + 13}"/>')
    parts.append(
        f'<text x="{(left + WIDTH - RIGHT) / 2:g}" y="{bottom + 38}" text-anchor="middle">{escape(x_label)}</text>'
    )
    return _svg(height, alt, parts)


def _svg(height: int, alt: str, parts: Sequence[str]) -> str:
    head = f'<svg class="plot" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img"'
    return f'{head} aria-label="{escape(alt, quote=True)}">{STYLE}{"".join(parts)}</svg>'


def _mark(number: int, x: float, y: float, colour: str) -> str:
    """A mark of another shape for each series."""
    if number % 3 == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'
    if number % 3 == 1:
        return f'<rect x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6" fill="{colour}"/>'
    return f'<path d="M{x:.1f} {y - 4:.1f}l4 7h-8z" fill="{colour}"/>'


def _range(values: Sequence[float], room: float) -> tuple[float, float]:
    """From the smallest to the largest value, with a share of `room` on both sides, and never empty."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if high - low < 1e-9:
        return low - 0.5, high + 0.5
    return low - room * (high - low), high + room * (high - low)
