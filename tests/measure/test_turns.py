"""Measuring in turns."""

from bantam.measure.turns import in_turns


def test_each_round_asks_all_in_order_and_the_first_only_warms_up() -> None:
    asked: list[str] = []

    def contestant(name: str) -> float:
        asked.append(name)
        return float(len(asked))

    measured = in_turns(2, {"a": lambda: contestant("a"), "b": lambda: contestant("b")})
    assert asked == ["a", "b"] * 3
    assert measured == {"a": [3.0, 5.0], "b": [4.0, 6.0]}
