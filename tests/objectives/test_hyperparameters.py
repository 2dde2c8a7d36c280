from collections.abc import Callable
from typing import Any

import pytest

from bantam.objectives import hyperparameters


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (hyperparameters.require_number, [0, -1.5], ["1", True, None]),
        (hyperparameters.require_positive, [1, 0.1], [0, -1.0, float("nan"), float("inf"), "1", True]),
        (hyperparameters.require_not_negative, [0, 0.1], [-1, float("nan"), float("inf"), "1", False]),
        (hyperparameters.require_share, [0, 1, 0.5], [-0.1, 1.1, float("nan"), "1", True]),
        (hyperparameters.require_whole, [0, -3], [1.0, "1", True]),
        (hyperparameters.require_flag, [True, False], [0, 1, "yes"]),
    ],
)
def test_checks_name_the_key(check: Callable[..., None], good: list[Any], bad: list[Any]) -> None:
    for value in good:
        check(key=value)
    for value in bad:
        with pytest.raises((TypeError, ValueError), match=r"^key = "):
            check(key=value)
