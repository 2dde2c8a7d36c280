"""The local page's server: addresses and limits, nothing else. What it tells comes from `desk`."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles

from bantam.deliver.serve.desk import PLAIN, Desk, Setting
from bantam.deliver.serve.guard import Guard
from bantam.errors import BadImage, BantamError

STATIC = Path(__file__).parent / "static"

MAX_BYTES = 20 * 2**20
"""Largest upload; photographs of today's telephones have up to 15 MB."""

MAX_AT_ONCE = 4
"""Uploads in the server at the same time; more are told to wait."""

UPLOAD_SECONDS = 30.0
"""Longest time an upload may take to arrive: a stalled one keeps its place no longer."""


class Refused(Exception):
    """An upload that is not even looked at."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def make_app(desk: Desk, bound: str = "127.0.0.1") -> FastAPI:
    """The application that answers for `desk` under the address `bound`. Uploads stay in memory and are forgotten."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, bound=bound)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    places = asyncio.Semaphore(MAX_AT_ONCE)

    @app.exception_handler(BantamError)
    async def explain(request: Request, error: BantamError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, status_code=422 if isinstance(error, BadImage) else 400)

    @app.exception_handler(Refused)
    async def refuse(request: Request, refused: Refused) -> JSONResponse:
        # The rest of the body is not read, so the connection cannot be used again.
        return JSONResponse({"error": str(refused)}, status_code=refused.status, headers={"Connection": "close"})

    @app.get("/")
    def page() -> FileResponse:
        return FileResponse(STATIC / "page.html")

    @app.get("/api/state")
    def state() -> dict[str, Any]:
        return desk.state()

    @app.get("/api/curves")
    def curves() -> list[dict[str, Any]]:
        return desk.curves()

    @app.get("/api/leaderboard")
    def leaderboard() -> list[dict[str, Any]]:
        return desk.standing()

    @app.get("/api/gallery")
    def gallery(show: str = "all", label: int | None = None, offset: int = Query(0, ge=0)) -> dict[str, Any]:
        return desk.page_of_gallery(show, label, offset)

    @app.get("/api/validation/{index}.png")
    def picture(index: int) -> Response:
        try:
            png = desk.gallery.png(index) if desk.gallery else None
        except IndexError:
            png = None
        if png is None:
            return JSONResponse({"error": "there is no such picture"}, status_code=404)
        return Response(png, media_type="image/png", headers={"Cache-Control": "no-store"})

    @app.get("/api/student.onnx")
    def student() -> Response:
        if desk.onnx is None:
            return JSONResponse({"error": desk.in_browser()}, status_code=404)
        return Response(desk.onnx, media_type="application/octet-stream", headers={"Cache-Control": "no-store"})

    @app.post("/api/classify")
    async def classify(
        request: Request, form: str = PLAIN, teacher: bool = True, early: bool = False
    ) -> dict[str, Any]:
        if places.locked():
            raise Refused(429, f"{MAX_AT_ONCE} photographs are being looked at; send this one again in a moment")
        async with places:
            data = await body(request)
            return await run_in_threadpool(desk.classify, data, form, teacher, early)

    return app


async def body(request: Request) -> bytes:
    """The request's body. Raises Refused where it is too large or too slow, before all of it has come."""
    too_large = Refused(413, f"the photograph has more than {MAX_BYTES >> 20} MB; scale it down")
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > MAX_BYTES:
        raise too_large
    data = bytearray()
    try:
        async with asyncio.timeout(UPLOAD_SECONDS):
            async for chunk in request.stream():
                data += chunk
                if len(data) > MAX_BYTES:
                    raise too_large
    except TimeoutError:
        raise Refused(408, "the photograph did not arrive in time; send it again") from None
    return bytes(data)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on `host` and `port`; port 0 takes a free one. Raises BantamError where it is taken."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BantamError(f"cannot listen on {host} port {port}: {reason}; choose another --port or --host") from error
    return listener


def address_of(listener: socket.socket) -> str:
    """The address to open in a browser."""
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}/"


def serve(setting: Setting, listener: socket.socket, bound: str) -> None:
    """Answer until interrupted. Raises BantamError for a run that cannot be loaded, before the first answer."""
    desk = Desk(setting)
    desk.student()
    config = uvicorn.Config(
        make_app(desk, bound), log_level="warning", server_header=False, ws="none", limit_concurrency=64
    )
    uvicorn.Server(config).run(sockets=[listener])
