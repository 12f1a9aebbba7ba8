"""`Relay`: stands between an adapter and an engine, and spoils the engine's streams in the middle when it is told to.

No real engine fails on request. So its real answer begins, and then what comes is wrong: that is as near to the fault
as a test can get. It reads just enough of HTTP/1.1 for that: heads, and chunks (RFC 9112 section 7.1).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

import msgspec

_READ_BYTES: Final = 64 * 1024


class Spoil(msgspec.Struct, frozen=True, kw_only=True):
    """What happens to a chunked answer after so many of its chunks went through."""

    after: int = 2
    inject: bytes = b""
    """Sent in a chunk of its own."""
    stall: bool = False
    """Then nothing more, with the connection open; else it is closed without the last chunk."""


class Relay:
    """`async with Relay(where) as relay`: then `relay.url` leads to where `where()` says the engine listens."""

    def __init__(self, where: Callable[[], str]) -> None:
        self._where = where
        self.url = ""
        self.spoil: Spoil | None = None
        """For the answers that begin from now on."""
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Both ways until one side leaves: then the other is told at once, as a cable would."""
        try:
            where = urlsplit(self._where())
            theirs, ours = await asyncio.open_connection(where.hostname, where.port, limit=_READ_BYTES * 4)
        except OSError:
            writer.transport.abort()
            return
        ways = {asyncio.create_task(_copy(reader, ours)), asyncio.create_task(self._answers(theirs, writer))}
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            ours.transport.abort()
            writer.transport.abort() if writer.transport.get_write_buffer_size() == 0 else writer.close()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(head)
                await self._body(head.lower(), reader, writer)
                await writer.drain()

    async def _body(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        spoil = self.spoil
        if b"transfer-encoding: chunked" not in head:
            length = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:")), 0)
            writer.write(await reader.readexactly(length))
            return
        passed = 0
        while True:
            if spoil is not None and passed == spoil.after:
                await self._spoil(spoil, writer)
            size = await reader.readuntil(b"\r\n")
            chunk = await reader.readexactly(int(size.split(b";")[0], 16) + 2)
            writer.write(size + chunk)
            await writer.drain()
            passed += 1
            if chunk == b"\r\n":
                return

    async def _spoil(self, spoil: Spoil, writer: asyncio.StreamWriter) -> None:
        if spoil.inject:
            writer.write(b"%x\r\n%b\r\n" % (len(spoil.inject), spoil.inject))
            await writer.drain()
        if spoil.stall:
            await asyncio.Event().wait()
        raise ConnectionAbortedError


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(_READ_BYTES):
            writer.write(data)
            await writer.drain()
