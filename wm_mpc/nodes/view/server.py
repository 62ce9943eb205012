"""The page's server: one page, one WebSocket, and who may use them. Knows no ROS.

A browser is sent what is newest, at most ``rate_hz`` times a second, and nothing while its last
message is still on the way: a slow or hung one misses pictures and is let go after a while; the
others and the robot notice nothing of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import re
import secrets
import socket
import threading
from collections.abc import Callable
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from wm_mpc.core.errors import UserError, one_line
from wm_mpc.nodes.view.board import Board
from wm_mpc.nodes.view.config import ViewConfig

Act = Callable[[dict[str, Any]], str]
"""Does what a button asks for; answers in words, raises UserError with the reason if it cannot."""

PICTURES = ("camera", "goal", "imagined")
"""What the first byte of a binary message counts."""
MOST_BROWSERS = 8
MOST_WAITING = 8
"""Presses of one browser that wait for their turn."""
BUSY = {"ok": False, "message": "busy; press again later"}
URGENT = ("e_stop",)
"""What waits for no other press."""
HUNG_S = 5.0
_QUIET_S = 0.5
_LONGEST = 4096
_WEB = files("wm_mpc.nodes.view") / "web"
_KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}
_NUMBER = re.compile(r"-?\d{1,9}")
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; "
    "style-src 'self' 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Door:
    """Who may come in.

    On loopback: whoever names this machine by a name of its own, so that a page from elsewhere in
    the same browser can neither look nor press buttons. Beyond loopback: whoever has the token.
    """

    def __init__(self, config: ViewConfig) -> None:
        self.loopback = config.loopback
        self.token = config.token or secrets.token_urlsafe(16)

    def refuse(self, connection: HTTPConnection) -> str:
        """Why a connection may not come in; empty: it may."""
        host = connection.headers.get("host", "")
        origin = connection.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return "origin: another page's"
        if self.loopback:
            name = urlsplit(f"//{host}").hostname
            return "" if name in ("127.0.0.1", "localhost", "::1") else "host: not this machine's"
        given = connection.query_params.get("token", "")
        known = hmac.compare_digest(given.encode(), self.token.encode())
        return "" if known else "token: missing or wrong; the address that was printed has it"


class PageServer:
    """Serves from a thread of its own between ``start`` and ``stop``.

    Args:
        board: what is shown.
        act: what buttons do; called from a pool of threads.
        config: where to listen, how often to send.

    Raises:
        UserError: the address cannot be listened on.
    """

    def __init__(self, board: Board, act: Act, config: ViewConfig) -> None:
        self.board, self.act, self.config = board, act, config
        self.door = Door(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news: set[asyncio.Event] = set()
        try:
            family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
            self._socket = socket.create_server((config.host, config.port), family=family)
        except OSError as error:
            raise UserError(
                f"port: {config.host}:{config.port}: {error.strerror}; another one expected"
            ) from error
        routes = [
            Route("/", self._page),
            Route("/web/{name}", self._file),
            Route("/shot/{number}", self._shot),
            WebSocketRoute("/live", self._live),
        ]
        settings = uvicorn.Config(
            Starlette(routes=routes), log_level="warning", lifespan="off", ws_max_size=_LONGEST,
            timeout_graceful_shutdown=1,
        )  # fmt: skip
        self._server = uvicorn.Server(settings)
        self._thread = threading.Thread(target=self._run, name="page", daemon=True)

    @property
    def url(self) -> str:
        """Address of the page, with the token where one is needed."""
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        port = self._socket.getsockname()[1]
        query = "" if self.door.loopback else f"?token={self.door.token}"
        return f"http://{host}:{port}/{query}"

    def start(self) -> None:
        """Begin to serve."""
        self.board.wake = self.wake
        self._thread.start()

    def stop(self) -> None:
        """End; browsers are let go."""
        self._server.should_exit = True
        self._thread.join(3.0)
        self._socket.close()

    def wake(self) -> None:
        """A picture came; may be called from any thread."""
        loop = self._loop
        if loop is not None and self._news:
            with contextlib.suppress(RuntimeError):  # the loop has just closed
                loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        for event in self._news:
            event.set()

    def _run(self) -> None:
        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            await self._server.serve(sockets=[self._socket])

        asyncio.run(serve())

    # ---- pages -------------------------------------------------------------------------------

    async def _page(self, request: Request) -> Response:
        return self._read(request, "index.html")

    async def _file(self, request: Request) -> Response:
        return self._read(request, request.path_params["name"])

    def _read(self, request: Request, name: str) -> Response:
        # what the page is made of is no secret, so that its own links need no token
        refusal = self.door.refuse(request) if self.door.loopback or name == "index.html" else ""
        if refusal:
            return PlainTextResponse(refusal, 403, _HEADERS)
        kind = _KINDS.get(name[name.rfind(".") :])
        file = _WEB / name
        if kind is None or "/" in name or not file.is_file():
            return PlainTextResponse("not found", 404, _HEADERS)
        return Response(file.read_bytes(), headers=_HEADERS, media_type=kind)

    async def _shot(self, request: Request) -> Response:
        refusal = self.door.refuse(request)
        if refusal:
            return PlainTextResponse(refusal, 403, _HEADERS)
        text = request.path_params["number"]
        shot = self.board.find(int(text)) if _NUMBER.fullmatch(text) else None
        if shot is None:
            return PlainTextResponse("no longer kept", 404, _HEADERS)
        data = self.board.encode(shot.image)
        return Response(data, headers=_HEADERS, media_type="image/jpeg")

    # ---- the live connection -----------------------------------------------------------------

    async def _live(self, socket: WebSocket) -> None:
        refusal = self.door.refuse(socket)
        if refusal or len(self._news) >= MOST_BROWSERS:
            await socket.close(1008 if refusal else 1013, refusal or "too many browsers")
            return
        await socket.accept()
        news, line = asyncio.Event(), asyncio.Lock()
        self._news.add(news)
        tasks = [
            asyncio.create_task(self._send(socket, news, line)),
            asyncio.create_task(self._receive(socket, line)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._news.discard(news)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with contextlib.suppress(Exception):
                await socket.close()

    async def _send(self, socket: WebSocket, news: asyncio.Event, line: asyncio.Lock) -> None:
        """Send the newest until the browser leaves or hangs."""
        sent: dict[str, int] = {}
        while True:
            news.clear()
            words = {
                "pictures": self.board.numbers(),
                "shots": [shot.number for shot in self.board.shots()],
                "recorded": [shot.number for shot in self.board.recorded()],
                **self.board.words(),
            }
            async with line:
                await asyncio.wait_for(socket.send_text(json.dumps(words)), HUNG_S)
                for index, name in enumerate(PICTURES):
                    if words["pictures"].get(name, 0) == sent.get(name, 0):
                        continue
                    sent[name], jpeg = self.board.jpeg(name)
                    await asyncio.wait_for(socket.send_bytes(bytes([index]) + jpeg), HUNG_S)
            await asyncio.sleep(1 / self.config.rate_hz)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(news.wait(), _QUIET_S)

    async def _receive(self, socket: WebSocket, line: asyncio.Lock) -> None:
        """Do what buttons ask for, one after the other, and answer each; a stop overtakes."""
        turn = asyncio.Lock()
        waiting: set[asyncio.Task[None]] = set()
        try:
            while True:
                try:
                    text = await socket.receive_text()
                except (WebSocketDisconnect, KeyError):
                    return
                request = _request(text)
                if request.get("do") in URGENT:
                    await self._do(socket, line, request)
                elif len(waiting) >= MOST_WAITING:
                    await _answered(socket, line, BUSY)
                else:
                    task = asyncio.create_task(self._do(socket, line, request, turn))
                    waiting.add(task)
                    task.add_done_callback(waiting.discard)
        finally:
            for task in waiting:
                task.cancel()

    async def _do(
        self, socket: WebSocket, line: asyncio.Lock, request: dict[str, Any],
        turn: asyncio.Lock | None = None,
    ) -> None:  # fmt: skip
        with contextlib.suppress(WebSocketDisconnect, RuntimeError, asyncio.TimeoutError):
            async with turn or contextlib.nullcontext():
                answer = await run_in_threadpool(self._answer, request)
            await _answered(socket, line, answer)

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            if "wrong" in request:
                raise UserError(request["wrong"])
            return {"ok": True, "message": self.act(request), "do": request.get("do")}
        except (UserError, ValueError) as error:
            return {"ok": False, "message": one_line(error)}


def _request(text: str) -> dict[str, Any]:
    """What a button asks for; ``wrong`` says why it cannot be read."""
    try:
        request = json.loads(text)
    except (ValueError, RecursionError) as error:
        return {"wrong": one_line(error)}
    return request if isinstance(request, dict) else {"wrong": "request: an object expected"}


async def _answered(socket: WebSocket, line: asyncio.Lock, answer: dict[str, Any]) -> None:
    async with line:
        await asyncio.wait_for(socket.send_text(json.dumps({"answer": answer})), HUNG_S)


__all__ = ["Act", "Door", "PageServer"]
