"""`rempart.gateway.door`: whoever is slow is let go, and never with an error in the middle of an answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from rempart import limits
from rempart.gateway.door import DOOR

if TYPE_CHECKING:
    from conftest import House

GET = b"GET / HTTP/1.1\r\nhost: here\r\n\r\n"


@pytest.mark.parametrize("begun", [b"", b"G", b"GET / HTTP/1.1\r\nhost: he", b"GET / HTTP/1.1\r\nhost: here\r\n"])
async def test_a_head_that_does_not_come_is_a_timeout(house: House, begun: bytes) -> None:
    connection = await house.connect()
    connection.send(begun)
    await house.until(lambda: house.state.connections)
    house.later(limits.request_head_s + 1)
    answer = await connection.answer()
    assert (answer.status, answer.error["code"]) == (408, "request_timeout")
    assert answer.headers["connection"] == "close"
    assert "x-request-id" in answer.headers
    assert await connection.end() == b""
    assert house.scopes == []


async def test_a_head_that_comes_in_time_has_time_again_for_the_next(house: House) -> None:
    connection = await house.connect()
    connection.send(GET)
    await connection.answer()
    assert house.door().head_since is None
    house.later(limits.request_head_s + 1)
    connection.send(GET)
    assert (await connection.answer()).status == 200


async def test_drops_that_keep_coming_buy_no_time(house: House) -> None:
    connection = await house.connect()
    await house.until(lambda: house.state.connections)
    since = house.door().head_since
    for drop in (b"GET / HTTP/1.1\r\n", b"a: b\r\n", b"c: d\r\n"):
        before = house.door().came
        connection.send(drop)
        await house.until(lambda before=before: house.door().came > before)
    assert house.door().head_since == since
    house.later(limits.request_head_s + 1)
    assert (await connection.answer()).status == 408


async def test_before_its_time_nothing_is_closed(house: House) -> None:
    connection = await house.connect()
    connection.send(b"GET / HTTP/1.1\r\n")
    await house.until(lambda: house.state.connections)
    house.later(0)
    connection.send(b"host: here\r\n\r\n")
    assert (await connection.answer()).status == 200


@pytest.mark.parametrize(
    "begun",
    [
        b"content-length: 10\r\n\r\nabc",
        b"content-length: 10\r\n\r\n",
        b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ],
)
async def test_a_body_that_does_not_come_is_a_timeout_and_the_client_gone(house: House, begun: bytes) -> None:
    connection = await house.connect()
    connection.send(b"POST / HTTP/1.1\r\nhost: here\r\n" + begun)
    await house.until(lambda: house.scopes)
    house.later(limits.request_head_s + 1)
    house.later(limits.request_body_s + 1)
    answer = await connection.answer()
    assert (answer.status, answer.error["code"]) == (408, "request_timeout")
    await house.until(lambda: "http.disconnect" in house.received)
    assert await connection.end() == b""


async def test_a_body_that_nobody_waits_for_any_more_ends_the_connection(house: House) -> None:
    connection = await house.connect()
    connection.send(b"POST /unread HTTP/1.1\r\nhost: here\r\ncontent-length: 10\r\n\r\nabc")
    assert (await connection.answer()).status == 200
    if house.state.connections:
        house.later(limits.request_body_s + 1)
    assert b"200 OK" not in await connection.end()


async def test_an_answer_that_takes_long_is_waited_for(house: House) -> None:
    connection = await house.connect()
    connection.send(GET.replace(b"/ ", b"/hold "))
    await house.until(lambda: house.scopes)
    house.later(10 * limits.request_body_s)
    house.release.set()
    assert (await connection.answer()).status == 200


async def test_a_client_that_does_not_read_is_let_go(house: House) -> None:
    connection = await house.connect()
    connection.writer.transport.pause_reading()
    connection.send(GET.replace(b"/ ", b"/flood "))
    await house.until(lambda: house.state.connections and house.door().stalled_since)
    house.later(limits.client_stall_s - 1)
    assert house.state.connections
    house.later(limits.client_stall_s + 1)
    house.release.set()
    await house.until(lambda: not house.state.connections)


async def test_nonsense_behind_a_request_does_not_stand_within_its_answer(house: House) -> None:
    connection = await house.connect()
    connection.send(GET.replace(b"/ ", b"/flood "))
    begun = await connection.reader.readuntil(b"\r\n\r\n")
    assert b"200 OK" in begun
    connection.send(b"nonsense\r\n\r\n")
    house.release.set()
    assert b"invalid_request" not in await connection.end()


async def test_who_waits_for_the_client_to_leave_is_called_once(house: House) -> None:
    connection = await house.connect()
    connection.send(GET.replace(b"/ ", b"/watch "))
    await house.until(lambda: house.scopes and "http.request" in house.received)
    await asyncio.sleep(0)
    connection.writer.close()
    await house.until(lambda: house.gone)
    assert house.gone == ["/watch"]


async def test_who_asks_after_the_client_left_is_called_at_once(house: House) -> None:
    connection = await house.connect()
    connection.send(GET.replace(b"/ ", b"/hold "))
    await house.until(lambda: house.scopes)
    door = house.scopes[0][DOOR]
    connection.writer.close()
    await house.until(lambda: not house.state.connections)
    called: list[bool] = []
    door.when_gone(lambda: called.append(True))
    assert called == [True]


async def test_who_no_longer_waits_is_not_called(house: House) -> None:
    connection = await house.connect()
    connection.send(GET.replace(b"/ ", b"/hold "))
    await house.until(lambda: house.scopes)
    called: list[bool] = []
    house.door().when_gone(lambda: called.append(True))
    house.door().when_gone(None)
    connection.writer.close()
    await house.until(lambda: not house.state.connections)
    assert called == []
