"""`serve`: listen, keep the clock of the gateway, and drain on request.

uvicorn brings the event loop's servers; signals, deadlines and draining are ours, since a deploy must not cut streams.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Callable, Coroutine, Generator
from pathlib import Path
from typing import Any

import msgspec
import uvicorn

from rempart import limits
from rempart.errors import ConfigError
from rempart.gateway.app import Gateway
from rempart.gateway.door import DoorProtocol, sweep

_log = logging.getLogger("rempart.gateway")
_BACKLOG = 4096


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Where to listen. Port 0 takes any free one."""

    host: str
    port: int
    certificate: Path | None = None
    key: Path | None = None


def bind(address: Address) -> socket.socket:
    """A listening socket. Raises `ConfigError` when the address is taken, unknown or not allowed."""
    try:
        family, kind, proto, _, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, proto)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)
        sock.listen(_BACKLOG)
    except OSError as error:
        raise ConfigError(
            f"Cannot listen on {address.host}:{address.port}: {error.strerror or error}.",
            hint=_hint(error),
        ) from error
    sock.setblocking(False)
    return sock


def _hint(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "Another program listens there. Stop it, or choose another port with --port."
    if error.errno == errno.EACCES:
        return "Ports under 1024 need privileges. Choose another with --port."
    return "Give an address of this machine with --host."


class QuietServer(uvicorn.Server):
    """uvicorn without its own signal handlers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield


async def serve(
    gateway: Gateway,
    sock: socket.socket,
    address: Address,
    *,
    stop: asyncio.Event,
    ready: Callable[[], Coroutine[None, None, None]],
) -> None:
    """Serve until `stop` is set, then drain and return. `ready` runs as soon as connections are taken.

    While draining, running exchanges go on up to the gateway's `drain_s`, new ones get 503 and `/readyz` is red.
    """
    server = QuietServer(configuration(gateway, address))
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(server.serve(sockets=[sock]))
        clock = tasks.create_task(_clock(gateway, server))
        announce = tasks.create_task(ready())
        stopping = tasks.create_task(stop.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        await gateway.drain()
        for task in (announce, stopping, clock):
            task.cancel()
        server.should_exit = True


def configuration(app: Callable[..., Any], address: Address) -> uvicorn.Config:
    """Of a server whose connections are doors."""
    return uvicorn.Config(
        app,
        http=DoorProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=int(limits.keep_alive_s),
        timeout_graceful_shutdown=5,
        backlog=_BACKLOG,
        ssl_certfile=address.certificate,
        ssl_keyfile=address.key,
    )


async def _clock(gateway: Gateway, server: uvicorn.Server) -> None:
    """Once a second: deadlines of connections and exchanges; once a minute: what the ledger counts."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(1.0)
        now = loop.time()
        try:
            sweep(server.server_state.connections, now)
            await gateway.tick(now)
        except Exception:  # the clock's edge: what one tick meets must not stop the server
            _log.exception("A tick failed in a way that was not foreseen.")
