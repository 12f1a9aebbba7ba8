"""`Talk`: two processes ask each other questions and tell each other words, over one channel.

Words come in the order in which they were told, and before any question that was asked after them is answered.
Errors of our tree cross as what they are.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from rempart import limits
from rempart.errors import RempartError
from rempart.ipc.channel import Channel, ChannelClosed

_log = logging.getLogger("rempart.ipc")
T = TypeVar("T")
Answer = Callable[[Any], Awaitable[object]]
Hear = Callable[[Any], None]
_pack: Final = msgspec.msgpack.Encoder()


class _Ask(msgspec.Struct, tag="ask", array_like=True):
    id: int
    question: msgspec.Raw


class _Tell(msgspec.Struct, tag="tell", array_like=True):
    word: msgspec.Raw


class _Answered(msgspec.Struct, tag="answer", array_like=True):
    id: int
    answer: msgspec.Raw


class _Refused(msgspec.Struct, tag="refuse", array_like=True):
    id: int
    code: str
    message: str
    hint: str
    param: str | None
    retry_after_s: int | None


_any: Final = msgspec.msgpack.Decoder(_Ask | _Tell | _Answered | _Refused)


class Talk:
    """One end. `kinds`: the union of what may be asked or told here."""

    def __init__(self, channel: Channel, kinds: Any, answer: Answer, hear: Hear) -> None:
        """`answer` is awaited in a task of its own; it and `hear` get values of `kinds`."""
        self._channel = channel
        self._kinds = msgspec.msgpack.Decoder(kinds)
        self._answer = answer
        self._hear = hear
        self._ids = itertools.count()
        self._waiting: dict[int, asyncio.Future[msgspec.Raw]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._closed = ""

    @classmethod
    async def over(cls, sock: socket.socket, kinds: Any, answer: Answer, hear: Hear) -> Talk:
        """The talk owns `sock` from now on. Nothing is heard before `run`."""
        return cls(await Channel.over(sock, _any, limits.talk_bytes_max), kinds, answer, hear)

    async def run(self) -> None:
        """Listen until the other end is gone; then whoever waits for an answer gets `ChannelClosed`."""
        reason = "this end was closed"
        try:
            while True:
                self._came(await self._channel.receive())
        except ChannelClosed as closed:
            reason = str(closed)
        finally:
            self._lose(reason)
            for task in self._answering:
                task.cancel()
            await asyncio.gather(*self._answering, return_exceptions=True)
            self._channel.close()

    async def ask(self, question: object, kind: type[T]) -> T:
        """Raises what the other end raised, `ChannelClosed` when it is gone."""
        if self._closed:
            raise ChannelClosed(self._closed)
        id_ = next(self._ids)
        future: asyncio.Future[msgspec.Raw] = asyncio.get_running_loop().create_future()
        self._waiting[id_] = future
        self._channel.send(_Ask(id_, msgspec.Raw(_pack.encode(question))))
        try:
            return msgspec.msgpack.decode(await future, type=kind)
        finally:
            self._waiting.pop(id_, None)

    def tell(self, word: object) -> None:
        """Does not wait, and is lost when the other end is gone."""
        if not self._closed:
            self._channel.send(_Tell(msgspec.Raw(_pack.encode(word))))

    def _came(self, message: _Ask | _Tell | _Answered | _Refused) -> None:
        if isinstance(message, _Tell):
            self._hear(self._decoded(message.word))
        elif isinstance(message, _Ask):
            task = asyncio.ensure_future(self._reply(message.id, self._decoded(message.question)))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
        else:
            future = self._waiting.get(message.id)
            if future is None or future.done():
                return  # whoever asked waits no longer
            if isinstance(message, _Answered):
                future.set_result(message.answer)
            else:
                future.set_exception(_raised(message))

    def _decoded(self, raw: msgspec.Raw) -> Any:
        try:
            return self._kinds.decode(raw)
        except msgspec.DecodeError as error:
            raise ChannelClosed(f"that is no message: {error}") from error

    async def _reply(self, id_: int, question: Any) -> None:
        try:
            self._channel.send(_Answered(id_, msgspec.Raw(_pack.encode(await self._answer(question)))))
        except RempartError as error:
            self._channel.send(_refused(id_, error))
        except ChannelClosed as error:
            self._channel.send(_refused(id_, RempartError(f"A process that this needs is gone: {error}.")))
        except Exception:  # the border of a process: one question must not end it
            _log.exception("A question between processes failed in a way that was not foreseen.")
            self._channel.send(_refused(id_, RempartError("Something failed inside Rempart.", hint="See its log.")))

    def _lose(self, reason: str) -> None:
        self._closed = reason
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ChannelClosed(reason))
        self._waiting.clear()


def _refused(id_: int, error: RempartError) -> _Refused:
    return _Refused(id_, error.code, error.message, error.hint, error.param, error.retry_after_s)


def _raised(refused: _Refused) -> RempartError:
    kind = _kinds_of_error().get(refused.code, RempartError)
    return kind(refused.message, hint=refused.hint, param=refused.param, retry_after_s=refused.retry_after_s)


def _kinds_of_error() -> Mapping[str, type[RempartError]]:
    """Of those that are made of a message alone."""
    found: dict[str, type[RempartError]] = {}
    left = [RempartError]
    while left:
        kind = left.pop()
        left += kind.__subclasses__()
        if kind.__init__ is RempartError.__init__:
            found.setdefault(kind.code, kind)
    return found
