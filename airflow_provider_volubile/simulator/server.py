"""The two servers of the simulator, API and media, in one process and one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Generator

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from airflow_provider_volubile.simulator.config import Options
from airflow_provider_volubile.simulator.control import control_app
from airflow_provider_volubile.simulator.faults import TRANSPORT
from airflow_provider_volubile.simulator.media import media_app
from airflow_provider_volubile.simulator.routes import OPERATIONS, UNKNOWN, endpoint
from airflow_provider_volubile.simulator.state import State

#: Wall seconds between two runs of the engine when no request comes in. Webhooks leave that often.
_TICK = 0.05

# If the server closes a connection while the client is about to reuse it, this looks like a lost answer. Only
# injected faults may do that.
_KEEP_ALIVE = 3600


def run(options: Options, host: str, port: int, media_port: int, *, until_stdin_closes: bool = False) -> None:
    """Serve until interrupted. Print one line once both ports are open.

    :param port: port of the API and the control interface; 0 takes any free one, also for ``media_port``.
    :param until_stdin_closes: stop when the process that started this one has ended.
    :raises OSError: a port cannot be opened.
    """
    with _listen(host, port) as api_socket, _listen(host, media_port) as media_socket:
        url, media_url = (f"http://{host}:{sock.getsockname()[1]}" for sock in (api_socket, media_socket))
        state = State(options, media_url)
        servers = [(_server(api_app(state)), api_socket), (_server(media_app(state)), media_socket)]
        print(f"Volubile simulator listening on {url} (media {media_url})", flush=True)
        asyncio.run(_serve(state, servers, until_stdin_closes))


def api_app(state: State) -> FastAPI:
    """Return the application of the API port."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.mount("/_sim", control_app(state))
    # Use plain routes: FastAPI's routes would validate bodies before authentication.
    for operation in OPERATIONS:
        app.add_route(operation.route, endpoint(state, operation), methods=[operation.method])
    app.add_route(UNKNOWN.route, endpoint(state, UNKNOWN), methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    return app


def _listen(host: str, port: int) -> socket.socket:
    # Name the protocol: asyncio switches Nagle's algorithm off only for named TCP sockets. With Nagle, every answer
    # would wait 40 ms for the client's delayed acknowledgement.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    listener.listen(2048)
    return listener


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield  # two servers share the process: _serve handles the signals of both


def _server(app: ASGIApp) -> _Server:
    return _Server(
        uvicorn.Config(
            _WithTransport(app),
            http="httptools" if importlib.util.find_spec("httptools") else "h11",
            ws="none",
            lifespan="off",
            log_level="error",
            access_log=False,
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=1,
        )
    )


class _WithTransport:
    """Pass the connection's transport to the application, so that faults can close it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # `send` is a method of uvicorn's request cycle, the only place that knows the transport.
        scope[TRANSPORT] = getattr(send, "__self__").transport  # noqa: B009
        await self._app(scope, receive, send)


async def _serve(state: State, servers: list[tuple[_Server, socket.socket]], until_stdin_closes: bool) -> None:
    def stop() -> None:
        logging.disable()  # stopping cuts off answers in progress: do not log that
        for server, _ in servers:
            server.should_exit = server.force_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    if until_stdin_closes:
        threading.Thread(target=_watch_stdin, args=(loop, stop), daemon=True).start()
    ticking = asyncio.create_task(_tick(state))
    await asyncio.gather(*(server.serve(sockets=[sock]) for server, sock in servers))
    ticking.cancel()


def _watch_stdin(loop: asyncio.AbstractEventLoop, stop: Callable[[], None]) -> None:
    while os.read(0, 4096):  # not sys.stdin: this thread would hold its lock and abort the interpreter's exit
        pass
    with contextlib.suppress(RuntimeError):  # the loop may be closed already
        loop.call_soon_threadsafe(stop)


async def _tick(state: State) -> None:
    while True:
        state.engine.run()
        await asyncio.sleep(_TICK)
