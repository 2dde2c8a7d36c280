"""The local page's server: addresses and limits, nothing else. What it tells comes from `desk`."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import FastAPI, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from bantam.deliver.serve.connections import Connection
from bantam.deliver.serve.desk import PLAIN, Desk, Setting
from bantam.deliver.serve.guard import Guard
from bantam.errors import BadImage, BantamError

STATIC = Path(__file__).parent / "static"

MAX_BYTES = 20 * 2**20
"""Largest upload; photographs of today's telephones have up to 15 MB."""

MAX_HELD = 8 * MAX_BYTES
"""Bytes of all uploads in the server at the same time; for more, people are told to come again."""

MAX_AT_ONCE = 4
"""Uploads that are looked at at the same time; the others wait. `bantam.data.images.ROOM` bounds the pixels of all."""

UPLOAD_SECONDS = 30.0
"""Longest time an upload may take to arrive."""

WAIT_SECONDS = 15.0
"""Longest time an upload waits for its turn to be looked at."""

LARGEST = 2**31 - 1
"""No number of a picture or a class is larger; whoever asks for one is told so."""


class Refused(Exception):
    """An upload that is not even looked at."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass
class Uploads:
    """What is in the server: the bytes that have come, and the places to be looked at."""

    places: asyncio.Semaphore
    held: int = 0

    @contextlib.asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """The request's body, held within.

        Raises Refused where it, or all that is held, would be too much, before all of it has come; or comes too slowly.
        """
        too_large = Refused(413, f"the photograph has more than {MAX_BYTES >> 20} MB; scale it down")
        announced = request.headers.get("content-length", "0")
        if announced.isdecimal() and (len(announced) > 12 or int(announced) > MAX_BYTES):
            raise too_large
        data = bytearray()
        try:
            try:
                async with asyncio.timeout(UPLOAD_SECONDS):
                    async for chunk in request.stream():
                        if len(data) + len(chunk) > MAX_BYTES:
                            raise too_large
                        if self.held + len(chunk) > MAX_HELD:
                            raise Refused(503, "too many photographs arrive at the moment; send this one again later")
                        data += chunk
                        self.held += len(chunk)
            except TimeoutError:
                raise Refused(408, "the photograph did not arrive in time; send it again") from None
            yield bytes(data)
        finally:
            self.held -= len(data)

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place to be looked at, within. Raises Refused where none becomes free in time."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self.places.acquire()
        except TimeoutError:
            raise Refused(503, "many photographs are being looked at; send this one again in a moment") from None
        try:
            yield
        finally:
            self.places.release()


def make_app(desk: Desk, bound: str = "127.0.0.1") -> FastAPI:
    """The application that answers for `desk` under the address `bound`. Uploads stay in memory and are forgotten."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, bound=bound)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    uploads = Uploads(asyncio.Semaphore(MAX_AT_ONCE))
    explain_failures(app)

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
    def gallery(
        show: str = "all",
        label: Annotated[int | None, Query(ge=0, le=LARGEST)] = None,
        offset: Annotated[int, Query(ge=0, le=LARGEST)] = 0,
    ) -> dict[str, Any]:
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
        async with uploads.body(request) as data, uploads.place():
            return await run_in_threadpool(desk.classify, data, form, teacher, early)

    return app


def explain_failures(app: FastAPI) -> None:
    """Let every foreseen failure be answered by its status and one line; Guard answers for the others."""

    def one_line(status: int, reason: str, headers: dict[str, str] | None = None) -> JSONResponse:
        return JSONResponse({"error": " ".join(reason.split())}, status_code=status, headers=headers)

    @app.exception_handler(BantamError)
    async def of_bantam(request: Request, error: BantamError) -> JSONResponse:
        return one_line(422 if isinstance(error, BadImage) else 400, str(error))

    @app.exception_handler(Refused)
    async def refuse(request: Request, refused: Refused) -> JSONResponse:
        # The rest of the body is not read, so the connection cannot be used again.
        return one_line(refused.status, str(refused), {"Connection": "close"})

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        return one_line(422, f"{first['loc'][-1]}: {first['msg']}")

    @app.exception_handler(HTTPException)
    async def of_http(request: Request, error: HTTPException) -> JSONResponse:
        return one_line(error.status_code, str(error.detail), dict(error.headers or {}))


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
    uvicorn.Server(configured(make_app(desk, bound))).run(sockets=[listener])


def configured(app: FastAPI) -> uvicorn.Config:
    """The server's settings for `app`."""
    return uvicorn.Config(app, http=Connection, log_level="warning", server_header=False, ws="none", lifespan="off")
