"""The real server under connections that never ask, ask byte by byte, or hang on; by real sockets."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from bantam.deliver.serve import app, browser, connections
from bantam.deliver.serve.desk import Desk, Setting
from served import serving


@pytest.fixture(scope="module")
def address(setting: Setting) -> Iterator[tuple[str, int]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(browser, "RUNTIME", Path("nowhere"))
        desk = Desk(Setting(setting.run))
        desk.student()
        with serving(desk) as url:
            host, port = url.removeprefix("http://").strip("/").split(":")
            yield host, int(port)


def request(address: tuple[str, int], path: str = "/api/state", more: str = "Connection: close\r\n") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\n{more}\r\n".encode()


def everything(connection: socket.socket) -> bytes:
    """What comes until the server closes."""
    found = b""
    try:
        while part := connection.recv(65536):
            found += part
    except ConnectionResetError:
        pass
    return found


def asked(address: tuple[str, int]) -> int:
    """The status of a proper request, answered within a few seconds."""
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(request(address))
        return int(everything(connection).split()[1])


HALVES = {
    "nothing": lambda address: b"",
    "the start of a header": lambda address: b"GET / HTTP/1.1\r\nHost:",
    "all but the last line": lambda address: request(address)[:-2],
    "half a photograph": lambda address: (
        b"POST /api/classify HTTP/1.1\r\nHost: %s:%d\r\nContent-Length: 1000\r\n\r\nhalf"
        % (address[0].encode(), address[1])
    ),
}


@pytest.mark.parametrize("half", HALVES)
def test_200_idle_connections_keep_nobody_from_an_answer(address: tuple[str, int], half: str) -> None:
    with ExitStack() as stack:
        for _ in range(200):
            connection = stack.enter_context(socket.create_connection(address, timeout=10))
            connection.sendall(HALVES[half](address))
        assert [asked(address) for _ in range(3)] == [200] * 3


def test_a_connection_without_a_request_is_closed_in_time(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.2)
    for half in ("nothing", "the start of a header", "all but the last line"):
        with socket.create_connection(address, timeout=10) as connection:
            connection.sendall(HALVES[half](address))
            assert everything(connection) == b""


def test_whoever_sends_headers_byte_by_byte_gains_no_time(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither on a new connection nor on one that had an answer."""
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.3)
    for first in (b"", request(address, more="")):
        with socket.create_connection(address, timeout=10) as connection:
            connection.sendall(first)
            if first:
                assert b"200 OK" in connection.recv(65536)
            closed = False
            for _ in range(200):
                try:
                    connection.sendall(b"X")
                    connection.settimeout(0.02)
                    closed = connection.recv(100) == b""
                except TimeoutError:
                    continue
                except (ConnectionResetError, BrokenPipeError):
                    closed = True
                if closed:
                    break
            assert closed


def test_an_answer_that_takes_too_long_is_given_up(address: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "ANSWER_SECONDS", 0.2)
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(HALVES["half a photograph"](address))
        assert everything(connection) == b""
    monkeypatch.undo()
    monkeypatch.setattr(app, "UPLOAD_SECONDS", 0.2)
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(HALVES["half a photograph"](address))
        assert b"408 Request Timeout" in everything(connection)


def test_a_connection_is_used_again_and_may_ask_ahead(address: tuple[str, int]) -> None:
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(request(address, more="") * 2 + request(address))
        assert everything(connection).count(b"HTTP/1.1 200 OK") == 3


NO_HTTP = (b"no request\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\0\0\0\0\r\n\r\n", b"GET /" + b"a" * 10**6, b"\r\n" * 9)


@pytest.mark.parametrize("sent", NO_HTTP)
def test_what_is_no_http_is_answered_in_one_line(
    address: tuple[str, int], sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_connection(address, timeout=10) as connection:
        with suppress(OSError):  # the server may have closed before all of it was sent
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
        answer = everything(connection)
    if answer:
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.split()[1] in (b"400", b"403")
        assert list(json.loads(body)) == ["error"]
    assert "Traceback" not in caplog.text
    assert asked(address) == 200


def test_whoever_hangs_up_in_the_middle_leaves_no_trace(
    address: tuple[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(5):
        with socket.create_connection(address, timeout=10) as connection:
            connection.sendall(HALVES["half a photograph"](address))
    assert asked(address) == 200
    assert "Traceback" not in caplog.text


def test_the_one_that_goes_for_a_newcomer_is_the_one_that_waited_longest(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request under way stays, as long as others wait without one."""
    monkeypatch.setattr(connections, "MAX_OPEN", 3)
    with ExitStack() as stack:
        busy, *idle = [stack.enter_context(socket.create_connection(address, timeout=10)) for _ in range(3)]
        busy.sendall(HALVES["half a photograph"](address))
        time.sleep(0.2)
        assert asked(address) == 200
        assert everything(idle[0]) == b""
        busy.sendall(b"x" * 996)
        assert b"422" in busy.recv(1000).split(b"\r\n")[0]
