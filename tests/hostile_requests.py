"""Requests that nobody foresaw, to every address of the page's server and for every parameter it takes.

The addresses and parameters come from the application itself, so a new one is tried as well. `python
tests/hostile_requests.py` tries them on the food model's page and prints how many were tried and how many held: each is
answered, what is refused with a status from 400 to 499 and one line in JSON, and nothing is raised.
"""

import asyncio
import inspect
import json
import sys
from collections.abc import Iterator, MutableMapping
from typing import Any
from urllib.parse import quote, unquote

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import Mount

HOST = "127.0.0.1:8000"

VALUES = (
    "", " ", "0", "1", "-1", "-0", "+1", "1.5", "1e3", "1e400", "nan", "NaN", "inf", "-inf", "null", "None", "true",
    "[]", "{}", "0x10", "1_000", "9" * 23, "-" + "9" * 23, "9" * 5000, str(2**31), str(2**63), str(-(2**63) - 1),
    "٣", "１", "²", "\0", "0\0", "\n", "a\r\nX-Evil: 1", "../../../etc/passwd", "..%2f", "%", "%zz", "é", "\U0001f600",
    "<script>", "' OR 1=1 --", "${7*7}", "x" * 3000, "all", "wrong", "PyTorch",
)  # fmt: skip

RAW = ("%ff%fe", "%ed%a0%80", "%00", "%2e%2e%2f", "&&==&", "=", "%")
"""Already in the form of an address; no text gives them."""

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW")

BODIES = (b"", b"\0", b"text", b"{}", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", bytes(10_000))


def addresses(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Method and address: each path as it is, by every method, and each parameter with every value."""
    for route in app.routes:
        if isinstance(route, Mount):
            for value in (*map(quoted, VALUES), *RAW):
                yield "GET", f"{route.path}/{value}"
            continue
        assert isinstance(route, APIRoute), f"{route} is of a kind that is not tried"
        path = route.path_format
        parameters = [name for name, one in inspect.signature(route.endpoint).parameters.items() if name != "request"]
        within = [name for name in parameters if f"{{{name}}}" in path]
        plain = path.format(**dict.fromkeys(within, "0"))
        for method in METHODS:
            yield method, plain
        for method in sorted(route.methods):
            for name in parameters:
                for value in (*map(quoted, VALUES), *RAW):
                    if name in within:
                        yield method, path.format(**dict.fromkeys(within, "0") | {name: value})
                    else:
                        yield method, f"{plain}?{name}={value}"
                if name not in within:
                    yield method, f"{plain}?{name}"
                    yield method, f"{plain}?{name}=0&{name}=1&{name}=x"
                    yield method, f"{plain}?{name}[]=0&{name.upper()}=1"
            yield method, f"{plain}?{'&'.join(f'p{n}={n}' for n in range(1000))}"
            yield method, f"{plain}/"
            yield method, f"/{plain}"
    yield from (("GET", path) for path in ("/nothing", "//", "/..", "/%2e%2e/", "/api", "/" + "a/" * 500))


def each_once(app: FastAPI) -> Iterator[tuple[str, str]]:
    """Method and address of every route, with 0 for what stands in the path."""
    for route in app.routes:
        if isinstance(route, APIRoute):
            path = route.path_format
            names = inspect.signature(route.endpoint).parameters
            yield min(route.methods), path.format(**{name: "0" for name in names if f"{{{name}}}" in path})


def quoted(value: str) -> str:
    """The value as a browser writes it into an address."""
    return quote(value, safe="")


def faults(app: FastAPI) -> dict[str, str | None]:
    """Every request by its method and address, with what is wrong with its answer, or None."""

    async def all_of_them() -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        for method, address in addresses(app):
            bodies = BODIES if method == "POST" and "?" not in address else BODIES[:1]
            for number, body in enumerate(bodies):
                name = f"{method} {address[:100]}, {len(address)} long, body {number}"
                try:
                    found[name] = fault_of(*await asked(app, method, address, body), method)
                except Exception as error:
                    found[name] = f"raised {type(error).__name__}: {error}"
        return found

    return asyncio.run(all_of_them())


async def asked(app: FastAPI, method: str, address: str, body: bytes = b"") -> tuple[int, bytes]:
    """Status and content of the answer to a request, handed to the application as the server would do it."""
    path, _, query = address.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(b"host", HOST.encode())],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
    }
    sent: list[MutableMapping[str, Any]] = []
    parts = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> MutableMapping[str, Any]:
        if not parts:
            await asyncio.Event().wait()  # nobody hangs up
        return parts.pop()

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def fault_of(status: int, content: bytes, method: str, broken: bool = False) -> str | None:
    """What is wrong with an answer, or None. A `broken` server may say that it is, by a status from 500 on."""
    if status >= (600 if broken else 500):
        return f"status {status}: {content[:200]!r}"
    if status < 400 or method == "HEAD":
        return None
    try:
        told = json.loads(content)
    except ValueError:
        return f"status {status}, no JSON: {content[:200]!r}"
    line = told.get("error") if isinstance(told, dict) else None
    return None if isinstance(line, str) and line and "\n" not in line and len(line) < 600 else f"not one line: {told}"


if __name__ == "__main__":
    from pathlib import Path

    from bantam.deliver.serve import browser
    from bantam.deliver.serve.app import make_app
    from bantam.deliver.serve.desk import Desk, Setting
    from bantam.runs.finished import FOOD11, open_run

    browser.RUNTIME = Path("nowhere")  # the graph for the browser takes seconds, and nobody asks for it
    wrong = faults(make_app(Desk(Setting(open_run(FOOD11)))))
    for request, fault in wrong.items():
        if fault is not None:
            print(f"{request}: {fault}")
    held = sum(fault is None for fault in wrong.values())
    print(f"{len(wrong)} requests tried, {held} held")
    sys.exit(held < len(wrong))
