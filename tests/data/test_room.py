"""So many pixels at once, and nobody is kept out for ever."""

import threading

import pytest

from bantam.data.room import Room


def test_room_is_given_back_also_after_an_error():
    room = Room(10)
    with pytest.raises(ZeroDivisionError), room.take(7):
        assert room.taken == 7
        raise ZeroDivisionError
    assert (room.taken, room.most_taken) == (0, 7)


def test_what_is_larger_than_the_room_gets_all_of_it():
    room = Room(10)
    with room.take(1000):
        assert room.taken == 10
    assert room.taken == 0


def test_a_large_one_is_not_overtaken():
    room = Room(10)
    order: list[str] = []
    large_waits = threading.Event()

    def large() -> None:
        large_waits.set()
        with room.take(10):
            order.append("large")

    def small() -> None:
        with room.take(1):
            order.append("small")

    with room.take(5):
        first = threading.Thread(target=large)
        first.start()
        large_waits.wait(10)
        while not room._first_in_line.locked():
            pass
        second = threading.Thread(target=small)
        second.start()
        second.join(0.05)
        assert order == []
    first.join(10)
    second.join(10)
    assert order == ["large", "small"]
