"""`serve`: listen, keep the clock of the gateway, and drain on request, or stop at once.

uvicorn brings the event loop's servers; signals, deadlines and draining are ours, since a deploy must not cut streams.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import math
import socket
from collections import Counter
from collections.abc import Callable, Coroutine, Generator, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
import uvicorn

from rempart import limits
from rempart.errors import AddressInUse, ConfigError, EngineUnavailable
from rempart.exchange import events as e
from rempart.gateway.app import Gateway
from rempart.gateway.door import DoorProtocol, sweep

_log = logging.getLogger("rempart.gateway")
_BACKLOG = 4096
_MINUTE_S = 60.0
_AGAIN_S = 0.1


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Where to listen. Port 0 takes any free one."""

    host: str
    port: int
    certificate: Path | None = None
    key: Path | None = None


def bind(address: Address, *, shared: bool = False) -> socket.socket:
    """A listening socket. Raises `AddressInUse`, or `ConfigError` when the address is unknown or not allowed.

    `shared`: other workers of this site will listen there with sockets of their own, from `bind_beside`.
    """
    if shared and address.port:
        # Another site of this user may share its address too: with its own workers.
        _bound(address, shared=False).close()
    sock = _bound(address, shared=shared)
    try:
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise _refused(address, error) from error
    return sock


def bind_beside(sock: socket.socket, address: Address) -> socket.socket:
    """A socket at the address of `sock`, which was bound to be shared; whoever listens with it gets its part of what
    comes, and gives it back by ending. Raises `AddressInUse`, `ConfigError`."""
    return _bound(msgspec.structs.replace(address, port=int(sock.getsockname()[1])), shared=True)


def _bound(address: Address, *, shared: bool) -> socket.socket:
    try:
        family, kind, proto, _, where = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, proto)
    except OSError as error:
        raise _refused(address, error) from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(where)
    except OSError as error:
        sock.close()
        raise _refused(address, error) from error
    sock.setblocking(False)
    return sock


def _refused(address: Address, error: OSError) -> ConfigError:
    kind_of = AddressInUse if error.errno == errno.EADDRINUSE else ConfigError
    return kind_of(
        f"Cannot listen on {address.host}:{address.port}: {error.strerror or error}.",
        hint=_hint(error),
    )


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


class Stop(msgspec.Struct, frozen=True, kw_only=True):
    """How a server is told to stop, and whom it tells."""

    drain: asyncio.Event
    """Take nothing new, let what runs end."""
    cut: asyncio.Event
    """Do not wait for what still runs."""
    draining: Callable[[int], None]
    """Called as it begins to drain, with the number of exchanges that still run."""


async def serve(
    gateway: Gateway,
    sock: socket.socket,
    address: Address,
    *,
    stop: Stop,
    ready: Callable[[], Coroutine[None, None, None]],
) -> None:
    """Serve until `stop.drain` is set, then drain and return. `ready` runs as soon as connections are taken.

    While draining, running exchanges go on up to the gateway's `drain_s`, new ones get 503 and `/readyz` is red.
    """
    server = QuietServer(configuration(gateway, address))
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(server.serve(sockets=[sock]))
        warning = TurnedAway()
        clock = tasks.create_task(_clock(gateway, server, warning))
        announce = tasks.create_task(ready())
        stopping = tasks.create_task(stop.drain.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stop.draining(gateway.count_running())
        await _drain(gateway, stop.cut)
        for task in (announce, stopping, clock):
            task.cancel()
        server.should_exit = True
    warning.look(gateway.turned_away, math.inf)


async def _drain(gateway: Gateway, cut: asyncio.Event) -> None:
    async with asyncio.TaskGroup() as tasks:
        draining = tasks.create_task(gateway.drain())
        others = [tasks.create_task(_cut(gateway, cut)), tasks.create_task(_cut_the_dead(gateway))]
        await asyncio.wait({draining})
        for task in others:
            task.cancel()


async def _cut(gateway: Gateway, cut: asyncio.Event) -> None:
    """Again and again: a request may become an exchange only now."""
    await cut.wait()
    while True:
        gateway.cut()
        await asyncio.sleep(_AGAIN_S)


async def _cut_the_dead(gateway: Gateway) -> None:
    """An exchange that hears nothing from an engine that is down would wait out the drain for nothing."""
    began = perf_counter()
    while True:
        await asyncio.sleep(limits.engine_ask_s)
        engines = gateway.parts.router.states()
        for performer in tuple(gateway.running):
            silent_s = perf_counter() - max(began, performer.heard)
            if engines.get(performer.engine) and silent_s > limits.drain_dead_s:
                why = f"The server is stopping, and the engine {performer.engine} is down."
                performer.interrupt(e.Cut(error=EngineUnavailable(why, hint="Send it again.")))


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


async def _clock(gateway: Gateway, server: uvicorn.Server, warning: TurnedAway) -> None:
    """Once a second: deadlines of connections and exchanges; once a minute: what the ledger counts."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(1.0)
        now = loop.time()
        try:
            sweep(server.server_state.connections, now)
            warning.look(gateway.turned_away, now)
            await gateway.tick(now)
        except Exception:  # the clock's edge: what one tick meets must not stop the server
            _log.exception("A tick failed in a way that was not foreseen.")


class TurnedAway:
    """A warning of requests that were refused before any exchange: how many, at most once a minute, never a key."""

    def __init__(self) -> None:
        self._told: Counter[str] = Counter()
        self._quiet_until = 0.0

    def look(self, counts: Mapping[str, int], now: float) -> None:
        """`counts`: error code -> requests since the start; `now` in loop time, without end for the last look."""
        new = Counter(counts) - self._told
        if new and now >= self._quiet_until:
            self._told, self._quiet_until = Counter(counts), now + _MINUTE_S
            _log.warning("requests refused", extra={"counts": dict(new)})
