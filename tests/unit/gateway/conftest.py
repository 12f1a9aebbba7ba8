"""The door over real sockets, with a small application behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
import uvicorn
from uvicorn.server import ServerState

from rempart.gateway.door import DOOR, DoorProtocol, sweep


class Answer(msgspec.Struct):
    """What a client got."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.json.decode(self.body)["error"]
        return found


class Connection:
    """A client that says what bytes it sends."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> Answer:
        async with asyncio.timeout(20):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return Answer(int(head[0].split(" ")[1]), headers, body)

    async def end(self) -> bytes:
        """What comes until the server closes, however it does that."""
        came = b""
        try:
            async with asyncio.timeout(20):
                while data := await self.reader.read(1 << 16):
                    came += data
        except ConnectionError:
            pass
        return came


class CountingDoor(DoorProtocol):
    """The door, and how many bytes came in."""

    came = 0

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.came += len(data)


class House:
    """The application: it answers with the method, the path and the length of the body."""

    def __init__(self) -> None:
        self.url_host = ""
        self.port = 0
        self.state = ServerState()
        self.scopes: list[dict[str, Any]] = []
        self.received: list[str] = []
        self.release = asyncio.Event()
        self.gone: list[str] = []
        self.open: list[Connection] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        path = scope["path"]
        length = 0
        while path != "/unread":
            message = await receive()
            self.received.append(message["type"])
            if message["type"] == "http.disconnect":
                return
            length += len(message.get("body", b""))
            if not message.get("more_body"):
                break
        if path == "/watch":
            scope[DOOR].when_gone(lambda: self.gone.append(path))
        if path in ("/hold", "/watch"):
            await self.release.wait()
        body = msgspec.json.encode([scope["method"], path, length])
        if path == "/flood":
            await self._flood(send)
            return
        head = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": body})

    async def _flood(self, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not self.release.is_set():
            await send({"type": "http.response.body", "body": b"x" * (1 << 20), "more_body": True})
            await asyncio.sleep(0)  # sending to a client that is gone returns at once

    async def connect(self) -> Connection:
        connection = Connection(*await asyncio.open_connection("127.0.0.1", self.port))
        self.open.append(connection)
        return connection

    async def ask(self, data: bytes) -> Answer:
        connection = await self.connect()
        connection.send(data)
        return await connection.answer()

    def door(self) -> CountingDoor:
        """The only connection, at the server's end."""
        (door,) = self.state.connections
        assert isinstance(door, CountingDoor)
        return door

    def later(self, seconds: float) -> None:
        """What the clock does, `seconds` from now."""
        sweep(self.state.connections, asyncio.get_running_loop().time() + seconds)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    house = House()
    config = uvicorn.Config(house, http=DoorProtocol, ws="none", lifespan="off", log_config=None, server_header=False)
    config.load()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: CountingDoor(config=config, server_state=house.state, app_state={}), "127.0.0.1", 0
    )
    house.port = server.sockets[0].getsockname()[1]
    yield house
    house.release.set()
    for connection in house.open:
        connection.writer.transport.abort()
    for door in tuple(house.state.connections):
        door.transport.abort()
    server.close()
    await asyncio.gather(*house.state.tasks, return_exceptions=True)
