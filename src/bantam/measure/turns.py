"""Measuring several things on a machine that others use too: in turns, so that whatever slows it meets all of them."""

from collections.abc import Callable, Mapping


def in_turns(rounds: int, contestants: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """What each contestant returns, in `rounds` rounds of all of them; one more round before them warms up.

    On a shared machine the speed drifts. It drifts for all that stand in the same round, so ratios hold.
    """
    measured: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, contestant in contestants.items():
            value = contestant()
            if turn:
                measured[name].append(value)
    return measured
