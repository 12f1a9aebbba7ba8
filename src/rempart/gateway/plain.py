"""`serve_plain`: an application without exchanges behind the gateway's door, until it is told to stop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Protocol

from rempart.gateway.door import sweep
from rempart.gateway.http import Receive, Scope, Send
from rempart.gateway.server import Address, QuietServer, configuration


class Plain(Protocol):
    """An ASGI application that can end."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...

    async def drain(self) -> None:
        """Take nothing new, and return once nothing runs, within seconds."""
        ...


async def serve_plain(
    app: Plain, sock: socket.socket, address: Address, *, stop: asyncio.Event, ready: Callable[[], None]
) -> None:
    """`ready` is called as soon as connections are taken."""
    server = QuietServer(configuration(app, address))
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(server.serve(sockets=[sock]))
        sweeping = tasks.create_task(_sweep(server))
        stopping = tasks.create_task(stop.wait())
        ready()
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        await app.drain()
        stopping.cancel()
        sweeping.cancel()
        server.should_exit = True


async def _sweep(server: QuietServer) -> None:
    """Once a second: the deadlines of connections."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(1.0)
        sweep(server.server_state.connections, loop.time())
