"""Connections that keep nobody waiting: whoever sends no request in time, or only a part of one, loses the connection.

uvicorn has a time for the next request of a connection, and none for its first, nor for one that comes byte by byte;
and its limit of connections refuses the newcomers, who are those with something to ask.
"""

import asyncio
import json
from typing import cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 5.0
"""Longest time from the first byte of a request, or from the opening of a connection, to the end of the headers."""

ANSWER_SECONDS = 120.0
"""Longest time from the headers to the end of the answer, for whoever sends, or reads, as slowly as possible."""

MAX_OPEN = 128
"""Connections that are open at once; for one more, the one goes that has waited longest without a request."""


class Connection(H11Protocol):
    """uvicorn's connection, with an end to every wait."""

    since = 0.0
    _end: asyncio.TimerHandle | None = None

    @property
    def waits(self) -> bool:
        """Whether no request is being answered here: none has come yet, or not all of its headers."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(cast(asyncio.Transport, transport))
        self._begin(HEADER_SECONDS)
        others = [cast(Connection, one) for one in self.connections if one is not self]
        if len(others) >= MAX_OPEN:
            min(others, key=lambda one: (not one.waits, one.since)).give_up()

    def data_received(self, data: bytes) -> None:
        answered = self.waits
        super().data_received(data)
        if answered != self.waits or (self.waits and self._end is None):
            self._begin(HEADER_SECONDS if self.waits else ANSWER_SECONDS)

    def on_response_complete(self) -> None:
        # uvicorn itself ends a connection on which nothing comes after this.
        self._stop()
        self.since = self.loop.time()
        super().on_response_complete()
        if not self.waits:  # the next request was here already
            self._begin(ANSWER_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP with a line in JSON, as everything is answered."""
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        body = h11.Data(data=json.dumps({"error": msg}).encode())
        for event in (h11.Response(status_code=400, headers=headers), body, h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def give_up(self) -> None:
        """Close at once, whatever has not been sent."""
        self._stop()
        self.connections.discard(self)
        self.transport.abort()

    def _begin(self, seconds: float) -> None:
        self._stop()
        self.since = self.loop.time()
        self._end = self.loop.call_later(seconds, self.give_up)

    def _stop(self) -> None:
        if self._end is not None:
            self._end.cancel()
            self._end = None
