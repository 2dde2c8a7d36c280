"""The page's real server, in a thread of the tests' process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from bantam.deliver.serve.app import address_of, configured, listen, make_app
from bantam.deliver.serve.desk import Desk


@contextmanager
def serving(desk: Desk) -> Iterator[str]:
    """Serve `desk` as `bantam serve` does; gives the address."""
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(configured(make_app(desk)))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield address_of(listener)
    finally:
        server.should_exit = True
        thread.join(30)
