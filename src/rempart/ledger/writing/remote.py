"""`SequencerSocket` and `RemoteSequencer`: the one writer of a log, shared with workers over a Unix socket.

Both forms of the sequencer pass one suite (`rempart.testing.check_sequencer`). A message is its length in four bytes,
big-endian, then MessagePack. Peers are this user's own processes: the socket is owner-only.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any, Final

import msgspec

from rempart import limits
from rempart.errors import LedgerUnavailable
from rempart.ledger.writing.draft import LogState, Receipt
from rempart.ledger.writing.journal import Sequencer

_MESSAGE_BYTES_MAX: Final = limits.segment_bytes
_STATE_S: Final = 0.25


class _Append(msgspec.Struct, tag="append", array_like=True):
    id: int
    entry: bytes
    body: bytes
    opens: str
    closes: str


class _Piece(msgspec.Struct, tag="piece", array_like=True):
    id: int
    exchange: bytes
    sequence: int
    sealed: bytes


class _Done(msgspec.Struct, tag="done", array_like=True):
    id: int
    receipt: Receipt | None
    unavailable: str
    """Why not; empty when it is done."""


class _State(msgspec.Struct, tag="state", array_like=True):
    state: LogState
    room: str
    """Why nothing new may begin; empty when it may."""


_to_server = msgspec.msgpack.Decoder(_Append | _Piece)
_to_worker = msgspec.msgpack.Decoder(_Done | _State)
_pack = msgspec.msgpack.Encoder()


@contextlib.asynccontextmanager
async def sharing(sequencer: Sequencer, path: Path) -> AsyncIterator[None]:
    """Let workers use `sequencer` through the socket at `path` while the context lasts."""
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        sock.bind(str(path))
    finally:
        os.umask(before)
    peers: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        peers.add(task)
        try:
            await _SequencerSocket(sequencer, reader, writer).run()
        finally:
            peers.discard(task)
            writer.close()

    server = await asyncio.start_unix_server(serve, sock=sock)
    try:
        yield
    finally:
        server.close()
        for task in peers:
            task.cancel()
        await asyncio.gather(*peers, return_exceptions=True)
        path.unlink(missing_ok=True)


class _SequencerSocket:
    """One worker's connection. Its commands are taken in the order in which they came."""

    def __init__(self, sequencer: Sequencer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._sequencer = sequencer
        self._reader = reader
        self._writer = writer
        self._waiting: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        telling = asyncio.create_task(self._tell_state())
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    self._take(_to_server.decode(await _receive(self._reader)))
        finally:
            telling.cancel()
            await asyncio.gather(telling, *self._waiting, return_exceptions=True)

    def _take(self, message: _Append | _Piece) -> None:
        try:
            if isinstance(message, _Append):
                done: Awaitable[Receipt | None] | None = self._sequencer.append(
                    message.entry, message.body, opens=message.opens, closes=message.closes
                )
            else:
                done = self._sequencer.piece(message.exchange, message.sequence, message.sealed)
        except LedgerUnavailable as error:
            _send(self._writer, _Done(message.id, None, error.message))
            return
        if done is None:
            _send(self._writer, _Done(message.id, None, ""))
            return
        task = asyncio.ensure_future(self._answer(message.id, done))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def _answer(self, id_: int, done: Awaitable[Receipt | None]) -> None:
        try:
            _send(self._writer, _Done(id_, await done, ""))
        except LedgerUnavailable as error:
            _send(self._writer, _Done(id_, None, error.message))

    async def _tell_state(self) -> None:
        while True:
            room = ""
            try:
                self._sequencer.check_room()
            except LedgerUnavailable as error:
                room = error.message
            _send(self._writer, _State(self._sequencer.state(), room))
            await asyncio.sleep(_STATE_S)


class RemoteSequencer:
    """The worker's side. `connect` returns it ready; when the writer is gone everything raises `LedgerUnavailable`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: _State) -> None:
        self._reader = reader
        self._writer = writer
        self._last = first
        self._ids = itertools.count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._gone = ""
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def connect(cls, path: Path) -> RemoteSequencer:
        """Raises `LedgerUnavailable`."""
        try:
            reader, writer = await asyncio.open_unix_connection(str(path))
            first = _to_worker.decode(await _receive(reader))
        except (OSError, asyncio.IncompleteReadError) as error:
            raise _unavailable("The ledger's writer does not answer.") from error
        assert isinstance(first, _State)
        return cls(reader, writer, first)

    def append(self, entry: bytes, body: bytes = b"", *, opens: str = "", closes: str = "") -> asyncio.Future[Receipt]:
        id_ = next(self._ids)
        return self._ask(id_, _Append(id_, entry, body, opens, closes))

    def piece(self, exchange: bytes, sequence: int, sealed: bytes) -> Awaitable[None]:
        """Never None: that it is written is known when the writer says so."""
        id_ = next(self._ids)
        return self._ask(id_, _Piece(id_, exchange, sequence, sealed))

    def check_room(self) -> None:
        reason = self._gone or self._last.room
        if reason:
            raise _unavailable(reason)

    def state(self) -> LogState:
        if not self._gone:
            return self._last.state
        return msgspec.structs.replace(self._last.state, failure=self._gone)

    async def close(self) -> None:
        """Leaves the writer running: it is not ours."""
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)
        self._lose("The connection to the ledger's writer is closed.")
        self._writer.close()

    def _ask(self, id_: int, message: _Append | _Piece) -> asyncio.Future[Any]:
        if self._gone:
            raise _unavailable(self._gone)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[id_] = future
        _send(self._writer, message)
        return future

    async def _listen(self) -> None:
        try:
            while True:
                self._heard(_to_worker.decode(await _receive(self._reader)))
        except (asyncio.IncompleteReadError, ConnectionError):
            self._lose("The ledger's writer is gone.")

    def _heard(self, message: _Done | _State) -> None:
        if isinstance(message, _State):
            self._last = message
            return
        future = self._waiting.pop(message.id)
        if future.done():
            return
        if message.unavailable:
            future.set_exception(_unavailable(message.unavailable))
        else:
            future.set_result(message.receipt)

    def _lose(self, reason: str) -> None:
        self._gone = reason
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(_unavailable(reason))
        self._waiting.clear()


def _unavailable(reason: str) -> LedgerUnavailable:
    return LedgerUnavailable(reason, hint="See the server's log.", retry_after_s=5)


def _send(writer: asyncio.StreamWriter, message: object) -> None:
    data = _pack.encode(message)
    writer.write(len(data).to_bytes(4, "big") + data)


async def _receive(reader: asyncio.StreamReader) -> bytes:
    length = int.from_bytes(await reader.readexactly(4), "big")
    if length > _MESSAGE_BYTES_MAX:
        raise ConnectionError("a message is too long")
    return await reader.readexactly(length)
