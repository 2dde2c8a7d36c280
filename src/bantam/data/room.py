"""A bound on the pixels that are decoded at the same time, over all threads of the process."""

import contextlib
import threading
from collections.abc import Iterator


class Room:
    """Lets in so many pixels at once, whoever brings them; the others wait for their turn."""

    def __init__(self, pixels: int) -> None:
        self.pixels = pixels
        self.taken = 0
        self.most_taken = 0
        self._changed = threading.Condition()
        self._first_in_line = threading.Lock()

    @contextlib.contextmanager
    def take(self, pixels: int) -> Iterator[None]:
        """Within, so many pixels are taken; more than there are at all are as many as there are."""
        pixels = min(pixels, self.pixels)
        # One waits at a time, the others for it: else many small ones would keep a large one out for ever.
        with self._first_in_line, self._changed:
            self._changed.wait_for(lambda: self.taken + pixels <= self.pixels)
            self.taken += pixels
            self.most_taken = max(self.most_taken, self.taken)
        try:
            yield
        finally:
            with self._changed:
                self.taken -= pixels
                self._changed.notify_all()
