"""Who may ask the local server, and what every answer carries."""

import pytest
from starlette.datastructures import Headers

from bantam.deliver.serve.guard import refused


def asked(bound: str = "127.0.0.1", **headers: str) -> bool:
    return refused(Headers(headers), bound) is None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8000", "localhost:8000", "LOCALHOST", "[::1]:8000"])
def test_the_own_address_is_known(host: str) -> None:
    assert asked(host=host)
    assert asked(host=host, origin=f"http://{host}")


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "192.168.1.5:8000",
        "", "user@127.0.0.1", "127.0.0.1/path", "127.0.0.1:port", "[::1", "127.0.0.1:8000, evil.example",
    ],
)  # fmt: skip
def test_foreign_hosts_are_refused(host: str) -> None:
    assert not asked(host=host)


def test_a_request_without_a_host_or_with_two_is_refused() -> None:
    assert not asked()
    twice = Headers(raw=[(b"host", b"127.0.0.1"), (b"host", b"evil.example")])
    assert refused(twice, "127.0.0.1") is not None


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "", "https://127.0.0.1:8000", "http://127.0.0.1:9000", "http://localhost:8000"],
)
def test_foreign_origins_are_refused(origin: str) -> None:
    assert not asked(host="127.0.0.1:8000", origin=origin)


def test_a_server_for_others_is_asked_by_address_and_never_by_a_foreign_name() -> None:
    assert asked(bound="0.0.0.0", host="192.168.1.5:8000", origin="http://192.168.1.5:8000")
    assert not asked(bound="0.0.0.0", host="rebound.example:8000")
    assert asked(bound="192.168.1.5", host="192.168.1.5:8000")
    assert not asked(bound="192.168.1.5", host="192.168.1.6:8000")
    assert asked(bound="my-machine.lan", host="my-machine.lan:8000")
