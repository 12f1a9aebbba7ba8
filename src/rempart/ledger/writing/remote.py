"""`share` and `RemoteSequencer`: the one writer of a log, shared with a worker over a socket of theirs alone.

Both forms of the sequencer pass one suite (`rempart.testing.check_sequencer`). Messages are those of `ipc/channel`.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Awaitable
from typing import Any, Final

import msgspec

from rempart import limits
from rempart.errors import LedgerUnavailable
from rempart.ipc.channel import Channel, ChannelClosed
from rempart.ledger.writing.draft import LogState, Receipt
from rempart.ledger.writing.journal import Sequencer

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


async def share(sequencer: Sequencer, sock: socket.socket) -> frozenset[str]:
    """Serve one worker until its end of the socket closes. The exchanges that it opened and did not close."""
    return await _Sharing(sequencer, await Channel.over(sock, _to_server, limits.segment_bytes)).run()


class _Sharing:
    """One worker's socket. Its commands are taken in the order in which they came."""

    def __init__(self, sequencer: Sequencer, channel: Channel) -> None:
        self._sequencer = sequencer
        self._channel = channel
        self._waiting: set[asyncio.Task[None]] = set()
        self._open: set[str] = set()

    async def run(self) -> frozenset[str]:
        telling = asyncio.create_task(self._tell_state())
        try:
            while True:
                self._take(await self._channel.receive())
        except ChannelClosed:
            while self._waiting:  # what came is recorded, whoever waits for it or not
                await asyncio.wait(self._waiting)
            return frozenset(self._open)
        finally:
            telling.cancel()
            await asyncio.gather(telling, *self._waiting, return_exceptions=True)
            self._channel.close()

    def _take(self, message: _Append | _Piece) -> None:
        opens, closes = (message.opens, message.closes) if isinstance(message, _Append) else ("", "")
        try:
            if isinstance(message, _Append):
                done: Awaitable[Receipt | None] | None = self._sequencer.append(
                    message.entry, message.body, opens=opens, closes=closes
                )
            else:
                done = self._sequencer.piece(message.exchange, message.sequence, message.sealed)
        except LedgerUnavailable as error:
            self._channel.send(_Done(message.id, None, error.message))
            return
        if done is None:
            self._channel.send(_Done(message.id, None, ""))
            return
        if opens:
            self._open.add(opens)
        task = asyncio.ensure_future(self._answer(message.id, done, opens, closes))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def _answer(self, id_: int, done: Awaitable[Receipt | None], opens: str, closes: str) -> None:
        try:
            receipt = await done
        except LedgerUnavailable as error:
            self._open.discard(opens)
            self._channel.send(_Done(id_, None, error.message))
            return
        self._open.discard(closes)
        self._channel.send(_Done(id_, receipt, ""))

    async def _tell_state(self) -> None:
        while True:
            room = ""
            try:
                self._sequencer.check_room()
            except LedgerUnavailable as error:
                room = error.message
            self._channel.send(_State(self._sequencer.state(), room))
            await asyncio.sleep(_STATE_S)


class RemoteSequencer:
    """The worker's side. `over` returns it ready; when the writer is gone everything raises `LedgerUnavailable`."""

    def __init__(self, channel: Channel, first: _State) -> None:
        self._channel = channel
        self._last = first
        self._ids = itertools.count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._gone = ""
        self._listening = asyncio.create_task(self._listen())

    @classmethod
    async def over(cls, sock: socket.socket) -> RemoteSequencer:
        """It owns `sock` from now on. Raises `LedgerUnavailable`."""
        channel = await Channel.over(sock, _to_worker, limits.segment_bytes)
        try:
            first = await channel.receive()
        except ChannelClosed as error:
            channel.close()
            raise _unavailable("The ledger's writer does not answer.") from error
        assert isinstance(first, _State)
        return cls(channel, first)

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
        self._channel.close()

    def _ask(self, id_: int, message: _Append | _Piece) -> asyncio.Future[Any]:
        if self._gone:
            raise _unavailable(self._gone)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[id_] = future
        self._channel.send(message)
        return future

    async def _listen(self) -> None:
        try:
            while True:
                self._heard(await self._channel.receive())
        except ChannelClosed:
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
