"""What a package says of its views is taken as a hint, and only where it is one."""

from typing import Any

import pytest

from bantam.deliver.verify.answering import weights_in


@pytest.mark.parametrize(
    ("named", "views", "weights"),
    [
        ([[64, 0, 0, 0.75], [48, 1, 1, 0.25]], 2, [0.75, 0.25]),
        ([[64, 0, 0, 1]], 1, [1]),
        ([[64, 0, 0, 0.75], [48, 1, 1, 0.25]], 3, []),
        ([[64, 0, 0, 0.75], []], 2, []),
        ([[64, 0, 0, 0.75], "0.25"], 2, []),
        ([[0.5], ["much"]], 2, []),
        ([[0.5], [float("nan")]], 2, []),
        ("0.5", 1, []),
        (None, 0, []),
    ],
)
def test_weights_are_the_last_numbers_of_as_many_views(named: Any, views: int, weights: list[float]) -> None:
    assert weights_in({"VIEWS": named} if named is not None else {}, views) == weights
