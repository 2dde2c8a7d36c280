"""Checks of what a recipe says about an objective; the pipeline adds the stage's and the objective's name."""

SMALLEST, LARGEST = 1e-6, 1e6
"""Of a number above 0: what float32 can divide by and square."""


def require_number(**values: float) -> None:
    """Raises TypeError, naming the key, for a value that is not a number."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{name} = {value!r} must be a number")


def require_positive(**values: float) -> None:
    """Raises TypeError or ValueError, naming the key, for a value that is not a number in SMALLEST..LARGEST."""
    require_number(**values)
    for name, value in values.items():
        if not SMALLEST <= value <= LARGEST:
            raise ValueError(f"{name} = {value} must be above 0, from {SMALLEST:g} to {LARGEST:g}")


def require_not_negative(**values: float) -> None:
    """Raises TypeError or ValueError, naming the key, for a value that is not a number in 0..LARGEST."""
    require_number(**values)
    for name, value in values.items():
        if not 0 <= value <= LARGEST:
            raise ValueError(f"{name} = {value} must be at least 0 and at most {LARGEST:g}")


def require_share(**values: float) -> None:
    """Raises TypeError or ValueError, naming the key, for a value that does not lie in 0..1."""
    require_number(**values)
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} = {value} must lie in 0..1")


def require_whole(**values: int) -> None:
    """Raises TypeError, naming the key, for a value that is not a whole number."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{name} = {value!r} must be a whole number")


def require_flag(**values: bool) -> None:
    """Raises TypeError, naming the key, for a value that is neither true nor false."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise TypeError(f"{name} = {value!r} must be true or false")
