"""Accuracy with its uncertainty, and McNemar's test, from counts alone: nothing here needs torch."""

import math
from dataclasses import dataclass
from typing import NamedTuple

from bantam.errors import NotFinite

WILSON_Z = 1.959963984540054
"""The standard normal's 97.5% quantile: intervals that cover 95%."""


@dataclass(frozen=True)
class Accuracy:
    """`correct` of `n` images.

    Raises:
        ValueError: no image at all, or more correct ones than images.
    """

    correct: int
    n: int

    def __post_init__(self) -> None:
        if not 0 <= self.correct <= self.n or self.n == 0:
            raise ValueError(f"an accuracy needs 0 <= correct <= n and n >= 1, not {self.correct} of {self.n}")

    @property
    def value(self) -> float:
        """The share of correct images, 0..1."""
        return self.correct / self.n

    @property
    def standard_error(self) -> float:
        """The binomial standard error sqrt(p (1 - p) / n)."""
        return math.sqrt(self.value * (1 - self.value) / self.n)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% Wilson score interval, which also holds for few images and near 0 and 1.

        Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927.
        """
        shrunk = 1 + WILSON_Z**2 / self.n
        centre = (self.value + WILSON_Z**2 / (2 * self.n)) / shrunk
        half = WILSON_Z * math.sqrt(self.standard_error**2 + (WILSON_Z / (2 * self.n)) ** 2) / shrunk
        return max(0.0, centre - half), min(1.0, centre + half)

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.standard_error:.3f}"


class McNemar(NamedTuple):
    """`only_a`, `only_b`: images that one net alone has right; `p`: two-sided exact p-value."""

    only_a: int
    only_b: int
    p: float


def mcnemar_of(only_a: int, only_b: int) -> McNemar:
    """McNemar's exact test: are two nets, measured on the same images, equally accurate?

    Under that hypothesis an image that exactly one net has right is as likely the one's as the other's, so
    `only_a` is binomial with probability 1/2. The sum of binomial coefficients is made of integers, so
    nothing underflows.
    Source: McNemar, Psychometrika 12, 1947; the exact form is the sign test on the discordant pairs.
    """
    discordant = only_a + only_b
    tail, coefficient = 0, 1
    for wins in range(min(only_a, only_b) + 1):
        tail += coefficient
        coefficient = coefficient * (discordant - wins) // (wins + 1)
    return McNemar(only_a, only_b, min(1.0, 2 * tail / 2**discordant))


def not_finite(rows: int, images: int) -> NotFinite:
    """What is raised where the answers to `rows` of `images` are NaN or infinite."""
    return NotFinite(
        f"the answers to {rows:,} of {images:,} images are not finite: the weights are damaged or of a "
        "training that has diverged; put them back, or train again with a lower lr"
    )
