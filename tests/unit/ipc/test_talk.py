"""`rempart.ipc`: questions, words and errors between two processes, and what comes of it when one of them goes."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

import msgspec
import pytest

from rempart.errors import EngineRefused, NotFound, QuotaExceeded, RateLimited, RempartError
from rempart.ipc.channel import Channel, ChannelClosed
from rempart.ipc.talk import Talk
from rempart.testing.talking import Side, talking


class Say(msgspec.Struct, tag=True):
    text: str


class Fail(msgspec.Struct, tag=True):
    how: str


class Wait(msgspec.Struct, tag=True):
    pass


KINDS = Say | Fail | Wait
ERRORS: dict[str, Exception] = {
    "limited": RateLimited("Too many.", hint="Wait.", retry_after_s=7),
    "spent": QuotaExceeded("All used.", hint="Wait longer.", retry_after_s=70),
    "missing": NotFound("It is not there.", hint="Look elsewhere.", param="id"),
    "refused": EngineRefused("It said no.", status=422),
    "unforeseen": ZeroDivisionError("a secret"),
}


class Far:
    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.asked = asyncio.Event()
        self.cancelled = False

    async def answer(self, question: Any) -> object:
        if isinstance(question, Say):
            return [question.text, *(one.text for one in self.heard)]
        if isinstance(question, Fail):
            raise ERRORS[question.how]
        self.asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return None

    def side(self) -> Side:
        return Side(KINDS, self.answer, self.heard.append)


async def test_words_are_heard_before_a_later_question_is_answered() -> None:
    far = Far()
    async with talking(far.side(), far.side()) as (here, _):
        for number in range(100):
            here.tell(Say(str(number)))
        assert await here.ask(Say("asked"), list[str]) == ["asked", *map(str, range(100))]


async def test_both_ends_ask_at_once() -> None:
    far = Far()
    async with talking(far.side(), far.side()) as (here, there):
        asked = [end.ask(Say(str(number)), list[str]) for number in range(50) for end in (here, there)]
        assert await asyncio.gather(*asked) == [[str(number)] for number in range(50) for _ in range(2)]


@pytest.mark.parametrize("how", ["limited", "spent", "missing"])
async def test_an_error_of_ours_is_raised_at_the_other_end_as_what_it_is(how: str) -> None:
    far = Far()
    async with talking(far.side(), far.side()) as (here, _):
        with pytest.raises(RempartError) as caught:
            await here.ask(Fail(how), type(None))
    raised, wanted = caught.value, ERRORS[how]
    assert type(raised) is type(wanted)
    assert vars(raised) == vars(wanted)


async def test_an_error_that_needs_more_than_a_message_is_one_of_the_root() -> None:
    far = Far()
    async with talking(far.side(), far.side()) as (here, _):
        with pytest.raises(RempartError, match="It said no"):
            await here.ask(Fail("refused"), type(None))


async def test_what_was_not_foreseen_is_logged_there_and_shows_nothing_here(caplog: pytest.LogCaptureFixture) -> None:
    far = Far()
    with caplog.at_level(logging.ERROR):
        async with talking(far.side(), far.side()) as (here, _):
            with pytest.raises(RempartError) as caught:
                await here.ask(Fail("unforeseen"), type(None))
            assert await here.ask(Say("goes on"), list[str]) == ["goes on"]
    assert "secret" not in caught.value.message + caught.value.hint
    assert "a secret" in caplog.text


async def test_whoever_waits_is_told_when_the_other_end_goes() -> None:
    far = Far()
    near, other = socket.socketpair()
    here = await Talk.over(near, *far.side())
    running = asyncio.create_task(here.run())
    waiting = asyncio.create_task(here.ask(Wait(), type(None)))
    other.close()
    with pytest.raises(ChannelClosed):
        await waiting
    await running
    with pytest.raises(ChannelClosed):
        await here.ask(Say("too late"), list[str])
    here.tell(Say("to nobody"))


async def test_questions_that_are_being_answered_end_with_the_talk() -> None:
    far = Far()
    async with talking(far.side(), far.side()) as (here, _):
        waiting = asyncio.create_task(here.ask(Wait(), type(None)))
        await far.asked.wait()
    assert far.cancelled
    with pytest.raises((ChannelClosed, asyncio.CancelledError)):
        await waiting


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x00\x00\x03\xc1\xc1\xc1",
        b"\x00\x00\x00\x01\x80",
        b"\xff\xff\xff\xff",
        b"\x00\x00\x00\x09",
        b"\x00\x00",
        b"\x00\x00\x00\x08\x92\xa4tell\x91\xa1x",
    ],
)
async def test_what_is_no_message_closes_the_talk(data: bytes) -> None:
    far = Far()
    near, other = socket.socketpair()
    here = await Talk.over(near, *far.side())
    other.sendall(data)
    other.shutdown(socket.SHUT_WR)
    await here.run()
    assert far.heard == []
    other.close()


async def test_a_channel_keeps_messages_whole_however_they_are_cut() -> None:
    near, far = socket.socketpair()
    sent = [bytes(range(256)) * size for size in (0, 1, 7, 500, 5_000)]
    writer = await Channel.over(near, msgspec.msgpack.Decoder(bytes), 1 << 22)
    reader = await Channel.over(far, msgspec.msgpack.Decoder(bytes), 1 << 22)
    for one in sent:
        writer.send(one)
    assert [await reader.receive() for _ in sent] == sent
    writer.close()
    with pytest.raises(ChannelClosed):
        await reader.receive()
    reader.close()
