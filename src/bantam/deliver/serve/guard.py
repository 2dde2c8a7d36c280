"""What stands before the page: only this machine's own page may ask, and nothing is loaded from elsewhere.

A page of a foreign site that is open in the same browser can send requests to a local server. It cannot hide where it
comes from: requests with a foreign Origin are refused. And by DNS rebinding it can give its own name this machine's
address: then the Host is foreign, and refused as well. A numeric address cannot be rebound, so such Hosts are accepted
where the server was told to listen on all addresses.

Whatever fails behind it becomes one line, for whoever asked and for the terminal.
"""

import ipaddress
import logging
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Guard:
    """An ASGI application around another: refuses foreign Hosts and Origins (403), adds HEADERS to every answer, and
    answers where the other fails."""

    def __init__(self, app: ASGIApp, bound: str) -> None:
        self.app, self.bound = app, bound

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        begun = False

        async def with_headers(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refusal = refused(Headers(scope=scope), self.bound)
        app = self.app if refusal is None else JSONResponse({"error": refusal}, status_code=403)
        try:
            await app(scope, receive, with_headers)
        except ClientDisconnect:
            pass  # whoever asked has gone: nobody is there to be told
        except Exception as error:
            status, reason = failure(error)
            logging.getLogger("bantam.serve").error("%s %.200r: %s", scope["method"], scope["path"], reason)
            if not begun:
                await JSONResponse({"error": reason}, status_code=status)(scope, receive, with_headers)


def failure(error: Exception) -> tuple[int, str]:
    """The status and the line for an error that nobody foresaw."""
    if isinstance(error, MemoryError):
        return 503, "there is not enough memory for this at the moment; try again, or with a smaller photograph"
    reason = " ".join(str(error).split())[:200]
    return 500, f"the server could not answer this: {type(error).__name__}{f': {reason}' if reason else ''}"


def refused(headers: Headers, bound: str) -> str | None:
    """Why a request with these headers is refused by a server that listens on `bound`; None where it is not."""
    hosts = headers.getlist("host")
    if len(hosts) != 1 or not known_host(hosts[0], bound):
        return "this server answers under its own address only; open the address that `bantam serve` printed"
    origins = headers.getlist("origin")
    if origins not in ([], [f"http://{hosts[0]}"]):
        return "this server answers its own page only"
    return None


def known_host(host: str, bound: str) -> bool:
    """Whether the Host header (name or address, perhaps with a port) is one under which this server may be asked."""
    try:
        parts = urlsplit(f"//{host}")
        name, _ = parts.hostname, parts.port
    except ValueError:  # a bracket without its partner, a port that is no number
        return False
    if name is None or parts.netloc != host or "@" in host:
        return False
    if name in LOCAL or name == bound:
        return True
    return listens_everywhere(bound) and is_address(name)


def listens_everywhere(bound: str) -> bool:
    """Whether the address that the server is bound to takes in every network."""
    return bound in ("0.0.0.0", "::")


def is_address(name: str) -> bool:
    """Whether `name` is an IP address and no host's name."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
